#!/usr/bin/env bash
# Builds what is given to others, and prints its paths: a Debian package, and a
# static binary for x86-64 with the Containerfile around it.
#
# NO_BUILD=1 packs the binaries that are there. DEBFULLNAME and DEBEMAIL, as
# Debian's own tools read them, say who answers for the Debian package.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
package=$target/package
musl=x86_64-unknown-linux-musl
maintainer="${DEBFULLNAME:-The highwater developers} <${DEBEMAIL:-highwater@packages.debian.org}>"

# build ARGS...: an optimized command, unless NO_BUILD is set.
build() { [[ -n ${NO_BUILD:-} ]] || cargo build --release --locked --bin highwater "$@"; }

# Prints the target of the static binary: musl if it is installed, else glibc.
static_target() {
    if [[ -d $(rustc --print sysroot)/lib/rustlib/$musl ]] && command -v musl-gcc >/dev/null; then
        echo $musl
    else
        echo x86_64-unknown-linux-gnu
    fi
}

# The texts that the program prints of itself.
texts() {
    local highwater=$target/release/highwater name
    mkdir -p "$package/man" "$package/completions"
    "$highwater" man >"$package/man/highwater.1"
    # The last section of that page names the others.
    sed -n '/^\.SH "SEE ALSO"/,$p' "$package/man/highwater.1" | grep -oE 'highwater\\-[a-z]+' | cut -d- -f2 | while read -r name; do
        "$highwater" man "$name" >"$package/man/highwater-$name.1"
    done
    "$highwater" completions bash >"$package/completions/highwater"
    "$highwater" completions zsh >"$package/completions/_highwater"
    "$highwater" completions fish >"$package/completions/highwater.fish"
}

# Debian's changelog: the newest release of ours.
debian_changelog() {
    local version date
    read -r version date < <(sed -nE 's/^## \[([0-9.]+)\] - (.*)$/\1 \2/p' CHANGELOG.md | head -n 1)
    cat <<EOF
highwater ($version-1) unstable; urgency=medium

  * New release.

 -- $maintainer  $(date -u -R -d "$date")
EOF
}

static_binary() {
    local triple
    triple=$(static_target)
    if [[ $triple == "$musl" ]]; then
        build --target "$triple"
    else
        echo "package: the target $musl or musl-gcc is missing, so the static binary has glibc" >&2
        RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" build --target "$triple"
    fi
    mkdir -p "$package/container"
    strip -o "$package/container/highwater" "$target/$triple/release/highwater"
    cp docs/operations/Containerfile "$package/container/"
    cp "$package/container/highwater" "$package/highwater-x86_64-static"
}

mkdir -p "$package"
if [[ -z ${NO_DEB:-} ]]; then
    cargo deb --version >/dev/null 2>&1 || {
        echo "package: cargo-deb is missing: install it with 'cargo install cargo-deb --locked'" >&2
        exit 1
    }
    [[ -n ${DEBEMAIL:-} ]] || echo "package: DEBEMAIL is not set, so the maintainer is a placeholder that nobody reads: set DEBFULLNAME and DEBEMAIL before you give the package to others" >&2
    build
    texts
    debian_changelog >"$package/changelog"
    cargo deb --no-build --strip --quiet --locked --maintainer "$maintainer" --output "$package/" >/dev/null
fi
static_binary

ls -1 "$package"/*.deb "$package"/highwater-x86_64-static "$package"/container/Containerfile
