# Shared by the scripts that start servers of other people beside ours.
# shellcheck shell=bash

# free_port: prints a port of loopback that is free now.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# require BINARY TOOL...: ends the script with a line if one of them is missing.
require() {
    local script tool
    script=$(basename "$0" .sh)
    [ -x "$1" ] || { echo "$script: run 'make build' first"; exit 1; }
    for tool in "${@:2}"; do
        command -v "$tool" >/dev/null || { echo "$script: $tool is not installed"; exit 1; }
    done
}
