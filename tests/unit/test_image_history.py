"""An image's history without random ids: two builds of one image become the same bytes, and every checksum fits."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TOOL = Path(__file__).resolve().parents[2] / "tools" / "image_history.py"


def put(folder: Path, content: Any) -> dict[str, Any]:
    text = json.dumps(content).encode()
    digest = hashlib.sha256(text).hexdigest()
    (folder / "blobs/sha256" / digest).write_bytes(text)
    return {"digest": f"sha256:{digest}", "size": len(text)}


def build(folder: Path, step: str) -> dict[str, bytes]:
    """An image as Buildah writes it; what the tool makes of it."""
    (folder / "blobs/sha256").mkdir(parents=True)
    layer = put(folder, "the content of a layer")
    config = put(folder, {"rootfs": {}, "history": [{"created_by": "RUN x", "comment": f"FROM {step}"}, {"created_by": "y"}]})
    manifest = put(folder, {"config": config, "layers": [layer]})
    (folder / "index.json").write_text(json.dumps({"manifests": [manifest]}), encoding="utf-8")
    subprocess.run([sys.executable, TOOL, folder], check=True, timeout=60)
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_two_builds_become_the_same(tmp_path: Path) -> None:
    first = build(tmp_path / "one", "3cd5f8658a59")
    assert first == build(tmp_path / "two", "8774a7bf0d80")
    assert len(first) == 4, "a blob is left that nothing names"
    assert b"FROM" not in b"".join(first.values())
    for name, content in first.items():
        assert name == "index.json" or name.endswith(hashlib.sha256(content).hexdigest())
    (manifest,) = json.loads(first["index.json"])["manifests"]
    assert manifest["size"] == len(first[f"blobs/{manifest['digest'].replace(':', '/')}"])
