#!/usr/bin/env bash
# Has other people's tools judge `highwater serve`: curl, wget, aria2, h2load or
# wrk, REDbot, a headless Chromium, slowhttptest, and our own prober.
#
#   scripts/http-tests.sh            everything, about four minutes
#   scripts/http-tests.sh --quick    what takes seconds
#
# A tool that is not installed is skipped, and said so. REDBOT=PATH names the
# command of REDbot if it is not in the PATH. KEEP=DIR keeps reports and logs.
set -uo pipefail
cd "$(dirname "$0")/.."

quick=no
[ "${1:-}" = --quick ] && quick=yes
bin=${HIGHWATER:-target/release/highwater}
[ -x "$bin" ] || bin=target/debug/highwater
[ -x "$bin" ] || { echo "http-tests: no highwater in target/: run 'make build' first"; exit 1; }
work=$(mktemp -d "${TMPDIR:-/tmp}/highwater-http.XXXXXX")
keep=${KEEP:-$work/kept}
mkdir -p "$work/site/sub" "$keep"
failed=0 skipped=0 passed=0 server=

cleanup() {
    [ -n "$server" ] && kill "$server" 2>/dev/null && wait "$server" 2>/dev/null
    rm -rf "$work"
}
trap cleanup EXIT

ok() { passed=$((passed + 1)); echo "  ok       $1${2:+: $2}"; }
bad() { failed=$((failed + 1)); echo "  FAILED   $1${2:+: $2}"; }
skip() { skipped=$((skipped + 1)); echo "  SKIPPED  $1: $2 is not installed"; }
has() { command -v "$1" >/dev/null 2>&1; }
sha() { sha256sum "$1" 2>/dev/null | cut -d' ' -f1; }

# --- the site and the server

large_mib=2048
[ $quick = yes ] && large_mib=64
echo "0123456789" >"$work/site/small.txt"
echo "<!DOCTYPE html><title>a page</title><p>a page" >"$work/site/index.html"
head -c 1024 /dev/urandom >"$work/site/1k.bin"
head -c $((large_mib << 20)) /dev/urandom >"$work/site/large.bin"
head -c 8388608 "$work/site/large.bin" >"$work/site/medium.bin"
gzip -k "$work/site/small.txt"

start() {
    "$bin" serve "$work/site" --port 0 --precompressed --listing --access-log "$keep/access.log" "$@" \
        >"$keep/server.log" 2>&1 &
    server=$!
    for _ in $(seq 200); do
        port=$(grep -oE 'listening on 127\.0\.0\.1:[0-9]+' "$keep/server.log" | grep -oE '[0-9]+$')
        [ -n "$port" ] && break
        sleep 0.05
    done
    [ -n "$port" ] || { echo "http-tests: the server did not start"; cat "$keep/server.log"; exit 1; }
    url=http://127.0.0.1:$port
}

stop() {
    kill "$server" && wait "$server" 2>/dev/null
    server=
}

# --- the judges

curls() {
    has curl || { skip curl curl; return; }
    local get="curl -sS --max-time 60"
    [ "$($get -o "$work/c" -w '%{http_code}' $url/medium.bin)" = 200 ] && cmp -s "$work/c" "$work/site/medium.bin" \
        && ok "curl: a file" || bad "curl: a file"
    [ "$($get -r 2-4 $url/small.txt)" = 234 ] && ok "curl: a range" || bad "curl: a range"
    [ "$($get --compressed $url/small.txt)" = 0123456789 ] && ok "curl: a compressed file" || bad "curl: a compressed file"
    head -c 3000000 "$work/site/medium.bin" >"$work/resumed"
    $get -C - -o "$work/resumed" $url/medium.bin && cmp -s "$work/resumed" "$work/site/medium.bin" \
        && ok "curl: a download resumed" || bad "curl: a download resumed"
    $get --etag-save "$work/etag" -o /dev/null $url/small.txt
    [ "$($get --etag-compare "$work/etag" -o /dev/null -w '%{http_code}' $url/small.txt)" = 304 ] \
        && ok "curl: nothing new" || bad "curl: nothing new"
    [ "$($get -X PUT -d x -o /dev/null -w '%{http_code}' $url/small.txt)" = 413 ] \
        && ok "curl: an upload refused" || bad "curl: an upload refused"
}

