#!/usr/bin/env bash
# Writes the reports of slowhttptest into docs/slowhttptest: its four modes
# against highwater, nginx and Apache, each as Debian configures it. About seven
# minutes. Each report is kept as slowhttptest writes it (.csv, .html), and all
# are drawn into one picture, as the pages of slowhttptest load their charts from
# elsewhere.
#
#   scripts/slowhttp-reports.sh [CONNECTIONS]      4,000 by default
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/servers.sh

connections=${1:-4000}
bin=${HIGHWATER:-target/release/highwater}
require "$bin" slowhttptest python3 nginx apache2
ulimit -n "$(ulimit -Hn)"
work=$(mktemp -d "${TMPDIR:-/tmp}/highwater-slowhttp.XXXXXX")
reports=docs/slowhttptest
pids=()
cleanup() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
chmod 755 "$work"
mkdir -p "$work/site" "$reports"
echo 0123456789 >"$work/site/small.txt"
head -c 67108864 /dev/urandom >"$work/site/large.bin"

declare -A port
for name in highwater nginx apache; do port[$name]=$(free_port); done

"$bin" serve "$work/site" --port "${port[highwater]}" --log-level error &
pids+=($!)

cat >"$work/nginx.conf" <<CONF
user www-data;
daemon off;
worker_processes auto;
pid $work/nginx.pid;
error_log $work/nginx.err;
events { worker_connections 768; }
http {
    sendfile on;
    tcp_nopush on;
    include /etc/nginx/mime.types;
    access_log off;
    gzip on;
    client_body_temp_path $work/b; proxy_temp_path $work/p; fastcgi_temp_path $work/f; uwsgi_temp_path $work/u; scgi_temp_path $work/s;
    server { listen 127.0.0.1:${port[nginx]}; root $work/site; }
}
CONF
nginx -c "$work/nginx.conf" -p "$work" 2>/dev/null &
pids+=($!)

cat >"$work/apache.conf" <<CONF
ServerRoot /etc/apache2
ServerName localhost
Listen 127.0.0.1:${port[apache]}
PidFile $work/apache.pid
Mutex file:$work default
User www-data
Group www-data
Timeout 300
KeepAlive On
MaxKeepAliveRequests 100
KeepAliveTimeout 5
ErrorLog $work/apache.err
IncludeOptional mods-enabled/*.load
IncludeOptional mods-enabled/*.conf
DocumentRoot $work/site
<Directory $work/site>
    Require all granted
</Directory>
CONF
APACHE_RUN_DIR=$work APACHE_LOG_DIR=$work APACHE_RUN_USER=www-data APACHE_RUN_GROUP=www-data \
    apache2 -DFOREGROUND -f "$work/apache.conf" &
pids+=($!)
sleep 2

for name in highwater nginx apache; do
    for mode in "H headers" "B body" "R range" "X read"; do
        file=small.txt
        [ "$mode" = "X read" ] && file=large.bin
        echo "$name: ${mode#* }"
        timeout 60 slowhttptest "-${mode%% *}" -c "$connections" -r 800 -l 25 -i 5 -p 5 -g -o "$reports/$name-${mode#* }" \
            -u "http://127.0.0.1:${port[$name]}/$file" >"$work/said" 2>&1 || true
        [ -s "$reports/$name-${mode#* }.csv" ] || { echo "slowhttp-reports: no report of $name"; tail -3 "$work/said"; exit 1; }
        sleep 2
    done
done

# One picture of all: connections over time, and when the service did not answer.
python3 - "$reports" "$connections" <<'PY'
import csv, sys
folder, most = sys.argv[1], int(sys.argv[2])
servers = [("highwater", "highwater"), ("nginx", "nginx 1.22"), ("apache", "Apache 2.4")]
modes = [("headers", "slow headers"), ("body", "slow body"), ("range", "ranges"), ("read", "slow read")]
width, height, left, top, gap = 250, 90, 110, 44, 22
seconds = 30
out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + 3 * (width + gap)}" height="{top + 4 * (height + 44) + 10}" font-family="sans-serif" font-size="12" fill="#333">',
       '<rect width="100%" height="100%" fill="#fff"/>',
       f'<text x="{left}" y="16">open connections of slowhttptest over {seconds} s, up to {most:,}; red: a request beside them had no answer within 5 s</text>']
for column, (server, title) in enumerate(servers):
    x = left + column * (width + gap)
    out.append(f'<text x="{x}" y="{top - 8}" font-weight="bold">{title}</text>')
    for row, (mode, words) in enumerate(modes):
        y = top + row * (height + 44)
        if column == 0:
            out.append(f'<text x="8" y="{y + height / 2}">{words}</text>')
        out.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="#f6f6f6"/>')
        table = list(csv.reader(open(f"{folder}/{server}-{mode}.csv")))[1:]
        points, down = [], 0
        for second, closed, pending, connected, available in (map(float, line[:5]) for line in table):
            at = x + min(second, seconds) / seconds * width
            if available == 0:
                down += 1
                out.append(f'<rect x="{at:.0f}" y="{y}" width="{width / seconds:.1f}" height="{height}" fill="#e05b4b" opacity="0.55"/>')
            points.append(f"{at:.0f},{y + height - min(connected, most) / most * height:.0f}")
        out.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="#1f6f8b" stroke-width="2"/>')
        out.append(f'<text x="{x}" y="{y + height + 15}">{"answers throughout" if down == 0 else f"no answer in {down} of {len(table)} s"}</text>')
out.append("</svg>")
open(f"{folder}/all.svg", "w").write("\n".join(out) + "\n")
PY
echo "slowhttp-reports: in $reports"
