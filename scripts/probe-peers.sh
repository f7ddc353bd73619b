#!/usr/bin/env bash
# Runs `highwater probe` on real servers and on this project's examples, and
# writes the results to docs/servers.md, with plots in docs/servers/.
#
#   scripts/probe-peers.sh            all of them, then the page
#   scripts/probe-peers.sh NAME...    only these, then the page from all results so far
#   scripts/probe-peers.sh --list     the names
#
# Servers get free ports and a temporary directory and are stopped at the end.
# A server that is not installed is skipped with a line (install-peers.sh
# installs it). One that does not start, or whose probe fails, costs its own row
# and no other; a result of an earlier run stays. All of them take some ten minutes.
# HIGHWATER names the binary to use; without it the script builds the release.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/servers.sh

peers=scripts/peers
results=target/probe-peers
plots=docs/servers
# No probe takes longer; the script ends one that does, without a result.
probe_seconds=180
PATH="$PATH:/usr/sbin:/sbin"

# --- small tools -------------------------------------------------------------

say() { printf 'probe-peers: %s\n' "$*" >&2; }

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Waits for ten seconds and more; not for a server that has ended.
wait_for_port() {
    local tries
    for ((tries = 0; tries < 200; tries++)); do
        if listens "$1"; then return 0; fi
        kill -0 "$server_pid" 2>/dev/null || return 1
        sleep 0.05
    done
    return 1
}

# fill TEMPLATE FILE NAME=VALUE...: copies a configuration, with values for @NAME@.
fill() {
    local template=$1 file=$2 pair
    local rules=(-e "s|@DIR@|$dir|g" -e "s|@PORT@|$port|g")
    shift 2
    for pair in "$@"; do rules+=(-e "s|@${pair%%=*}@|${pair#*=}|g"); done
    sed "${rules[@]}" "$peers/$template" >"$file"
}

# Each server leads a process group of its own, so that its children end with
# it, and no other process does.
pids=()
spawn() {
    set -m
    "$@" >>"$dir/output" 2>&1 &
    set +m
    pids+=("$!")
    server_pid=$!
}

stop_servers() {
    local pid
    for pid in "${pids[@]}"; do
        kill -TERM -- "-$pid" 2>/dev/null || true
    done
    for pid in "${pids[@]}"; do
        local tries
        for ((tries = 0; tries < 40; tries++)); do
            kill -0 -- "-$pid" 2>/dev/null || break
            sleep 0.05
        done
        kill -KILL -- "-$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    pids=()
}

# --- the servers -------------------------------------------------------------
# Each function starts one on $port with its files in $dir, and sets $command to
# the command line, with $PORT, $UPSTREAM and $DIR for the parts that vary.

start_redis() {
    version=$(redis-server --version | sed -n 's/.* v=\([^ ]*\).*/redis \1/p')
    fill redis.conf "$dir/redis.conf"
    command="redis-server scripts/peers/redis.conf"
    spawn redis-server "$dir/redis.conf"
}

start_nats() {
    version=$(nats-server --version | sed 's/: v/ /')
    fill nats.conf "$dir/nats.conf"
    command="nats-server -c scripts/peers/nats.conf"
    spawn nats-server -c "$dir/nats.conf"
}

nginx_version() { nginx -v 2>&1 | sed 's/.*: //; s|/| |'; }

# start_nginx_file TIMEOUT RESET
start_nginx_file() {
    version=$(nginx_version)
    mkdir -p "$dir/files"
    truncate -s 16M "$dir/files/large.bin"
    fill nginx-file.conf "$dir/nginx.conf" "TIMEOUT=$1" "RESET=$2"
    command="nginx -p \$DIR -c scripts/peers/nginx-file.conf (send_timeout $1; reset_timedout_connection $2)"
    spawn nginx -p "$dir" -e "$dir/error.log" -c "$dir/nginx.conf"
}

# Readers of other users than root must get to it.
make_large_file() {
    mkdir -p "$dir/files"
    truncate -s 16M "$dir/files/large.bin"
    chmod 755 "$dir" "$dir/files"
}

# start_apache SECONDS
start_apache() {
    version=$(apache2 -v | sed -n '1s|.*: Apache/\([^ ]*\).*|Apache \1|p')
    make_large_file
    fill apache.conf "$dir/apache.conf" "TIMEOUT=$1"
    command="apache2 -f scripts/peers/apache.conf -DFOREGROUND (Timeout $1)"
    spawn apache2 -f "$dir/apache.conf" -DFOREGROUND
}

