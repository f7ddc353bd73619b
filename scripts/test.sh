#!/usr/bin/env bash
# Runs all tests and the slow-client scenarios, one failure hiding none behind
# it, and prints what failed. Exits with 1 if anything did.
#
#   scripts/test.sh           everything
#   scripts/test.sh --quick   the library, the command, and one test of each kind
set -uo pipefail
cd "$(dirname "$0")/.."

# Suites whose tests wait for other processes nearly all the time: more of their
# tests run at once than there are processors.
waiting=(examples log probe probe_examples probe_reach probe_resp probe_tls scenarios tunnel_probed)

# The names of all suites, from the files of tests/.
suites() {
    for file in tests/*.rs tests/*/main.rs; do
        file=${file#tests/}
        file=${file%/main.rs}
        echo "${file%.rs}"
    done
}

output=$(mktemp "${TMPDIR:-/tmp}/highwater-test.XXXXXX")
trap 'rm -f "$output"' EXIT
started=$SECONDS
failures=0

# Runs what the arguments of cargo test choose.
run() {
    cargo test --no-fail-fast "$@" 2>&1 | tee -a "$output"
    [ "${PIPESTATUS[0]}" = 0 ] || failures=$((failures + 1))
}

if [ "${1:-}" = --quick ]; then
    # No test in here waits for a grace of seconds.
    run --lib --bins --test architecture --test api --test arguments --test options_doc \
        --test send_queue_model --test simulation --test echo --test accepting
else
    mapfile -t busy < <(suites | grep -vxF "$(printf '%s\n' "${waiting[@]}")")
    # The tests of the examples start them.
    cargo build --examples || failures=$((failures + 1))
    run --lib --bins "${busy[@]/#/--test=}"
    RUST_TEST_THREADS=6 run "${waiting[@]/#/--test=}"
    run --doc
    # By the build that is there: an optimized one takes longer than all scenarios.
    export HIGHWATER=$PWD/target/debug/highwater
    scripts/slow-test.sh || failures=$((failures + 1))
    scripts/http-tests.sh --quick || failures=$((failures + 1))
fi

echo
echo "test: $(grep -cE '^test .* \.\.\. ok$' "$output") passed," \
    "$(grep -cE '^test .* \.\.\. FAILED$' "$output") failed, $((SECONDS - started)) s"
grep -E '^test .* \.\.\. FAILED$' "$output" | sed 's/^/  /'
if [ $failures -gt 0 ]; then
    echo "  $failures of the parts above failed"
    exit 1
fi
