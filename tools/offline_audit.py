"""Known weaknesses of the locked libraries, from a copy of PyPI's advisory database: for a machine that cannot ask PyPI.

    git clone https://github.com/pypa/advisory-database     # where there is a network
    python tools/offline_audit.py advisory-database [packaging/requirements.txt]

Exits with 1 when a library has a known weakness. `pip-audit` asks PyPI, which has the same advisories.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

LOCK = Path(__file__).resolve().parents[1] / "packaging" / "requirements.txt"


def main(database: Path, lock: Path = LOCK) -> None:
    """Print each weakness and the number of advisories that were read."""
    if not (database / "vulns").is_dir():
        sys.exit(f"offline_audit: {database} has no folder vulns; give a copy of https://github.com/pypa/advisory-database")
    libraries = locked(lock.read_text(encoding="utf-8"))
    read, newest, found = 0, "", []
    for name, version in libraries.items():
        for advisory in advisories(database, name):
            read += 1
            if affects(advisory, name, version):
                found.append(f"{name} {version}: {advisory['id']} ({', '.join(advisory.get('aliases', []))})")
    for file in (database / "vulns").rglob("*.yaml"):
        stamp = re.search(r"^modified: '?\"?(\S{10})", file.read_text(encoding="utf-8"), re.MULTILINE)
        newest = max(newest, stamp[1] if stamp else "")
    print(f"{len(libraries)} libraries, {read} advisories about them, the database's newest change of {newest}")
    if found:
        sys.exit("\n".join(found))
    print("no known weakness")


def locked(text: str) -> dict[str, Version]:
    """The libraries of a lock file with their versions."""
    return {
        canonicalize_name(name): Version(version) for name, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE)
    }


def advisories(database: Path, name: str) -> Iterator[dict[str, Any]]:
    """What the database says about a library, without what was withdrawn."""
    for file in sorted((database / "vulns" / name).glob("*.yaml")):
        advisory = yaml.safe_load(file.read_text(encoding="utf-8"))
        if "withdrawn" not in advisory:
            yield advisory


def affects(advisory: dict[str, Any], name: str, version: Version) -> bool:
    """Whether an advisory is about this version: it lists it, or one of its ranges contains it."""
    for affected in advisory["affected"]:
        if canonicalize_name(affected["package"]["name"]) != name:
            continue
        if any(is_same(version, each) for each in affected.get("versions", [])):
            return True
        if any(contains(one["events"], version) for one in affected.get("ranges", []) if one["type"] == "ECOSYSTEM"):
            return True
    return False


def is_same(version: Version, text: str) -> bool:
    """Whether a version that the database writes is this one. Some old ones cannot be read."""
    try:
        return Version(str(text)) == version
    except InvalidVersion:
        return False


def contains(events: list[dict[str, str]], version: Version) -> bool:
    """Whether a version is between an event `introduced` and the next `fixed` or behind `last_affected`."""
    inside = False
    for event in events:
        ((kind, text),) = event.items()
        at = Version(str(text))
        if kind == "introduced" and version >= at:
            inside = True
        elif (kind == "fixed" and version >= at) or (kind == "last_affected" and version > at):
            inside = False
    return inside


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
