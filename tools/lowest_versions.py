"""Print the lowest versions that pyproject.toml admits, as constraints for pip.

    python tools/lowest_versions.py [EXTRA…] > lowest.txt

Args:
    EXTRA: optional dependencies to include.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*(?:>=|==)\s*(?P<version>[0-9][0-9A-Za-z.!]*)")


def lowest(requirement: str) -> str:
    """The constraint for one requirement.

    Raises:
        ValueError: it names no lowest version.
    """
    found = _REQUIREMENT.match(requirement)
    if found is None:
        raise ValueError(f"{requirement!r} has no lowest version; write it as name>=version")
    return f"{found['name']}=={found['version']}"


def main(extras: list[str]) -> None:
    """Print one constraint a line."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
    print(*(lowest(requirement) for group in groups for requirement in group), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