# start_lighttpd SECONDS
start_lighttpd() {
    version=$(lighttpd -v | sed -n '1s|lighttpd/\([^ ]*\).*|lighttpd \1|p')
    make_large_file
    fill lighttpd.conf "$dir/lighttpd.conf" "TIMEOUT=$1"
    command="lighttpd -D -f scripts/peers/lighttpd.conf (server.max-write-idle = $1)"
    spawn lighttpd -D -f "$dir/lighttpd.conf"
}

# start_varnish SECONDS
start_varnish() {
    start_file_upstream
    version=$(varnishd -V 2>&1 | sed -n '1s/.*varnish-\([^ ]*\) .*/Varnish \1/p')
    fill varnish.vcl "$dir/varnish.vcl" "UPSTREAM=$upstream"
    local limits="-p send_timeout=$1 -p idle_send_timeout=$1"
    command="varnishd -F -n \$DIR -a 127.0.0.1:\$PORT -f scripts/peers/varnish.vcl $limits"
    # shellcheck disable=SC2086
    spawn varnishd -F -n "$dir/varnish" -a "127.0.0.1:$port" -f "$dir/varnish.vcl" $limits
}

start_mosquitto() {
    # It answers this question by a code that is no success.
    version=$({ mosquitto -h || true; } | sed -n '1s/mosquitto version /mosquitto /p')
    fill mosquitto.conf "$dir/mosquitto.conf"
    command="mosquitto -c scripts/peers/mosquitto.conf"
    spawn mosquitto -c "$dir/mosquitto.conf"
}

# Writes to $port what is read from standard input, and waits for the answer to begin.
tell() { (exec 3<>"/dev/tcp/127.0.0.1/$port" && cat >&3 && head -c 4 <&3 >/dev/null); }

start_memcached() {
    version=$(memcached -V)
    command="memcached -l 127.0.0.1 -p \$PORT -U 0"
    local user=()
    if ((EUID == 0)); then user=(-u nobody); fi
    spawn memcached -l 127.0.0.1 -p "$port" -U 0 "${user[@]}"
    wait_for_port "$port" || return 0
    { printf 'set large 0 0 65536\r\n'; printf '%65536s' '' | tr ' ' x; printf '\r\n'; } | tell
}

start_beanstalkd() {
    version=$(beanstalkd -v)
    command="beanstalkd -l 127.0.0.1 -p \$PORT"
    spawn beanstalkd -l 127.0.0.1 -p "$port"
    wait_for_port "$port" || return 0
    { printf 'put 0 0 60 65000\r\n'; printf '%65000s' '' | tr ' ' x; printf '\r\n'; } | tell
}

start_mail() {
    version=$({ smtpd -h 2>&1 || true; } | sed -n 's/version: //p')
    fill smtpd.conf "$dir/smtpd.conf"
    command="smtpd -d -f scripts/peers/smtpd.conf"
    spawn smtpd -d -f "$dir/smtpd.conf"
}

start_go() {
    version=$(go version | sed 's/go version go\([^ ]*\).*/Go \1/')
    command="go run benches/peers/echo.go \$PORT"
    GO111MODULE=off go build -o "$work/go_echo" benches/peers/echo.go
    spawn "$work/go_echo" "$port"
}

start_tokio() {
    version="tokio $(sed -n '/^name = "tokio"$/{n;s/version = "\(.*\)"/\1/p}' benches/peers/tokio/Cargo.lock)"
    command="benches/peers/tokio current_thread \$PORT"
    cargo build -j2 --quiet --release --locked --manifest-path benches/peers/tokio/Cargo.toml \
        --target-dir target/peers/tokio
    spawn target/peers/tokio/release/tokio-peer current_thread "$port"
}

# start_nginx_stream TIMEOUT
start_nginx_stream() {
    version=$(nginx_version)
    # Debian has the stream module as a file of its own, others have it built in.
    local module=/usr/lib/nginx/modules/ngx_stream_module.so load=""
    if [[ -e $module ]]; then load="load_module $module;"; fi
    start_upstream
    fill nginx-stream.conf "$dir/nginx.conf" "TIMEOUT=$1" "UPSTREAM=$upstream" "MODULE=$load"
    command="nginx -p \$DIR -c scripts/peers/nginx-stream.conf (proxy_timeout $1)"
    spawn nginx -p "$dir" -e "$dir/error.log" -c "$dir/nginx.conf"
}

# start_haproxy TIMEOUT [UPSTREAM-FUNCTION]
start_haproxy() {
    "${2:-start_upstream}"
    version=$(haproxy -v | sed -n '1s/HAProxy version \([^ ]*\).*/HAProxy \1/p')
    fill haproxy.cfg "$dir/haproxy.cfg" "TIMEOUT=$1" "UPSTREAM=$upstream"
    command="haproxy -db -f scripts/peers/haproxy.cfg (timeout client $1; timeout server $1)"
    spawn haproxy -db -f "$dir/haproxy.cfg"
}