wgets() {
    has wget || { skip wget wget; return; }
    head -c 5000000 "$work/site/medium.bin" >"$work/medium.bin"
    wget -q -T 60 -c -P "$work" "$url/medium.bin" && cmp -s "$work/medium.bin" "$work/site/medium.bin" \
        && ok "wget -c: a download resumed" || bad "wget -c"
    wget -q -T 60 -r -np -nH -P "$work/mirror" "$url/sub/" "$url/" && [ -f "$work/mirror/index.html" ] \
        && ok "wget -r: links followed" || bad "wget -r"
}

aria() {
    has aria2c || { skip aria2c aria2c; return; }
    timeout 180 aria2c -q -x16 -s16 -k1M --file-allocation=none -d "$work" -o aria "$url/large.bin" \
        && [ "$(sha "$work/aria")" = "$(sha "$work/site/large.bin")" ] \
        && ok "aria2c -x16: $large_mib MiB, sha256 is right" || bad "aria2c -x16"
    rm -f "$work/aria"
}

load() {
    local requests=20000
    if has h2load; then
        local said
        said=$(h2load --h1 -n $requests -c 50 -m 8 "$url/1k.bin" 2>&1)
        echo "$said" | grep -q "$requests succeeded, 0 failed, 0 errored" \
            && ok "h2load: $requests requests, 8 pipelined on 50 connections" || bad h2load "$said"
    else
        skip h2load h2load
    fi
    if has wrk; then
        local said
        said=$(wrk -t1 -c50 -d2s "$url/1k.bin" 2>&1)
        echo "$said" | grep -qE 'Socket errors|Non-2xx' && bad wrk "$said" \
            || ok "wrk: $(echo "$said" | grep -oE '[0-9]+ requests in [0-9.]+s')"
    else
        skip wrk wrk
    fi
}

linter() {
    local redbot=${REDBOT:-redbot} target levels
    has "$redbot" || { skip REDbot "redbot (pip install redbot)"; return; }
    local targets=(small.txt medium.bin "" none sub sub/)
    [ $quick = yes ] && targets=(small.txt)
    for target in "${targets[@]}"; do
        timeout 60 "$redbot" -o har "$url/$target" >"$keep/redbot-${target//\//-}.har" 2>&1
        levels=$(python3 - "$keep/redbot-${target//\//-}.har" <<'PY'
import json, sys
notes = []
def walk(value):
    if isinstance(value, dict):
        if "level" in value:
            notes.append((value["level"], value.get("summary") or value.get("subject")))
        for inner in value.values():
            walk(inner)
    elif isinstance(value, list):
        for inner in value:
            walk(inner)
try:
    walk(json.load(open(sys.argv[1])))
except ValueError as error:
    print("no report:", error)
    sys.exit()
bad = [str(note) for note in notes if note[0].lower() == "bad"]
warnings = sum(note[0].lower().startswith("warn") for note in notes)
print("; ".join(bad) if bad else f"{len(notes)} notes, {warnings} of them warnings" if notes else "no notes")
PY
)
        case $levels in
            [1-9]*" warnings") ok "REDbot: /$target" "$levels, none bad" ;;
            *) bad "REDbot: /$target" "$levels" ;;
        esac
    done
}

browser() {
    local chromium=
    for name in chromium chromium-browser google-chrome; do has $name && chromium=$name && break; done
    [ -n "$chromium" ] || { skip "a browser" chromium; return; }
    has python3 || { skip "a browser" python3; return; }
    python3 - "$work/site/tone.wav" <<'PY'
import struct, sys
rate, seconds = 48000, 120
size = rate * seconds * 2
with open(sys.argv[1], "wb") as wav:
    wav.write(b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, rate, rate * 2, 2, 16))
    wav.write(b"data" + struct.pack("<I", size))
    wav.write(bytes(size))
PY
    cat >"$work/site/browser.html" <<'HTML'
