"""Make the virtual environment of the Makefile, on a machine that may have nothing but Python.

    python3 tools/make_venv.py .venv

Debian packs the venv module's pip apart, as python3-venv. Where that is missing, the environment is made without pip, and pip
comes into it from the package index, checked against the checksum given there. Standard library only.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from urllib.parse import urljoin

OLDEST = (3, 11)
INDEX = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple")
REMEDY = "install Debian's package for it and try again: apt install python3-venv"


def main(folder: Path) -> None:
    """Make `folder` a virtual environment with pip in it."""
    if sys.version_info < OLDEST:
        sys.exit(
            f"stcp-proxy needs Python {'.'.join(map(str, OLDEST))}; this is {sys.version.split()[0]}. Name another: make PYTHON=…"
        )
    if importlib.util.find_spec("venv") is None:
        sys.exit(f"this Python has no venv module; {REMEDY}")
    print(f"making a virtual environment in {folder}", flush=True)
    complete = importlib.util.find_spec("ensurepip") is not None
    subprocess.run([sys.executable, "-m", "venv", *([] if complete else ["--without-pip"]), folder], check=True)
    if not complete:
        try:
            fetch_pip(folder / "bin" / "python")
        except (OSError, ValueError, subprocess.CalledProcessError) as exc:
            sys.exit(f"this Python has no ensurepip, and pip could not be fetched ({exc}); {REMEDY}")


def fetch_pip(python: Path) -> None:
    """Install pip for `python` from the package index. A wheel of pip can install itself."""
    page = f"{INDEX.rstrip('/')}/pip/"
    request = urllib.request.Request(page, headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    trust = ssl.create_default_context(cafile=os.environ.get("PIP_CERT"))
    with urllib.request.urlopen(request, timeout=60, context=trust) as reply:
        files = json.load(reply)["files"]
    wheels = [file for file in files if file["filename"].endswith("-py3-none-any.whl") and not file.get("yanked")]
    newest = max(wheels, key=lambda file: version(file["filename"]))
    with urllib.request.urlopen(urljoin(page, newest["url"]), timeout=60, context=trust) as reply:
        wheel = reply.read()
    if hashlib.sha256(wheel).hexdigest() != newest["hashes"]["sha256"]:
        raise ValueError(f"{newest['filename']} is not what the index says it is")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, newest["filename"])
        path.write_bytes(wheel)
        command = [python, path / "pip", "install", "--quiet", "--no-index", "--disable-pip-version-check", path]
        subprocess.run(command, check=True)


def version(filename: str) -> tuple[int, ...]:
    """Of a wheel of pip, for comparison; what is not a plain release comes before every other."""
    parts = filename.split("-")[1].split(".")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else ()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
