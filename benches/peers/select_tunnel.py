"""The classic tunnel: one thread, select, blocking sockets, sendall.

Usage: python3 select_tunnel.py PORT HOST:PORT   (port 0 takes a free one)
"""

import select
import socket
import sys

READ_BYTES = 64 * 1024


def main():
    host, port = sys.argv[2].rsplit(":", 1)
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=4096)
    print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
    partner = {}
    while True:
        ready, _, _ = select.select([listener, *partner], [], [])
        for end in ready:
            if end is listener:
                client, _ = listener.accept()
                upstream = socket.create_connection((host, int(port)))
                for each in (client, upstream):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                partner[client], partner[upstream] = upstream, client
            elif end in partner:
                try:
                    piece = end.recv(READ_BYTES)
                    if piece:
                        partner[end].sendall(piece)
                except OSError:
                    piece = b""
                if not piece:
                    other = partner.pop(end)
                    del partner[other]
                    end.close()
                    other.close()


main()