# start_socat SECONDS
start_socat() {
    version=$(socat -V | sed -n '2s/socat version \([^ ]*\).*/socat \1/p')
    start_upstream
    local listen="TCP-LISTEN:$port,bind=127.0.0.1,reuseaddr,fork,backlog=128"
    command="socat -T $1 TCP-LISTEN:\$PORT,bind=127.0.0.1,reuseaddr,fork,backlog=128 TCP:127.0.0.1:\$UPSTREAM"
    spawn socat -T "$1" "$listen" "TCP:127.0.0.1:$upstream"
}

start_node() {
    version="Node.js $(node --version)"
    command="node scripts/peers/node_pipe.mjs \$PORT"
    spawn node "$peers/node_pipe.mjs" "$port"
    wait_for_port "$port" && warm_up "$port"
}

# A just-in-time compiler needs some work before its speed means anything.
warm_up() {
    "$highwater" probe --port "$1" --stalled 0 --talkers 0 --paused 0 --steady 0 --baseline 1s >/dev/null 2>&1 || true
}

# The server behind the proxies: an echo that pauses its source, keeps few
# bytes, and disconnects no client, so that every effect is the proxy's.
start_upstream() {
    upstream=$(free_port)
    spawn node "$peers/node_pipe.mjs" "$upstream"
    wait_for_port "$upstream" && warm_up "$upstream"
}

# The same for downloads: nginx with a large file, and far more patience than the proxy.
start_file_upstream() {
    upstream=$(free_port)
    local port=$upstream
    start_nginx_file 600s off
    wait_for_port "$upstream"
}

start_highwater() {
    version=$("$highwater" --version)
    command="highwater echo --port \$PORT"
    spawn "$highwater" echo --port "$port" --log-level warn
}

start_highwater_tunnel() {
    start_upstream
    version=$("$highwater" --version)
    command="highwater tunnel --to 127.0.0.1:\$UPSTREAM --port \$PORT"
    spawn "$highwater" tunnel --to "127.0.0.1:$upstream" --port "$port" --log-level warn
}

start_highwater_serve() {
    version=$("$highwater" --version)
    make_large_file
    command="highwater serve \$DIR --port \$PORT --grace 5s"
    spawn "$highwater" serve "$dir/files" --port "$port" --grace 5s --log-level warn
}

# start_highwater_broadcast ACTION
start_highwater_broadcast() {
    version=$("$highwater" --version)
    command="highwater broadcast --port \$PORT --slow $1"
    spawn "$highwater" broadcast --port "$port" --slow "$1" --log-level warn
}

# start_example NAME OPTION...
start_example() {
    local name=$1
    shift
    version="this project's examples/$name.rs"
    command="$name --port \$PORT${*:+ $*}"
    spawn "$(dirname "$highwater")/examples/$name" --port "$port" "$@"
}

start_tunnel_example() {
    start_upstream
    start_example select_tunnel --to "127.0.0.1:$upstream"
    command="select_tunnel --port \$PORT --to 127.0.0.1:\$UPSTREAM"
}

