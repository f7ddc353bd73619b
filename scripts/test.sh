#!/usr/bin/env bash
# Runs all tests and the slow-client scenarios, one failure hiding none behind
# it, and prints what failed. Exits with 1 if anything did.
#
#   scripts/test.sh           everything
#   scripts/test.sh --quick   the library, the command, and one test of each kind
set -uo pipefail
cd "$(dirname "$0")/.."

selection=()
if [ "${1:-}" = --quick ]; then
    # No test in here waits for a grace of seconds.
    selection=(--lib --bins --test architecture --test api --test arguments --test options_doc
        --test send_queue_model --test simulation --test echo --test accepting)
fi

output=$(mktemp "${TMPDIR:-/tmp}/highwater-test.XXXXXX")
trap 'rm -f "$output"' EXIT
started=$SECONDS
cargo test --no-fail-fast "${selection[@]}" 2>&1 | tee "$output"
tests=${PIPESTATUS[0]}
scenarios=0
if [ ${#selection[@]} = 0 ]; then
    make --no-print-directory slow-test || scenarios=1
fi

echo
echo "test: $(grep -cE '^test .* \.\.\. ok$' "$output") passed," \
    "$(grep -cE '^test .* \.\.\. FAILED$' "$output") failed, $((SECONDS - started)) s"
grep -E '^test .* \.\.\. FAILED$' "$output" | sed 's/^/  /'
[ $scenarios = 0 ] || echo "  a scenario of make slow-test failed, see above"
[ "$tests" = 0 ] && [ $scenarios = 0 ]
