#!/usr/bin/env bash
# Checks what `make package` built: lintian, installing and purging the Debian
# package in a root of its own, and serving from an empty root. What is not
# installed is skipped with one line; the last two need root.
set -euo pipefail
cd "$(dirname "$0")/.."

package=$(readlink -f "${CARGO_TARGET_DIR:-target}/package")
deb=$(ls "$package"/highwater_*.deb)
work=$(mktemp -d "${TMPDIR:-/tmp}/highwater-package.XXXXXX")
server_pid=
cleanup() {
    [[ -z $server_pid ]] || kill -KILL "$server_pid" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

fail() { echo "FAIL  $*"; exit 1; }
skip() { echo "skip  $*"; }
needs_libraries() { ldd "$1" 2>/dev/null | grep -q '=>'; }

check_lintian() {
    command -v lintian >/dev/null || { skip "lintian is not installed"; return; }
    local tags
    tags=$(lintian --tag-display-limit 0 "$deb" 2>/dev/null | grep -E '^[EW]:' | grep -v ' initial-upload-closes-no-bugs' || true)
    [[ -z $tags ]] || fail "lintian:"$'\n'"$tags"
    echo "ok    lintian has no error and no warning"
}

# A root with a shell and an empty database of packages.
make_root() {
    mkdir -p "$1"/{bin,var/lib/dpkg/{info,updates,triggers},var/log,tmp,dev}
    touch "$1"/var/lib/dpkg/{status,available} "$1"/dev/null
    cp "$(command -v busybox)" "$1/bin/sh"
    for name in rm; do ln -s sh "$1/bin/$name"; done
}

check_install() {
    [[ $(id -u) = 0 ]] || { skip "only root can install into a root of its own"; return; }
    needs_libraries "$(command -v busybox || echo /bin/sh)" && { skip "busybox-static is not installed"; return; }
    local root=$work/root
    make_root "$root"
    local file
    # Its dependencies are not in that root.
    dpkg --root="$root" --force-depends --install "$deb" >"$work/dpkg" 2>&1 || fail "install:"$'\n'"$(cat "$work/dpkg")"
    for file in usr/bin/highwater usr/lib/systemd/system/highwater.{service,socket} usr/lib/systemd/system/highwater-tunnel@.service \
        usr/share/man/man1/highwater{,-echo,-tunnel,-serve,-broadcast,-probe}.1.gz usr/share/bash-completion/completions/highwater \
        usr/share/zsh/vendor-completions/_highwater usr/share/fish/vendor_completions.d/highwater.fish \
        etc/default/highwater etc/logrotate.d/highwater usr/share/doc/highwater/{copyright,changelog.Debian.gz}; do
        [[ -s $root/$file ]] || fail "the package has no /$file"
    done
    mkdir -p "$root/var/log/highwater"
    dpkg --root="$root" --force-depends --purge highwater >"$work/dpkg" 2>&1 || fail "purge:"$'\n'"$(cat "$work/dpkg")"
    local left
    left=$(find "$root" -name '*highwater*')
    [[ -z $left ]] || fail "the purge leaves:"$'\n'"$left"
    echo "ok    it installs, and a purge leaves nothing"
}

check_static() {
    local binary=$package/highwater-x86_64-static
    needs_libraries "$binary" && fail "$binary needs libraries: $(ldd "$binary")"
    [[ $(id -u) = 0 ]] || { skip "only root can start a program in an empty root"; return; }
    mkdir "$work/empty"
    cp "$binary" "$work/empty/highwater"
    chroot --userspec=65534:65534 "$work/empty" /highwater echo --port 0 2>"$work/log" &
    server_pid=$!
    local port= answer=
    for _ in $(seq 100); do
        port=$(sed -n 's/.*listening on 127.0.0.1:\([0-9]*\)$/\1/p' "$work/log")
        [[ -z $port ]] || break
        sleep 0.1
    done
    [[ -n $port ]] || fail "it does not listen in an empty root:"$'\n'"$(cat "$work/log")"
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    echo "from an empty root" >&3
    read -r -t 10 answer <&3
    exec 3>&-
    [[ $answer = "from an empty root" ]] || fail "it answered '$answer'"
    kill "$server_pid"
    wait "$server_pid" || fail "it ended with $?"
    server_pid=
    echo "ok    the static binary serves from an empty root, as nobody"
}

check_container() {
    local builder
    for builder in podman buildah docker; do
        if command -v $builder >/dev/null && $builder info >/dev/null 2>&1; then
            $builder build -t highwater-check "$package/container" >"$work/build" 2>&1 || fail "$builder:"$'\n'"$(cat "$work/build")"
            echo "ok    $builder builds the image"
            return
        fi
    done
    skip "no podman, buildah or docker that runs: the image is tested by the empty root above"
}

check_lintian
check_install
check_static
check_container
