#!/usr/bin/env bash
# Runs all tests and the slow-client scenarios, one failure hiding none behind
# it, and prints what failed. Exits with 1 if anything did.
#
#   scripts/test.sh           everything
#   scripts/test.sh --quick   the library, the command, and one test of each kind
set -uo pipefail
cd "$(dirname "$0")/.."

# Suites whose tests wait for graces and other processes nearly all the time. The
# lanes of a phase run side by side, with more tests at once than there are
# processors. The probes of examples judge rates: beside them are no other probes.
phases=(
    "probe_examples / tunnel slow_client shadow scenarios examples log"
    "probe probe_reach / probe_ci probe_resp probe_tls tunnel_probed"
)

# The names of all suites, from the files of tests/.
suites() {
    for file in tests/*.rs tests/*/main.rs; do
        file=${file#tests/}
        file=${file%/main.rs}
        echo "${file%.rs}"
    done
}

directory=$(mktemp -d "${TMPDIR:-/tmp}/highwater-test.XXXXXX")
trap 'rm -rf "$directory"' EXIT
output=$directory/output
started=$SECONDS
failures=0

# Runs what the arguments of cargo test choose.
run() {
    cargo test --no-fail-fast "$@" 2>&1 | tee -a "$output"
    [ "${PIPESTATUS[0]}" = 0 ] || failures=$((failures + 1))
}

# Runs the suites of a lane one after the other. Only their names and results are
# shown at once: what the tests of several lanes print would not be told apart.
run_lane() {
    cargo test --no-fail-fast "${@/#/--test=}" 2>&1 | tee "$directory/lane-$1" |
        grep --line-buffered -E '^     Running|^test result'
    return "${PIPESTATUS[0]}"
}

# Runs the lanes of a phase at once, then shows what their tests printed.
run_phase() {
    local lane lanes suites pids=()
    export RUST_TEST_THREADS=6
    mapfile -t lanes <<<"${1// \/ /$'\n'}"
    for lane in "${lanes[@]}"; do
        read -ra suites <<<"$lane"
        run_lane "${suites[@]}" &
        pids+=($!)
    done
    for lane in "${!pids[@]}"; do
        wait "${pids[lane]}" || failures=$((failures + 1))
    done
    unset RUST_TEST_THREADS
    echo
    cat "$directory"/lane-* | tee -a "$output"
    rm "$directory"/lane-*
}

if [ "${1:-}" = --quick ]; then
    # No test in here waits for a grace of seconds.
    run --lib --bins --test architecture --test api --test arguments --test options_doc \
        --test send_queue_model --test simulation --test echo --test accepting
else
    mapfile -t busy < <(suites | grep -vxF "$(tr ' ' '\n' <<<"${phases[*]}")")
    # The tests of the examples start them.
    cargo build --examples || failures=$((failures + 1))
    run --lib --bins "${busy[@]/#/--test=}"
    for phase in "${phases[@]}"; do
        run_phase "$phase"
    done
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
