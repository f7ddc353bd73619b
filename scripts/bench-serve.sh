#!/usr/bin/env bash
# Compares `highwater serve` with nginx, lighttpd and a tokio/hyper server of
# files, in rounds in which each has its turn, and prints tables for
# docs/serve.md. Figures of processor time stand firmer than those of a clock on
# a machine that does other things too.
#
#   scripts/bench-serve.sh [ROUNDS]        3 by default, about four minutes
#
# HYPER=PATH names the built benches/peers/hyper_files; without it, it is built.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/servers.sh

rounds=${1:-3}
bin=${HIGHWATER:-target/release/highwater}
require "$bin" wrk curl python3
ulimit -n "$(ulimit -Hn)"
work=$(mktemp -d "${TMPDIR:-/tmp}/highwater-bench-serve.XXXXXX")
declare -A pid port
names=()
cleanup() {
    for name in "${names[@]}"; do kill "${pid[$name]}" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

mkdir "$work/site"
chmod 755 "$work" "$work/site"
head -c 1024 /dev/urandom >"$work/site/1k.bin"
head -c 1073741824 /dev/urandom >"$work/site/1g.bin"
truncate -s 4G "$work/site/sparse.bin"

# start NAME COMMAND...: the command listens on ${port[NAME]} already.
start() {
    local name=$1
    shift
    "$@" >"$work/$name.log" 2>&1 &
    pid[$name]=$!
    names+=("$name")
    for _ in $(seq 100); do
        curl -s -o /dev/null "http://127.0.0.1:${port[$name]}/1k.bin" && return
        sleep 0.1
    done
    echo "bench-serve: $name did not start"
    exit 1
}

port[highwater]=$(free_port)
start highwater "$bin" serve "$work/site" --port "${port[highwater]}" --log-level warn --max-clients 12000
if command -v nginx >/dev/null; then
    port[nginx]=$(free_port)
    cat >"$work/nginx.conf" <<CONF
daemon off; master_process off; pid $work/nginx.pid; error_log $work/nginx.err; worker_rlimit_nofile 20000;
events { worker_connections 12000; }
http { access_log off; sendfile on; keepalive_requests 100000000;
    client_body_temp_path $work/b; proxy_temp_path $work/p; fastcgi_temp_path $work/f; uwsgi_temp_path $work/u; scgi_temp_path $work/s;
    server { listen 127.0.0.1:${port[nginx]} backlog=4096; root $work/site; } }
CONF
    start nginx nginx -c "$work/nginx.conf" -p "$work"
fi
if command -v lighttpd >/dev/null; then
    port[lighttpd]=$(free_port)
    cat >"$work/lighttpd.conf" <<CONF
server.document-root = "$work/site"
server.bind = "127.0.0.1"
server.port = ${port[lighttpd]}
server.max-fds = 20000
server.max-connections = 12000
server.listen-backlog = 4096
server.max-keep-alive-requests = 0
CONF
    start lighttpd lighttpd -D -f "$work/lighttpd.conf"
fi
hyper=${HYPER:-}
if [ -z "$hyper" ]; then
    (cd benches/peers/hyper_files && CARGO_TARGET_DIR="$PWD/../../../target/peers" cargo build --release -q) || true
    hyper=target/peers/release/hyper-files
fi
if [ -x "$hyper" ]; then
    port[hyper]=$(free_port)
    start hyper "$hyper" "$work/site" "${port[hyper]}"
fi

# Processor time of all threads of a server, in microseconds.
cpu_us() { cat /proc/"${pid[$1]}"/task/*/schedstat 2>/dev/null | awk '{ sum += $1 } END { printf "%d\n", sum / 1000 }'; }

# Stalled readers of a large file: so many, until the file "go" vanishes.
stall() {
    python3 - "$1" "$2" "$work/go" <<'PY' &
import resource, socket, sys, os, time
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
port, count, go = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
sockets = []
for number in range(count):
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", port))
    reader.sendall(b"GET /sparse.bin HTTP/1.1\r\nHost: a\r\n\r\n")
    sockets.append(reader)
    if number % 200 == 199:
        time.sleep(0.05)
open(go, "w").close()
while os.path.exists(go):
    time.sleep(0.1)
PY
    stalling=$!
    while [ ! -e "$work/go" ]; do sleep 0.1; done
    sleep 2
}

released() {
    rm -f "$work/go"
    wait "$stalling" || true
    sleep 2
}

note() { echo "$*" >>"$work/figures"; }

requests() { # NAME SCENARIO CONNECTIONS
    local before after said count
    before=$(cpu_us "$1")
    said=$(wrk -t1 -c"$3" -d2s "http://127.0.0.1:${port[$1]}/1k.bin")
    after=$(cpu_us "$1")
    count=$(echo "$said" | awk '/requests in/ { print $1 }')
    note "$2 rate $1 $(echo "$said" | awk '/Requests\/sec/ { print $2 }')"
    [ "${count:-0}" -gt 0 ] && note "$2 cpu $1 $(awk -v us=$((after - before)) -v n="$count" 'BEGIN { print us / n }')"
    return 0
}

# On loopback an ACK sends what waits, in the time of the reader that wrote it.
# So the reader's time is noted, too.
bulk() {
    local before after reader
    before=$(cpu_us "$1")
    reader=$(python3 -c '
import resource, subprocess, sys
subprocess.run(["curl", "-s", "-o", "/dev/null", sys.argv[1]], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(int((used.ru_utime + used.ru_stime) * 1000))' "http://127.0.0.1:${port[$1]}/1g.bin")
    after=$(cpu_us "$1")
    note "gib cpu $1 $(((after - before) / 1000))"
    note "gib both $1 $(((after - before) / 1000 + reader))"
}

for _ in $(seq "$rounds"); do
    for name in "${names[@]}"; do requests "$name" keep50 50; done
    for name in "${names[@]}"; do requests "$name" keep1000 1000; done
    for name in "${names[@]}"; do bulk "$name"; bulk "$name"; done
done
for name in "${names[@]}"; do
    for _ in 1 2; do requests "$name" alone 100; done
    stall "${port[$name]}" 5000
    for _ in 1 2; do requests "$name" beside 100; done
    released
    stall "${port[$name]}" 9500
    note "stalled rss $name $(awk '/VmRSS/ { print $2 }' "/proc/${pid[$name]}/status")"
    note "stalled anon $name $(awk '/RssAnon/ { print $2 }' "/proc/${pid[$name]}/status")"
    released
done

python3 - "$work/figures" "${names[@]}" <<'PY'
import statistics, sys
figures, names = {}, sys.argv[2:]
for line in open(sys.argv[1]):
    scenario, kind, name, value = line.split()
    figures.setdefault((scenario, kind), {}).setdefault(name, []).append(float(value))
def row(title, key, digits, unit):
    values = figures.get(key, {})
    cells = [f"{statistics.median(values[name]):,.{digits}f}" if name in values else "–" for name in names]
    print(f"| {title}, {unit} | " + " | ".join(cells) + " |")
print("| | " + " | ".join(names) + " |")
print("| --- |" + " ---: |" * len(names))
row("1 KiB, 50 kept connections", ("keep50", "cpu"), 2, "µs of processor a request")
row("the same", ("keep50", "rate"), 0, "requests/s")
row("1 KiB, 1,000 kept connections", ("keep1000", "cpu"), 2, "µs of processor a request")
row("the same", ("keep1000", "rate"), 0, "requests/s")
row("1 GiB", ("gib", "cpu"), 0, "ms of processor")
row("the same and its reader", ("gib", "both"), 0, "ms of processor")
row("1 KiB, 100 connections", ("alone", "cpu"), 2, "µs of processor a request")
row("the same", ("alone", "rate"), 0, "requests/s")
row("beside 5,000 stalled", ("beside", "cpu"), 2, "µs of processor a request")
row("the same", ("beside", "rate"), 0, "requests/s")
row("RSS with 9,500 stalled", ("stalled", "rss"), 0, "KiB")
row("its part that is not the program", ("stalled", "anon"), 0, "KiB")
PY
