"""Fill an empty folder with the root file system of an image that has no shell and no package manager.

Run by the Dockerfile, with the base's Python, after the proxy was installed: python3 tools/distroless.py /opt/stcp /rootfs

The folder gets the proxy, the interpreter, the standard library without what the proxy never imports, and the libraries that
`ldd` names. It also gets `env`, which starts the proxy with signals blocked. /var/lib/dpkg/status.d says which Debian packages
the files come from: scanners read it there.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

USER = 47443
PROGRAMS = ("env",)
PACKAGES_LEFT_OUT = (
    *("__pycache__", "test", "tests", "idlelib", "lib2to3", "ensurepip", "tkinter", "turtledemo", "pydoc_data", "distutils"),
    *("unittest", "sqlite3", "dbm", "curses", "xmlrpc", "venv", "site-packages", "dist-packages"),
)
MODULES_LEFT_OUT = re.compile(
    r"(config-.*|turtle\.py|pydoc\.py|doctest\.py|pdb\.py|LICENSE\.txt|.*_failed\.py|"
    r"(_tkinter|_curses.*|_dbm|_gdbm|_sqlite3|readline|_crypt|nis|ossaudiodev|audioop|_codecs_.*|.*test.*|xx.*)\..*\.so)"
)
FOLDERS = ("dev", "etc/stcp", "proc", "run", "sys", "tmp", "var/lib/stcp")
FILES = {
    "etc/passwd": f"root:x:0:0:root:/:/nonexistent\nstcp:x:{USER}:{USER}:stcp-proxy:/var/lib/stcp:/nonexistent\n",
    "etc/group": f"root:x:0:\nstcp:x:{USER}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
COPIED = ("/etc/os-release", "/etc/ld.so.cache", "/etc/ssl/certs/ca-certificates.crt")
"""Copied where the base has them."""


def main(product: Path, root: Path) -> None:
    """Fill the folder `root`."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    for merged in ("bin", "lib", "lib64", "sbin"):
        link = Path("/", merged)
        if link.is_symlink():
            (root / merged).symlink_to(link.readlink())
            (root / "usr" / merged).mkdir(parents=True, exist_ok=True)
    for name, text in FILES.items():
        (root / name).write_text(text, encoding="utf-8")
    shutil.copytree(product, root / product.relative_to("/"), symlinks=True)

    sources = [Path(sys.executable).resolve(), *(Path(found) for each in PROGRAMS if (found := shutil.which(each)))]
    sources += standard_library(used_byte_code(product))
    sources += [Path(each) for each in COPIED if Path(each).exists()]
    python = Path(sys.base_prefix, "bin", "python3")
    for each in [*sources, python]:
        copy(each, root)
    binaries = [each for each in sources if is_binary(each)] + [each for each in product.rglob("*.so*") if is_binary(each)]
    for library in sorted({found for each in binaries for found in needed(each)}):
        sources.append(library.resolve())
        copy(library, root)
    shutil.chown(root / "var/lib/stcp", USER, USER)
    describe(sources, root / "var/lib/dpkg/status.d")


def standard_library(byte_code: bool) -> Iterator[Path]:
    """The files of the standard library that the image has.

    Args:
        byte_code: take what the base has compiled of them.
    """
    folders = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
    for folder in sorted(folders):
        for file in sorted(folder.rglob("*")):
            inner = file.relative_to(folder).parts
            compiled = file.parent.name == "__pycache__"
            left_out = set(inner) & set(PACKAGES_LEFT_OUT) - ({"__pycache__"} if compiled and byte_code else set())
            source = file.parent.parent / f"{file.name.split('.')[0]}.py" if compiled else file
            if file.is_file() and not left_out and not any(MODULES_LEFT_OUT.fullmatch(name) for name in (*inner, source.name)):
                yield file


def used_byte_code(product: Path) -> bool:
    """Whether the interpreter finds byte-code beside the sources, not in a folder of the product."""
    return not (product / "cache").exists()


def is_binary(file: Path) -> bool:
    """Whether a file is a program or a library."""
    with file.open("rb") as opened:
        return opened.read(4) == b"\x7fELF"


def needed(binary: Path) -> list[Path]:
    """The libraries that a binary needs, with the loader."""
    done = subprocess.run(["ldd", str(binary)], capture_output=True, text=True)
    if "not found" in done.stdout:
        raise SystemExit(f"{binary} needs what the base has not: {done.stdout}")
    # glibc opens libgcc_s by name when a thread ends early; nothing names it.
    found = re.findall(r"(?:=> |^\s*)(/\S+) \(0x", done.stdout, re.MULTILINE)
    beside = [str(Path(each).with_name("libgcc_s.so.1")) for each in found if "/libc.so" in each]
    return [Path(each) for each in found + beside if Path(each).exists() and Path("/opt") not in Path(each).parents]


def copy(file: Path, root: Path) -> None:
    """Copy a file, and the links that lead to it, to the same place under `root`."""
    folder = file.parent.resolve()
    target = root / folder.relative_to("/") / file.name
    if target.is_symlink() or target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.is_symlink():
        target.symlink_to(file.readlink())
        copy(folder / file.readlink(), root)
    else:
        shutil.copy2(file, target)
        target.chmod(0o755 if file.stat().st_mode & 0o111 else 0o644)  # no setuid file


def describe(sources: list[Path], folder: Path) -> None:
    """Write Debian's description of each package that a file is from."""
    if shutil.which("dpkg-query") is None:
        return
    folder.mkdir(parents=True)
    # Debian 12 lists files of a merged /usr under /lib and /bin.
    names = [name for each in sources for name in (str(each), str(each).removeprefix("/usr"))]
    found = subprocess.run(["dpkg-query", "--search", *names], capture_output=True, text=True).stdout
    packages = {line.split(":")[0] for line in found.splitlines() if not line.startswith("diversion ")}
    for package in sorted(packages):
        status = subprocess.run(["dpkg-query", "--status", package], capture_output=True, text=True, check=True).stdout
        (folder / package).write_text(status, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
