#!/usr/bin/env python3
"""Looks closely at two figures of `highwater serve` that one run cannot tell.

    scripts/bench-serve-closely.py beside     what 5,000 stalled readers cost 100 healthy ones
    scripts/bench-serve-closely.py bulk       the processor time of a file of 1 GiB

`beside` runs each server twice, as X and as Y. A round measures both, lets the
stalled readers ask Y for a large file, and measures both again. So it tells apart

    control   Y to X with nobody stalled: the spread of the method
    machine   X beside the stalled readers of Y, to X alone: what the kernel takes
    beside    Y beside its own stalled readers, to Y alone: what its clients see
    own       beside to machine: what the server itself adds

`bulk` runs the servers in turn, in random order. On loopback an ACK sends what
waits in the socket, in the time of whoever reads. So it matters whether server
and reader have a core each (`--cores apart`), share one (`same`), or are left to
the scheduler (`free`).

Figures are medians with their quartiles in brackets.
"""

import argparse
import os
import random
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HEALTHY = 100
NGINX = """
daemon off; master_process off; pid {work}/{name}.pid; error_log {work}/{name}.err; worker_rlimit_nofile 20000;
events {{ worker_connections 12000; }}
http {{ access_log off; sendfile on; keepalive_requests 100000000;
    client_body_temp_path {work}/b; proxy_temp_path {work}/p; fastcgi_temp_path {work}/f;
    uwsgi_temp_path {work}/u; scgi_temp_path {work}/s;
    server {{ listen 127.0.0.1:{port} backlog=4096; root {work}/site; }} }}
"""
STALL = """
import socket, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
sockets = []
for number in range(count):
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", port))
    reader.sendall(b"GET /sparse.bin HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
    sockets.append(reader)
print("stalled", flush=True)
sys.stdin.read()
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One running server of the files in `work`/site."""

    def __init__(self, kind, name, work, options):
        self.kind, self.port = kind, free_port()
        self.options = options
        if kind == "nginx":
            config = os.path.join(work, name + ".conf")
            with open(config, "w") as file:
                file.write(NGINX.format(work=work, name=name, port=self.port))
            command = ["nginx", "-c", config, "-p", work]
        else:
            program = options.baseline if kind == "baseline" else options.highwater
            command = [program, "serve", os.path.join(work, "site"), "--port", str(self.port)]
            command += ["--log-level", "warn", "--max-clients", "12000", *options.serve]
        with open(os.path.join(work, name + ".log"), "w") as log:
            self.process = subprocess.Popen(on_core(options, 0) + command, stdout=log, stderr=log)
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                time.sleep(0.1)
        sys.exit(f"bench-serve-closely: {name} did not start")

    def url(self, file):
        return f"http://127.0.0.1:{self.port}/{file}"

    def cpu_us(self):
        total, tasks = 0, f"/proc/{self.process.pid}/task"
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/schedstat") as file:
                total += int(file.read().split()[0])
        return total / 1000

    def sleeps(self):
        with open(f"/proc/{self.process.pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("voluntary"))

    def small(self):
        """Requests a second, and microseconds of processor for each."""
        before = self.cpu_us()
        command = ["wrk", "-t1", f"-c{HEALTHY}", f"-d{self.options.seconds}s", self.url("1k.bin")]
        said = subprocess.run(on_core(self.options, 1) + command, capture_output=True, text=True, check=True)
        requests = int(re.search(r"(\d+) requests in", said.stdout)[1])
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said.stdout)[1])
        return rate, (self.cpu_us() - before) / max(requests, 1)

    def large(self):
        """Milliseconds of the server, of both, and of the clock; how often the server slept."""
        before, slept, begun = self.cpu_us(), self.sleeps(), time.monotonic()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = ["curl", "-s", "-o", "/dev/null", self.url("1g.bin")]
        subprocess.run(on_core(self.options, 1) + command, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        reader = (after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime) * 1000
        server = (self.cpu_us() - before) / 1000
        return server, server + reader, (time.monotonic() - begun) * 1000, self.sleeps() - slept

    def stop(self):
        self.process.terminate()
        self.process.wait()


def on_core(options, core):
    cores = {"free": [], "apart": ["taskset", "-c", str(core)], "same": ["taskset", "-c", "0"]}
    return cores[options.cores]


def spread(values, digits=3):
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


def table(head, columns, rows):
    print("| " + " | ".join([head, *columns]) + " |")
    print("| --- |" + " ---: |" * len(columns))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def stall(server, options):
    command = [sys.executable, "-c", STALL, str(server.port), str(options.stalled)]
    readers = subprocess.Popen(
        on_core(options, 1) + command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    if readers.stdout.readline().strip() != "stalled":
        sys.exit("bench-serve-closely: the stalled readers did not connect")
    time.sleep(options.settle)
    return readers


def release(readers):
    readers.stdin.close()
    readers.wait()
    time.sleep(2)


def measure_both(pair, options):
    """Means of (rate, cpu) of X and Y, in turn."""
    seen = [[], []]
    for _ in range(options.slices):
        for place in random.sample(range(2), 2):
            seen[place].append(pair[place].small())
    return [[statistics.mean(values) for values in zip(*samples)] for samples in seen]


def beside_round(pair, ratios, options):
    alone = measure_both(pair, options)
    readers = stall(pair[1], options)
    beside = measure_both(pair, options)
    release(readers)
    for place, unit in enumerate(["requests/s", "processor a request"]):
        (x_alone, y_alone), (x_beside, y_beside) = ([one[place] for one in both] for both in (alone, beside))
        told = {
            "control": y_alone / x_alone,
            "machine": x_beside / x_alone,
            "beside": y_beside / y_alone,
            "own": y_beside / y_alone / (x_beside / x_alone),
        }
        for key, value in told.items():
            ratios.setdefault(f"{unit}: {key}", []).append(value)


def beside(kinds, start, options):
    pairs, ratios = {}, {kind: {} for kind in kinds}
    for kind in kinds:
        pairs[kind] = [start(kind, f"{kind}-{place}") for place in "xy"]
        measure_both(pairs[kind], options)
    for number in range(options.rounds):
        for kind in random.sample(kinds, len(kinds)):
            beside_round(pairs[kind], ratios[kind], options)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    rows = [[key] + [spread(ratios[kind][key]) for kind in kinds] for key in ratios[kinds[0]]]
    table(f"beside {options.stalled:,} stalled, {options.rounds} rounds", kinds, rows)


def bulk(kinds, start, options):
    servers = [start(kind, f"{kind}-{place}") for place, kind in enumerate(kinds)]
    seen = [[] for _ in servers]
    for server in servers:
        server.large()
    for _ in range(options.rounds):
        for place in random.sample(range(len(servers)), len(servers)):
            seen[place].append(servers[place].large())
    whats = ["server, ms", "server and reader, ms", "clock, ms", "times that the server slept"]
    rows = [
        [what] + [spread([one[place] for one in samples], 0) for samples in seen]
        for place, what in enumerate(whats)
    ]
    if "nginx" in kinds:
        base = seen[kinds.index("nginx")]
        for place in range(2):
            ratio = [spread([one[place] / to[place] for one, to in zip(samples, base)]) for samples in seen]
            rows.append([whats[place].removesuffix(", ms") + ", to nginx", *ratio])
    table(f"1 GiB, cores {options.cores}, {options.rounds} rounds", kinds, rows)


def make_site(work, options):
    site = os.path.join(work, "site")
    os.chmod(work, 0o755)
    os.mkdir(site, 0o755)
    with open(os.path.join(site, "1k.bin"), "wb") as file:
        file.write(os.urandom(1024))
    with open(os.path.join(site, "sparse.bin"), "wb") as file:
        file.truncate(4 << 30)
    if options.what == "bulk":
        with open(os.path.join(site, "1g.bin"), "wb") as file:
            for _ in range(1024):
                file.write(os.urandom(1 << 20))


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["beside", "bulk"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--cores", choices=["apart", "same", "free"], default="apart")
    parser.add_argument("--servers", help="of highwater, baseline and nginx; one may stand twice for bulk")
    parser.add_argument("--highwater", default="target/release/highwater")
    parser.add_argument("--baseline", help="another build of highwater: the server `baseline`")
    parser.add_argument("--serve", action="append", default=[], metavar="OPTION", help="for highwater serve")
    parser.add_argument("--stalled", type=int, default=5000)
    parser.add_argument("--seconds", type=int, default=1, help="of one run of wrk")
    parser.add_argument("--slices", type=int, default=2, help="runs of each server before and beside")
    parser.add_argument("--settle", type=float, default=2, help="seconds after the stalled have asked")
    return parser.parse_args()


def main():
    options = parse()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    usual = {"beside": "highwater,nginx", "bulk": "highwater,nginx,highwater"}
    kinds = (options.servers or usual[options.what]).split(",")
    work = tempfile.mkdtemp(prefix="highwater-bench-serve-closely.")
    running = []

    def start(kind, name):
        running.append(Server(kind, name, work, options))
        return running[-1]

    try:
        make_site(work, options)
        {"beside": beside, "bulk": bulk}[options.what](kinds, start, options)
    finally:
        for server in running:
            server.stop()
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