# --- what is probed ----------------------------------------------------------
# One line each: name | programs it needs | how to start it | title.
scenarios=(
    "redis|redis-server|start_redis|Redis, a subscriber under \`client-output-buffer-limit pubsub 0 1mb 5\`"
    "nats|nats-server|start_nats|NATS, a subscriber, as it comes"
    "nginx_file|nginx|start_nginx_file 5s off|nginx, a large file, \`send_timeout 5s\`"
    "nginx_file_reset|nginx|start_nginx_file 5s on|nginx, the same with \`reset_timedout_connection on\`"
    "apache|apache2|start_apache 5|Apache, a large file, \`Timeout 5\`"
    "lighttpd|lighttpd|start_lighttpd 5|lighttpd, a large file, \`server.max-write-idle = 5\`"
    "varnish|varnishd nginx|start_varnish 5|Varnish before a large file, \`send_timeout\` and \`idle_send_timeout\` 5"
    "mosquitto|mosquitto|start_mosquitto|mosquitto, a subscriber at QoS 0, as it comes"
    "memcached|memcached|start_memcached|memcached, 400 pipelined \`get\` of 64 KiB"
    "beanstalkd|beanstalkd|start_beanstalkd|beanstalkd, 400 pipelined \`peek\` of 64 KB"
    "mail|smtpd|start_mail|OpenSMTPD, after EHLO"
    "nginx_stream|nginx node|start_nginx_stream 5s|nginx as a TCP proxy, \`proxy_timeout 5s\`"
    "haproxy|haproxy node|start_haproxy 5s|HAProxy as a TCP proxy, \`timeout client 5s\`"
    "socat|socat node|start_socat 5|socat as a TCP proxy, \`-T 5\`"
    "node|node|start_node|Node.js, \`socket.pipe(socket)\`"
    "go|go|start_go|Go, one goroutine for each client"
    "tokio||start_tokio|tokio, one task for each client"
    "unbounded_echo||start_example unbounded_echo|the example \`unbounded_echo\`"
    "blocking_echo||start_example blocking_echo|the example \`blocking_echo\`"
    "select_tunnel|node|start_tunnel_example|the example \`select_tunnel\`"
    "timeout_echo||start_example timeout_echo|the example \`timeout_echo\`"
    "timeout_echo_plain||start_example timeout_echo --plain-close|the example \`timeout_echo --plain-close\`"
    "highwater||start_highwater|highwater echo"
    "highwater_tunnel|node|start_highwater_tunnel|highwater tunnel"
    "highwater_serve||start_highwater_serve|highwater serve, a large file, \`--grace 5s\`"
    "highwater_broadcast||start_highwater_broadcast disconnect|highwater broadcast, a subscriber"
    "nginx_file_3s|nginx|start_nginx_file 3s off|nginx, a large file, \`send_timeout 3s\`"
    "haproxy_3s|haproxy nginx|start_haproxy 3s start_file_upstream|HAProxy before a large file, \`timeout client 3s\`"
    "timeout_echo_steady||start_example timeout_echo|the example \`timeout_echo\`"
    "highwater_steady||start_highwater|highwater echo"
)

# repeat N TEXT
repeat() {
    local i
    for ((i = 0; i < $1; i++)); do printf '%s' "$2"; done
}

# Which of the page's two tables a scenario belongs to: slow clients of all kinds,
# or only readers that are slow and healthy.
table_of() {
    case "$1" in
    *_3s | *_steady) echo steady ;;
    *) echo slow ;;
    esac
}

# The options of the probe for a scenario, one a line, so that they may hold blanks.
probe_options() {
    local payload slow=(--trickle 2)
    # With its number, of 14 bytes, a message has 4,096.
    payload="{seq}$(printf '%4082s' '' | tr ' ' x)"
    case "$(table_of "$1")" in
    steady) slow=(--stalled 0 --talkers 0 --paused 0 --steady 3 --steady-rate 128KiB/s) ;;
    esac
    case "$1" in
    redis | highwater_broadcast)
        printf '%s\n' --protocol push --send 'SUBSCRIBE channel\r\n' --publish "PUBLISH channel $payload\\r\\n"
        ;;
    nats)
        slow+=(--within 12s)
        printf '%s\n' --protocol push --send 'CONNECT {"verbose":false}\r\nSUB subject 1\r\n'
        printf '%s\n' --publish "PUB subject 4096\\r\\n$payload\\r\\n"
        ;;
    mosquitto)
        local connect='\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00' subscribe='\x82\x06\x00\x01\x00\x01t\x00'
        printf '%s\n' --protocol push --send "$connect$subscribe" --publish-greeting "$connect"
        # The length of the packet, 3 + 4,096, in MQTT's way: 3 and 32 times 128.
        printf '%s\n' --publish "\\x30\\x83\\x20\\x00\\x01t$payload"
        ;;
    # What is asked once and answered at length; healthy clients have nothing to do afterwards.
    memcached) slow+=(--steady 0); printf '%s\n' --protocol push --send "$(repeat 400 'get large\r\n')" ;;
    beanstalkd) slow+=(--steady 0); printf '%s\n' --protocol push --send "$(repeat 400 'peek 1\r\n')" ;;
    mail)
        slow+=(--steady 0 --trickle 0)
        printf '%s\n' --protocol push --expect '220 .*\r\n' --send-first 'EHLO probe\r\n' --expect '250 .*\r\n'
        printf '%s\n' --send 'HELP\r\n'
        ;;
    # Whole files take healthy clients longer than pings, so fewer clients suffice.
    nginx_file* | apache | lighttpd | varnish | highwater_serve | haproxy_3s) printf '%s\n' --protocol http --path /large.bin --fast 2 ;;
    # Two connections per client, so the kernel alone buffers twice as many bytes each way.
    nginx_stream | haproxy | socat | select_tunnel | highwater_tunnel) printf '%s\n' --fill 64MiB ;;
    esac
    printf '%s\n' "${slow[@]}"
}

