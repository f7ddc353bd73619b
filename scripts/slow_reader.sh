#!/usr/bin/env bash
# A client that reads 64 KiB/s all the time is slow but healthy: it stays,
# while one beside it that never reads goes.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

start_server echo
probe --steady 1 --steady-rate 64KiB/s --stalled 1
expect_disconnected 1 'write timeout'
pass "a reader at 64 KiB/s was kept and lost nothing, a stalled one went"
