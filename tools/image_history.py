"""Take from an OCI image what differs from one build to the next: Buildah names the random ids of its steps in the history.

    python tools/image_history.py FOLDER

FOLDER is an image of the OCI layout. Its layers stay; configuration, manifest and index get the checksums of their new contents.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    """Rewrite the configuration of each image in the folder."""
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    for entry in index["manifests"]:
        manifest = taken(folder, entry)
        config = taken(folder, manifest["config"])
        for step in config.get("history", ()):
            step.pop("comment", None)
        put(folder, manifest["config"], config)
        put(folder, entry, manifest)
    (folder / "index.json").write_bytes(text_of(index))


def taken(folder: Path, entry: dict[str, Any]) -> Any:
    """Read a blob, and remove it."""
    blob = folder / "blobs" / entry["digest"].replace(":", "/")
    content = json.loads(blob.read_bytes())
    blob.unlink()
    return content


def put(folder: Path, entry: dict[str, Any], content: Any) -> None:
    """Write a blob, and have its entry name it."""
    text = text_of(content)
    entry["digest"], entry["size"] = f"sha256:{hashlib.sha256(text).hexdigest()}", len(text)
    (folder / "blobs" / entry["digest"].replace(":", "/")).write_bytes(text)


def text_of(content: Any) -> bytes:
    """A content as JSON; the same for the same content."""
    return json.dumps(content, separators=(",", ":"), sort_keys=True).encode()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