# --- one scenario ------------------------------------------------------------

missing_of() {
    local program
    for program in $1; do
        command -v "$program" >/dev/null || { echo "$program"; return; }
    done
}

# The command for the page: without the port, and long payloads cut.
show_probe_command() {
    local option shown="highwater probe --port \$PORT"
    for option in "$@"; do
        option=$(sed -E 's/x{64,}/x…x/; s/((get large|peek 1)\\r\\n){8,}/\1…\1/' <<<"$option")
        case "$option" in
        *[\ \\\"]*) shown+=" '$option'" ;;
        *) shown+=" $option" ;;
        esac
    done
    echo "$shown"
}

probe_one() {
    local name=$1 start=$2 title=$3 options=() code=0 load
    dir=$work/$name
    mkdir -p "$dir"
    port=$(free_port)
    # The words of `start` are a function and its arguments.
    read -r -a start <<<"$start"
    read -r load _ </proc/loadavg
    "${start[@]}"
    if ! wait_for_port "$port"; then
        say "$name does not listen; it says: $(tail -n 3 "$dir/output" | tr '\n' ' ')"
        return 1
    fi
    readarray -t options < <(probe_options "$name")
    timeout --kill-after=5 "$probe_seconds" "$highwater" probe --port "$port" --pid "$server_pid" \
        "${options[@]}" --json --plot "$dir/plot.svg" >"$dir/probe.json" 2>"$dir/probe.log" || code=$?
    stop_servers
    if ((code > 1)); then
        say "$name: the probe failed with code $code: $(tail -n 3 "$dir/probe.log" | tr '\n' ' ')"
        return 1
    fi
    mkdir -p "$results"
    cp "$dir/probe.json" "$results/$name.json"
    # A result never keeps the plot of an older one.
    rm -f "$results/$name.svg"
    if [[ -e $dir/plot.svg ]]; then cp "$dir/plot.svg" "$results/$name.svg"; fi
    {
        printf 'title\t%s\nversion\t%s\nserver\t%s\n' "$title" "$version" "$command"
        printf 'probe\t%s\n' "$(show_probe_command "${options[@]}")"
        printf 'table\t%s\nload\t%s\nprocessors\t%s\n' "$(table_of "$name")" "$load" "$(nproc)"
        printf 'code\t%s\ndate\t%s\nkernel\t%s\n' "$code" "$(date -u +%F)" "$(uname -sr | sed 's/-.*//')"
    } >"$results/$name.tsv"
    say "$name: $(sed -n 's/.*"verdict":"\([a-z]*\)","findings".*/\1/p' "$dir/probe.json")"
}

# --- all ---------------------------------------------------------------------

names() {
    local line
    for line in "${scenarios[@]}"; do echo "${line%%|*}"; done
}

if [[ ${1:-} == --list ]]; then
    names
    exit 0
fi
for name in "$@"; do
    if ! names | grep -qx -- "$name"; then
        echo "probe-peers: there is no scenario '$name'; --list names them" >&2
        exit 2
    fi
done

highwater=${HIGHWATER:-}
if [[ -z $highwater ]]; then
    cargo build -j2 --quiet --release --bins --examples
    highwater=target/release/highwater
fi
work=$(mktemp -d)
# Some servers give up root before they open their files.
chmod 755 "$work"
trap 'stop_servers; rm -rf "$work"' EXIT

lost=()
for line in "${scenarios[@]}"; do
    IFS='|' read -r name needs start title <<<"$line"
    if (($# > 0)) && [[ " $* " != *" $name "* ]]; then continue; fi
    missing=$(missing_of "$needs")
    if [[ -n $missing ]]; then
        lost+=("$name")
        say "$name: skipped, $missing is not installed"
        continue
    fi
    say "$name: probing …"
    # A shell of its own: what goes wrong in one scenario ends that one.
    begun=$SECONDS
    set +e
    (
        set -e
        trap stop_servers EXIT
        probe_one "$name" "$start" "$title"
    )
    code=$?
    set -e
    if ((code > 128)); then exit "$code"; fi
    if ((code > 0)); then
        lost+=("$name")
        say "$name: no result (code $code): $(tail -n 3 "$work/$name/output" 2>/dev/null | tr '\n' ' ')"
    fi
    say "$name: $((SECONDS - begun)) s"
done
say "$SECONDS s in all; without a result: ${lost[*]:-none}"

mkdir -p "$plots"
mapfile -t order < <(names)
python3 "$peers/report.py" --results "$results" --template "$peers/servers.md.in" --plots "$plots" \
    --page docs/servers.md "${order[@]}"
