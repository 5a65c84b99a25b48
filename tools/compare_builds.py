"""Compare two folders of artefacts byte by byte, and name what differs inside of those that are not the same.

    python tools/compare_builds.py FOLDER FOLDER

Exit status 1: an artefact differs, or one folder has an artefact that the other lacks. Signatures are left out: each has its own
time, and only a release has one. Debian packages take `dpkg-deb`.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

SHOWN = 5
"""Most members that are named of an artefact."""
Members = Iterator[tuple[str, str]]
"""Name of a member, and everything that can differ of it."""


def main(first: Path, second: Path) -> bool:
    """Print a line for each artefact; return whether all are the same."""
    files = [file for folder in (first, second) for file in folder.iterdir() if file.is_file()]
    names = sorted({file.name for file in files if file.suffix != ".asc"})
    same = 0
    for name in names:
        one, two = first / name, second / name
        if not one.exists() or not two.exists():
            print(f"missing    {name}: only in {first if one.exists() else second}")
        elif digest(one.read_bytes()) == digest(two.read_bytes()):
            same += 1
            print(f"same       {name}")
        else:
            print(f"different  {name}: {differences(one, two)}")
    print(f"{same} of {len(names)} artefacts are the same, byte by byte")
    return same == len(names) > 0


def differences(one: Path, two: Path) -> str:
    """Name the members that differ."""
    read = next((reader for suffix, reader in READERS.items() if one.name.endswith(suffix)), None)
    if read is None:
        return f"{one.stat().st_size} and {two.stat().st_size} bytes"
    left, right = dict(read(one)), dict(read(two))
    names = sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))
    if not names:
        return "all members are the same; their order or compression differs"
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def wheel(file: Path) -> Members:
    """Yield the members of a zip archive."""
    with zipfile.ZipFile(file) as opened:
        for each in opened.infolist():
            yield each.filename, f"{each.CRC} {each.date_time} {each.external_attr:o}"


def archive(content: bytes, before: str = "") -> Members:
    """Yield the members of a tar archive, compressed or not."""
    with tarfile.open(fileobj=io.BytesIO(content)) as opened:
        for each in opened:
            data = opened.extractfile(each) if each.isfile() else None
            about = f"{each.mode:o} {each.uid}:{each.gid} {each.mtime} {each.type!r} {each.linkname}"
            yield before + each.name, f"{about} {digest(data.read()) if data else ''}"


def package(file: Path) -> Members:
    """Yield the members of a Debian package: its files, and what dpkg knows of it."""
    for option, before in (("--ctrl-tarfile", "DEBIAN/"), ("--fsys-tarfile", "")):
        done = subprocess.run(["dpkg-deb", option, str(file)], check=True, stdout=subprocess.PIPE)
        yield from archive(done.stdout, before)


def image(file: Path) -> Members:
    """Yield the files of each layer of an OCI archive, and its configuration."""
    with tarfile.open(file) as opened:

        def blob(name: str) -> bytes:
            found = opened.extractfile(f"./blobs/{name.replace(':', '/')}")
            assert found is not None
            return found.read()

        index = opened.extractfile("./index.json")
        assert index is not None
        for each in json.load(index)["manifests"]:
            manifest = json.loads(blob(each["digest"]))
            yield "its configuration", blob(manifest["config"]["digest"]).decode()
            for number, layer in enumerate(manifest["layers"], 1):
                yield from archive(blob(layer["digest"]), f"layer {number}: ")


def digest(content: bytes) -> str:
    """The checksum of a content."""
    return hashlib.sha256(content).hexdigest()


READERS: dict[str, Callable[[Path], Members]] = {
    ".whl": wheel,
    ".oci.tar": image,
    ".tar.gz": lambda file: archive(file.read_bytes()),
    ".tgz": lambda file: archive(file.read_bytes()),
    ".deb": package,
}
"""What reads an artefact, by the end of its name."""


if __name__ == "__main__":
    sys.exit(0 if main(*map(Path, sys.argv[1:])) else 1)
