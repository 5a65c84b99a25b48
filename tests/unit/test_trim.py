"""packaging/trim: what it takes from a folder of libraries, and what it leaves."""

from __future__ import annotations

import subprocess
from pathlib import Path

TRIM = Path(__file__).resolve().parents[2] / "packaging" / "trim"
METADATA = "Metadata-Version: 2.4\nName: {}\nLicense-Expression: MIT\n\nA page on PyPI.\n"
NO_LEXERS = "LEXERS: dict[str, tuple[str, str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {}\n"
FILES = {
    "one-1.dist-info/METADATA": METADATA.format("one"),
    "two-1.dist-info/METADATA": METADATA.format("two"),
    "two-1.dist-info/RECORD": "x",
    "two-1.dist-info/licenses/LICENSE": "x",
    "pycparser-1.dist-info/METADATA": METADATA.format("pycparser"),
    "dns/quic/__init__.py": "",
    "dns/quic/_sync.py": "",
    "pygments/lexers/__init__.py": "",
    "pygments/lexers/python.py": "",
    "rich/_unicode_data/__init__.py": "",
    "rich/_unicode_data/_versions.py": 'VERSIONS = (\n    "9.0.0",\n    "17.0.0",\n)\n',
    "rich/_unicode_data/unicode9-0-0.py": "",
    "rich/_unicode_data/unicode17-0-0.py": "",
    "stcp_proxy/lab/echo.py": "",
    "stcp_proxy/program.py": "#!/usr/bin/env python3\nx = 1\n",
}


def test_trim(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    subprocess.run(["sh", TRIM, tmp_path], check=True, timeout=60)
    left = {str(file.relative_to(tmp_path)): file.read_text(encoding="utf-8") for file in tmp_path.rglob("*") if file.is_file()}
    head = "Metadata-Version: 2.4\nName: {}\nLicense-Expression: MIT\n\n"
    assert left == {
        "one-1.dist-info/METADATA": head.format("one"),
        "two-1.dist-info/METADATA": head.format("two"),
        "two-1.dist-info/licenses/LICENSE": "x",
        "dns/quic/__init__.py": "",
        "pygments/lexers/__init__.py": "",
        "pygments/lexers/_mapping.py": NO_LEXERS,
        "rich/_emoji_codes.py": "EMOJI: dict[str, str] = {}\n",
        "rich/_unicode_data/__init__.py": "",
        "rich/_unicode_data/_versions.py": 'VERSIONS = ("17.0.0",)\n',
        "rich/_unicode_data/unicode17-0-0.py": "",
        "stcp_proxy/program.py": "x = 1\n",
    }
