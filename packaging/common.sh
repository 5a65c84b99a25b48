# shellcheck shell=bash
# What the scripts of this folder share. Source it from the root of the work tree.

version() { sed -n 's/^__version__ = "\(.*\)"$/\1/p' stcp_proxy/__init__.py; }

# The time that every artefact has for its files: that of the last commit. So two builds of one commit are the same bytes.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 TZ=UTC LC_ALL=C.UTF-8
umask 022

ROOTS=${STCP_ROOTS:-${XDG_CACHE_HOME:-$HOME/.cache}/stcp-roots}

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    exit 1
}

# sources FOLDER: what git knows of the work tree, with that time, and readable by everybody whatever the umask of the clone was.
sources() {
    mkdir -p "$1"
    git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents --no-dereference --target-directory="$1"
    chmod -R go=rX,u+rw "$1"
    find "$1" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
}

# python_root SUITE: print the folder of a root with Python, its headers and a compiler. Made at first use.
python_root() {
    local root=$ROOTS/$1-python$(root_suffix "${STCP_ARCH:-$(dpkg --print-architecture)}")
    tools/debian_root "$1" "$root" python3,python3-venv,python3-dev,gcc,libc6-dev,iproute2,procps,openssl && echo "$root"
}

# clean_root SUITE: print the folder of a root for trials, with Python and what the Debian package depends on, but no compiler.
clean_root() {
    local root=$ROOTS/$1-clean$(root_suffix "${STCP_ARCH:-$(dpkg --print-architecture)}")
    tools/debian_root "$1" "$root" python3,python3-venv,adduser,init-system-helpers,iproute2 && echo "$root"
}

# machine ARCH: the kernel's name of a processor of Debian's.
machine() {
    case $1 in
    amd64) echo x86_64 ;;
    arm64) echo aarch64 ;;
    *) fail "no name for the processor $1" ;;
    esac
}

# root_suffix ARCH: what tells roots of another processor from those of this machine's.
root_suffix() { [ "$1" = "$(dpkg --print-architecture)" ] || echo "-$1"; }

# interpreter MINOR: print this machine's CPython of a version, with headers, of PATH or of pyenv.
interpreter() {
    local candidate
    for candidate in "/usr/bin/python$1" "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/"python$1"; do
        ! "$candidate" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' 2>/dev/null ||
            { command -v "$candidate" && return; }
    done
    return 1
}
