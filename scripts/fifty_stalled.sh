#!/usr/bin/env bash
# Fifty clients stall together: all of them are disconnected together.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

start_server echo
probe --stalled 50 --fast 5
expect_disconnected 50 'write timeout'
pass "fifty stalled clients were disconnected together"
