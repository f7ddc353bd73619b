#!/usr/bin/env bash
# Runs all slow-client scenarios side by side, and prints how many passed and
# failed. Exits with 1 if one failed. Each prints the line of the log that it
# judged; KEEP_LOGS=DIR keeps the whole logs.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
scenarios=(stalled_client paused_client slow_reader fifty_stalled stop_with_stalled tunnel_stalled_client stalled_subscriber)
output=$(mktemp -d "${TMPDIR:-/tmp}/highwater-slow-test.XXXXXX")
trap 'rm -rf "$output"' EXIT

echo "slow-test: ${#scenarios[@]} scenarios side by side, about 15 seconds"
declare -A pids
for scenario in "${scenarios[@]}"; do
    bash "$here/$scenario.sh" >"$output/$scenario" 2>&1 &
    pids[$scenario]=$!
done
failed=0
for scenario in "${scenarios[@]}"; do
    wait "${pids[$scenario]}" || failed=$((failed + 1))
    cat "$output/$scenario"
done
passed=$((${#scenarios[@]} - failed))
echo "slow-test: $passed passed, $failed failed"
[[ -z ${KEEP_LOGS:-} ]] || echo "slow-test: the logs are in $KEEP_LOGS"
[[ $failed -eq 0 ]]
