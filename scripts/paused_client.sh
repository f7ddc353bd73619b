#!/usr/bin/env bash
# A client that pauses for 4 seconds and then reads on is kept and loses
# nothing. A client beside it that never reads is disconnected.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

start_server echo
probe --paused 1 --pause 4s --stalled 1
expect_disconnected 1 'write timeout'
pass "a client that paused for 4 s was kept and lost nothing, a stalled one went"
