#!/usr/bin/env bash
# Installs the programs that the benchmarks, the tunnel tests and
# `make probe-peers` compare with, from Debian's packages. Needs root. Repeats
# without harm. Prints one line for each missing program and exits 0 all the
# same, since every user of a peer skips a missing one.
set -euo pipefail

# One line each: package, file or command that proves it is installed, its use.
wanted=(
    "redis-server|redis-server|the probe of redis, the tunnel test with redis"
    "redis-tools|redis-benchmark|the tunnel test with redis"
    "nats-server|nats-server|the probe of nats"
    "nginx|nginx|the probe of nginx, the tunnel test with nginx"
    "libnginx-mod-stream|/usr/lib/nginx/modules/ngx_stream_module.so|nginx as a tunnel"
    "apache2|apache2|the zoo of the prober, the probe of Apache"
    "lighttpd|lighttpd|the zoo of the prober, the probe of lighttpd"
    "mosquitto|mosquitto|the zoo of the prober, the probe of mosquitto"
    "memcached|memcached|the probe of memcached"
    "varnish|varnishd|the probe of Varnish"
    "beanstalkd|beanstalkd|the probe of beanstalkd"
    "opensmtpd|smtpd|the probe of a mail server"
    "haproxy|haproxy|haproxy as a tunnel"
    "socat|socat|socat as a tunnel"
    "curl|curl|the tunnel test with nginx"
    "wrk|wrk|the tunnel test with nginx"
    "postgresql|/usr/lib/postgresql/*/bin/postgres|the tunnel test with PostgreSQL"
    "postgresql-contrib|/usr/lib/postgresql/*/bin/pgbench|the tunnel test with PostgreSQL"
    "gcc|gcc|the C floors, the libevent and libuv peers"
    "libc6-dev|/usr/include/stdio.h|the C floors, the libevent and libuv peers"
    "libevent-dev|/usr/include/event2/event.h|the libevent peer"
    "libuv1-dev|/usr/include/uv.h|the libuv peer"
    "golang-go|go|the Go peer"
    "python3|python3|the Python tunnel"
    "nodejs|node|the Node peer, Node as the oracle"
    "valgrind|valgrind|instruction counts per message"
    "linux-perf|perf|profiles and system calls per message"
)

# True when the file, or the command of that name, is there. A daemon may be in
# /usr/sbin, which is not on everybody's path.
is_there() {
    case "$1" in
    /*) compgen -G "$1" >/dev/null ;;
    *) PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null ;;
    esac
}

absent=()
for line in "${wanted[@]}"; do
    IFS='|' read -r package shown _ <<<"$line"
    is_there "$shown" || absent+=("$package")
done

# Debian's packages start their service when they are installed. A policy that
# answers 101 forbids it; one that was there before is put back afterwards.
policy=/usr/sbin/policy-rc.d
kept=""
forbid_services() {
    if [[ -e $policy ]]; then
        kept=$(mktemp)
        cp -p "$policy" "$kept"
    fi
    trap allow_services EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
}
allow_services() {
    if [[ -n $kept ]]; then
        cp -p "$kept" "$policy"
        rm -f "$kept"
    else
        rm -f "$policy"
    fi
}

if ((${#absent[@]} > 0)); then
    if ((EUID != 0)); then
        echo "install-peers: not root, so nothing is installed; run it as root to get: ${absent[*]}"
    elif ! command -v apt-get >/dev/null; then
        echo "install-peers: apt-get is not here, so nothing is installed; wanted: ${absent[*]}"
    else
        forbid_services
        export DEBIAN_FRONTEND=noninteractive
        quiet=(-qq -o Dpkg::Use-Pty=0)
        apt-get "${quiet[@]}" update || echo "install-peers: apt-get update failed; trying with the old lists"
        # All at once is fastest; if one fails, the others are installed one by one.
        # PostgreSQL must not create a cluster either: the tests make their own.
        install=(apt-get "${quiet[@]}" install -y --no-install-recommends)
        mkdir -p /etc/postgresql-common
        if [[ ! -e /etc/postgresql-common/createcluster.conf ]]; then
            echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
        fi
        if ! "${install[@]}" "${absent[@]}" >/dev/null 2>&1; then
            for package in "${absent[@]}"; do
                "${install[@]}" "$package" >/dev/null 2>&1 || true
            done
        fi
    fi
fi

there=0
for line in "${wanted[@]}"; do
    IFS='|' read -r package shown use <<<"$line"
    if is_there "$shown"; then
        there=$((there + 1))
    else
        echo "install-peers: $package is missing; without it: $use"
    fi
done
echo "install-peers: $there of ${#wanted[@]} are there"
