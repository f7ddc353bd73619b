#!/usr/bin/env bash
# One client never reads: it is disconnected after 5 seconds. Twenty healthy
# clients beside it keep their rate and lose no byte.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

start_server echo
probe --stalled 1 --fast 20
expect_disconnected 1 'write timeout'
line=$(grep -o 'write timeout, disconnecting: slow for [0-9.]* s' "$log")
pass "one stalled client was disconnected (${line##*: }), twenty fast ones went on"
