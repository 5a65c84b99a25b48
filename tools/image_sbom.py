"""Print the bill of materials of an image: CycloneDX, as JSON. Two runs on one image print the same bytes.

    python tools/image_sbom.py ROOT NAME VERSION

ROOT is the image's file system. Debian's packages are read from /var/lib/dpkg (`status`, or `status.d` of an image without dpkg),
the Python libraries from their folders `*.dist-info`.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

Component = dict[str, Any]


def main(root: Path, name: str, version: str) -> None:
    """Print the bill of an image."""
    components = sorted([*debian(root), *python(root)], key=lambda each: str(each["bom-ref"]))
    bill: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": name, "version": version, "bom-ref": f"{name}@{version}"}},
        "components": components,
    }
    bill["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(bill, sort_keys=True)).urn
    text = json.dumps(bill, indent=2, sort_keys=True)
    if error := JsonStrictValidator(SchemaVersion.V1_5).validate_str(text):
        sys.exit(f"image_sbom: the bill of {name} breaks CycloneDX's schema: {str(error).splitlines()[0]}")
    print(text)


def debian(root: Path) -> Iterator[Component]:
    """The packages that are installed, or that the image has files of."""
    release = dict(
        line.split("=", 1) for line in (root / "etc/os-release").read_text(encoding="utf-8").splitlines() if "=" in line
    )
    distribution = f"debian-{release['VERSION_ID'].strip(chr(34))}"
    folder = root / "var/lib/dpkg"
    texts = [folder / "status"] if (folder / "status").exists() else sorted((folder / "status.d").iterdir())
    for paragraph in "\n\n".join(text.read_text(encoding="utf-8") for text in texts).split("\n\n"):
        fields = HeaderParser().parsestr(paragraph.strip() + "\n")
        if fields["Package"] and fields["Status"].endswith(" installed"):
            name, version, arch = fields["Package"], fields["Version"], fields["Architecture"]
            purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={arch}&distro={distribution}"
            yield {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}


def python(root: Path) -> Iterator[Component]:
    """The Python libraries of the product, and the product."""
    for metadata in root.glob("opt/stcp/lib/python3*/site-packages/*.dist-info/METADATA"):
        fields = HeaderParser().parsestr(metadata.read_text(encoding="utf-8"))
        name, version = fields["Name"], fields["Version"]
        purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{quote(version)}"
        component: Component = {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}
        if licence := fields["License-Expression"]:
            component["licenses"] = [{"expression": licence}]
        yield component


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
