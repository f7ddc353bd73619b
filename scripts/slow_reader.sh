#!/usr/bin/env bash
# A client that reads 64 KiB/s from its first byte on is slow but healthy: it
# is kept. A client beside it that never reads is disconnected.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

start_server echo
probe --steady 1 --steady-rate 64KiB/s --stalled 1
expect_disconnected 1 'write timeout'
pass "a reader at 64 KiB/s was kept and lost nothing, a stalled one went"
