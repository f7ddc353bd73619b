"""Uses a broadcast server as programs with redis-py do: subscribe, pattern,
pipeline, a stalled sibling, reconnect. Then holds what the server sends against
redis-py's own parser, byte by byte.

    redis_py.py PORT PROTOCOL
"""

import random
import socket
import sys
import threading
import time

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

PORT, PROTOCOL = int(sys.argv[1]), int(sys.argv[2])
PATIENCE = 20.0


def connect():
    # Version 5 tries only once unless it is told to try again.
    retry = Retry(ConstantBackoff(0.1), 10)
    return redis.Redis(
        port=PORT,
        protocol=PROTOCOL,
        socket_timeout=PATIENCE,
        retry=retry,
        retry_on_error=[redis.ConnectionError],
    )


def messages(pubsub, count):
    """The next messages that are no confirmations."""
    found, give_up = [], time.monotonic() + PATIENCE
    while len(found) < count:
        assert time.monotonic() < give_up, f"{len(found)} of {count} messages came"
        message = pubsub.get_message(timeout=1.0)
        if message and message["type"] in ("message", "pmessage"):
            found.append(message)
    return found


def subscribes():
    client, pubsub = connect(), connect().pubsub()
    pubsub.subscribe("news")
    assert pubsub.get_message(timeout=PATIENCE)["type"] == "subscribe"
    assert client.publish("news", "one") == 1
    assert messages(pubsub, 1)[0]["data"] == b"one"
    pubsub.unsubscribe("news")
    assert pubsub.get_message(timeout=PATIENCE)["type"] == "unsubscribe"
    assert client.publish("news", "two") == 0


def uses_patterns():
    client, pubsub = connect(), connect().pubsub()
    pubsub.psubscribe("ticks.*")
    assert pubsub.get_message(timeout=PATIENCE)["type"] == "psubscribe"
    client.publish("ticks.eur", b"\x00\xff\r\n")
    message = messages(pubsub, 1)[0]
    assert (message["pattern"], message["channel"]) == (b"ticks.*", b"ticks.eur")
    assert message["data"] == b"\x00\xff\r\n"
    pubsub.close()


def uses_pipelines():
    client, pubsub = connect(), connect().pubsub()
    pubsub.subscribe("pipe")
    pubsub.get_message(timeout=PATIENCE)
    for transaction in (False, True):
        with client.pipeline(transaction=transaction) as pipeline:
            for number in range(200):
                pipeline.publish("pipe", number)
            assert pipeline.execute() == [1] * 200
        assert [int(message["data"]) for message in messages(pubsub, 200)] == list(range(200))
    pubsub.close()


def has_a_stalled_sibling():
    sibling = socket.socket()
    sibling.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sibling.connect(("127.0.0.1", PORT))
    sibling.sendall(b"SUBSCRIBE crowd\r\n")
    client, pubsub = connect(), connect().pubsub()
    pubsub.subscribe("crowd")
    pubsub.get_message(timeout=PATIENCE)
    while client.pubsub_numsub("crowd")[0][1] < 2:
        time.sleep(0.01)
    count, payload = 1500, b"x" * 4096

    def publish():
        publisher = connect()
        for number in range(count):
            publisher.publish("crowd", b"%08d%s" % (number, payload))

    thread = threading.Thread(target=publish)
    thread.start()
    numbers = [int(message["data"][:8]) for message in messages(pubsub, count)]
    thread.join()
    assert numbers == list(range(count))
    give_up = time.monotonic() + PATIENCE
    while client.pubsub_numsub("crowd")[0][1] > 1:
        assert time.monotonic() < give_up, "the stalled sibling is still there"
        time.sleep(0.05)
    pubsub.close()


def reconnects():
    client, pubsub = connect(), connect().pubsub()
    pubsub.subscribe("back")
    pubsub.get_message(timeout=PATIENCE)
    assert client.client_kill_filter(_type="pubsub") >= 1
    give_up, message = time.monotonic() + PATIENCE, None
    while not message or message["type"] != "message":
        assert time.monotonic() < give_up, "it did not come back"
        client.publish("back", "again")
        message = pubsub.get_message(timeout=0.1)
    assert message["data"] == b"again"
    pubsub.close()


