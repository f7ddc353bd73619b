#!/bin/bash
# Puts known faults into a copy of the code, one at a time, and demands that a
# test fails for each. A fault that no test notices is a hole in the tests.
#
#   scripts/prove-simulation.sh [NAME...]    all of tests/faults, or those named
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$root/target/prove
tree=$work/tree
export CARGO_TARGET_DIR=$work/target RUST_BACKTRACE=0 CARGO_TERM_COLOR=never

# A copy of all files that belong to the project.
copy() {
    rm -rf "$tree"
    mkdir -p "$tree"
    git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$tree"
}

# Runs tests in the copy; the arguments choose which.
run() {
    (cd "$tree" && timeout 900 cargo test --no-fail-fast "$@") >"$work/output" 2>&1
}

failed_tests() {
    grep -E '^test .* \.\.\. FAILED' "$work/output" | awk '{ print $2 }' | sort -u | paste -sd' '
}

copy
echo "without a fault:"
if ! run --lib --test simulation --test broadcast_simulation --test files_simulation; then
    echo "  the tests fail already: $(failed_tests)"
    exit 1
fi
echo "  all tests pass"

survivors=0
if [ $# -gt 0 ]; then
    faults=("$@")
else
    faults=()
    for patch in tests/faults/*.patch; do
        faults+=("$(basename "$patch" .patch)")
    done
fi
for name in "${faults[@]}"; do
    copy
    echo "$name:"
    if ! patch -d "$tree" -p1 -s -F3 <"tests/faults/$name.patch" >"$work/output" 2>&1; then
        echo "  the patch does not apply any more: $(head -1 "$work/output")"
        survivors=$((survivors + 1))
        continue
    fi
    status=0
    # Faults of one service show in its own simulation.
    simulation=simulation
    [[ $name == *-broadcast-* ]] && simulation=broadcast_simulation
    [[ $name == *-serve-* ]] && simulation=files_simulation
    run --test $simulation || status=$?
    seen=$simulation
    if [ $status = 0 ]; then
        run --lib --test serving_order || status=$?
        seen="unit tests"
    fi
    # Some need times that the simulation's plans hardly ever have.
    if [ $status = 0 ] && [[ $name == *-tunnel-* ]]; then
        run --test tunnel || status=$?
        seen="tests of the tunnel"
    fi
    if grep -q '^error: could not compile' "$work/output"; then
        echo "  does not compile: $(grep -m1 '^error' "$work/output")"
        survivors=$((survivors + 1))
    elif [ $status = 0 ]; then
        echo "  NOT CAUGHT by any test"
        survivors=$((survivors + 1))
    else
        echo "  caught by the $seen: $(failed_tests)"
        grep -m1 -E '^seed [0-9]+ \(' "$work/output" | cut -c1-160 | sed 's/^/  /' || true
    fi
done
if [ $survivors -gt 0 ]; then
    echo "$survivors of ${#faults[@]} faults were not caught"
    exit 1
fi
echo "all ${#faults[@]} faults were caught"