<!DOCTYPE html><title>browser</title><script>
const say = (what, value) => fetch(`/said/${what}/${encodeURIComponent(value)}`);
const digest = async bytes => [...new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))].map(byte => byte.toString(16).padStart(2, "0")).join("");
(async () => {
    await say("page", "loaded");
    const media = document.createElement("video");
    media.preload = "metadata";
    media.src = "/tone.wav";
    await new Promise((done, failed) => { media.onloadedmetadata = done; media.onerror = failed; });
    media.currentTime = 110;
    await new Promise(done => { media.onseeked = done; });
    await say("seek", media.currentTime);
    const stop = new AbortController();
    const first = await fetch("/medium.bin", { signal: stop.signal, cache: "no-store" });
    const reader = first.body.getReader();
    const parts = [];
    let got = 0;
    while (got < 1e6) { const piece = await reader.read(); parts.push(piece.value); got += piece.value.length; }
    stop.abort();
    const rest = await fetch("/medium.bin", { cache: "no-store", headers: { Range: `bytes=${got}-`, "If-Range": first.headers.get("ETag") } });
    parts.push(new Uint8Array(await rest.arrayBuffer()));
    await say("resume", `${rest.status}-${await digest(await new Blob(parts).arrayBuffer())}`);
})().catch(error => say("error", error));
</script>
HTML
    timeout 50 "$chromium" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
        --disable-background-networking --disable-component-update --autoplay-policy=no-user-gesture-required \
        --user-data-dir="$work/profile" --remote-debugging-port=0 "$url/browser.html" >"$keep/chromium.log" 2>&1 &
    local pid=$! said=
    for _ in $(seq 450); do
        said=$(grep -oE '/said/[^ ]+' "$keep/access.log")
        echo "$said" | grep -qE '/said/(resume|error)' && break
        sleep 0.1
    done
    kill $pid 2>/dev/null
    wait $pid 2>/dev/null
    echo "$said" | grep -q /said/page/loaded && ok "chromium: loads a page" || bad "chromium: loads a page" "$said"
    echo "$said" | grep -q /said/seek/110 && grep -q '/tone.wav HTTP/1.1" 206' "$keep/access.log" \
        && ok "chromium: seeks in a media file" || bad "chromium: seeks in a media file" "$said"
    echo "$said" | grep -q "/said/resume/206-$(sha "$work/site/medium.bin")" \
        && ok "chromium: resumes a download" || bad "chromium: resumes a download" "$said"
}

prober() {
    stop
    start --grace 5s
    local said
    if said=$("$bin" probe --port "$port" --protocol http --path /medium.bin --stalled 10 --pid "$server" 2>&1); then
        ok "highwater probe" "$(echo "$said" | tail -1)"
    else
        bad "highwater probe" "$said"
    fi
    stop
    start
}

# Each mode holds thousands of connections; a probe beside them asks all the
# while whether the service still answers.
slowhttp() {
    has slowhttptest || { skip slowhttptest slowhttptest; return; }
    local connections=4000 mode name unavailable
    for mode in "H headers" "B body" "R range" "X read"; do
        name=${mode#* }
        timeout 55 slowhttptest "-${mode%% *}" -c $connections -r 800 -l 25 -i 5 -p 5 -g -o "$keep/slow-$name" \
            -u "$url/$([ "$name" = read ] && echo large.bin || echo small.txt)" >"$keep/slow-$name.txt" 2>&1
        # The columns: second, closed, error, connected, service available.
        unavailable=$(awk -F, 'NR > 1 && $NF + 0 == 0' "$keep/slow-$name.csv" | wc -l)
        connected=$(awk -F, 'NR > 1 && $4 + 0 > most { most = $4 + 0 } END { print most + 0 }' "$keep/slow-$name.csv")
        [ -s "$keep/slow-$name.csv" ] && [ "$unavailable" = 0 ] \
            && ok "slowhttptest: slow $name" "available throughout, $connected connections at most" \
            || bad "slowhttptest: slow $name" "not available in $unavailable seconds"
    done
}

start
echo "http-tests: $bin on port $port"
curls
wgets
aria
load
linter
if [ $quick = no ]; then
    browser
    prober
    ulimit -n "$(ulimit -Hn)"
    slowhttp
fi
stop
echo "http-tests: $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