class Recorded:
    """A socket from which a recording comes in pieces."""

    def __init__(self, recording, most):
        self.rest, self.most = recording, most

    def recv(self, size):
        size = min(size, random.randint(1, self.most), len(self.rest))
        piece, self.rest = self.rest[:size], self.rest[size:]
        return piece

    def recv_into(self, buffer):
        piece = self.recv(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def settimeout(self, _):
        pass


class Connection:
    """What redis-py's parsers want of a connection."""

    def __init__(self, recording, most):
        self._sock = Recorded(recording, most)
        self.socket_timeout = 1.0
        self.encoder = redis.connection.Encoder("utf-8", "strict", False)


def record():
    """Everything that the server says to commands as redis-py encodes them."""
    encode = redis.connection.PythonRespSerializer(
        65536, redis.connection.Encoder("utf-8", "strict", False).encode
    ).pack
    commands = [("HELLO", PROTOCOL), ("CLIENT", "SETNAME", "recorder"), ("ECHO", b"\r\n$-1\r\n\x00"), ("NOSUCH", "x")]
    commands += [("SUBSCRIBE", "a", "b"), ("PSUBSCRIBE", "a*"), ("SSUBSCRIBE", "s")]
    commands += [("PING",), ("PING", "x" * 5000)]
    if PROTOCOL == 3:
        commands += [("PUBLISH", "a", b"y" * 70000), ("SPUBLISH", "s", ""), ("PUBSUB", "NUMSUB", "a", "none")]
        commands += [("CLIENT", "INFO"), ("CONFIG", "GET", "*"), ("COMMAND", "COUNT"), ("MULTI",), ("ECHO", "q"), ("EXEC",)]
    commands += [("UNSUBSCRIBE",), ("PUNSUBSCRIBE",), ("SUNSUBSCRIBE",), ("TIME",), ("ECHO", "the end")]
    stream = b"".join(part for command in commands for part in encode(*command))
    with socket.create_connection(("127.0.0.1", PORT), timeout=PATIENCE) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        at = 0
        while at < len(stream):
            size = random.randint(1, 700)
            raw.sendall(stream[at : at + size])
            at += size
        recording = b""
        while not recording.endswith(b"the end\r\n"):
            recording += raw.recv(65536)
    return recording


def parse(recording, most):
    from redis._parsers import _RESP2Parser, _RESP3Parser

    connection = Connection(recording, most)
    parser = (_RESP3Parser if PROTOCOL == 3 else _RESP2Parser)(65536)
    parser.on_connect(connection)
    pushes, values = [], []
    if PROTOCOL == 3:
        parser.set_pubsub_push_handler(lambda push: pushes.append(list(push)))
    while not values or values[-1] != b"the end":
        value = parser.read_response()
        values.append(str(value) if isinstance(value, Exception) else value)
    assert not connection._sock.rest, "bytes behind the last reply"
    return values, pushes


def is_understood_by_the_parser():
    recording = record()
    values, pushes = parse(recording, len(recording))
    for most in (1, 7, 1000):
        assert parse(recording, most) == (values, pushes), "pieces are understood in another way"
    flat = repr((values, pushes))
    for word in (b"\r\n$-1\r\n\x00", b"subscribe", b"psubscribe", b"ssubscribe", b"x" * 5000):
        assert repr(word)[2:-1] in flat, f"{word[:20]} is missing"
    assert "unknown command" in flat
    if PROTOCOL == 3:
        assert [b"message", b"a", b"y" * 70000] in pushes + values
        assert [b"pmessage", b"a*", b"a", b"y" * 70000] in pushes + values
        assert [b"smessage", b"s", b""] in pushes + values


for check in (
    subscribes,
    uses_patterns,
    uses_pipelines,
    has_a_stalled_sibling,
    reconnects,
    is_understood_by_the_parser,
):
    check()
    print(f"  redis-py {redis.__version__} protocol {PROTOCOL}: {check.__name__.replace('_', ' ')}", flush=True)
