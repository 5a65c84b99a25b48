"""Modules that are imported at their first use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("not_measured")
HEAD = "import sys\nfrom stcp_proxy.process.deferred_imports import defer, deferred, import_hashlib, without\n"


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module and a package that say when they are imported."""
    (tmp_path / "late.py").write_text("print('late')\nimport time\ntime.sleep(0.05)\nvalue = 7\n")
    (tmp_path / "broken.py").write_text("raise ImportError('broken on purpose')\n")
    package = tmp_path / "box"
    package.mkdir()
    (package / "__init__.py").write_text("print('box')\nfrom box import inner\n")
    (package / "inner.py").write_text("print('inner')\nvalue = 8\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def output(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", HEAD + program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("import late; import late as other; print('unused', deferred())", ["unused", "['late']"]),
        ("import late; print('now'); print(late.value, late.value, deferred())", ["now", "late", "7", "7", "[]"]),
        ("from late import value; print(value)", ["late", "7"]),
        ("import late; late.value; import late as other; print(other.value, late is other)", ["late", "7", "False"]),
        ("import late; print(hasattr(late, 'nothing'), late.value)", ["late", "False", "7"]),
        ("import sys, late; late.value; print(sys.modules['late'].__file__[-7:])", ["late", "late.py"]),
    ],
)
def test_a_module(program: str, says: list[str]) -> None:
    assert output(f"defer(['late'])\n{program}") == says


@pytest.mark.parametrize(
    ("names", "program", "says"),
    [
        ("['box']", "import box; print('now'); print(box.inner.value)", ["now", "box", "inner", "8"]),
        ("['box']", "import box; box.inner; import box.inner as other; print(other.value)", ["box", "inner", "8"]),
        ("['box.inner']", "import box; print(deferred()); from box import inner; print(inner.value)",
         ["box", "['box.inner']", "inner", "8"]),
    ],
)  # fmt: skip
def test_a_package_and_a_submodule(names: str, program: str, says: list[str]) -> None:
    assert output(f"defer({names})\n{program}") == says


def test_one_that_is_imported_already_is_left_alone() -> None:
    assert output("import late\nkept = late\ndefer(['late'])\nimport late\nprint(kept is late)") == ["late", "True"]


def test_an_import_that_fails_fails_at_each_use() -> None:
    program = "defer(['broken'])\nimport broken\nfor _ in range(2):\n  try: broken.value\n  except ImportError: print('failed')"
    assert output(program) == ["failed", "failed"]


def test_threads_that_use_it_at_the_same_time_get_the_whole_module() -> None:
    program = "defer(['late'])\nimport late, threading\nfound = []\n"
    program += "threads = [threading.Thread(target=lambda: found.append(late.value)) for _ in range(8)]\n"
    program += "[each.start() for each in threads]; [each.join() for each in threads]; print(found.count(7))"
    assert output(program) == ["late", "8"]


def test_without_some_modules() -> None:
    program = "try:\n  with without(['late']): import late\nexcept ImportError: print('absent')\nimport late"
    assert output(program) == ["absent", "late"]


def test_hashes_of_python_itself() -> None:
    """They give the digests of OpenSSL, and libcrypto of the system is not loaded for them."""
    program = (
        "import_hashlib()\nimport hashlib, hmac\nprint(hashlib.sha256(b'a').hexdigest()[:8], hmac.compare_digest(b'a', b'a'))\n"
    )
    program += "print('_hashlib' in sys.modules, 'libcrypto' in open('/proc/self/maps').read())"
    assert output(program) == ["ca978112", "True", "False", "False"]


def test_hashes_of_openssl_where_python_has_none_itself() -> None:
    program = "import importlib.util\nreal = importlib.util.find_spec\n"
    program += "importlib.util.find_spec = lambda name: None if name == '_sha3' else real(name)\n"
    program += "import_hashlib()\nprint('hashlib' in sys.modules)\nimport hashlib\nprint('_hashlib' in sys.modules)"
    assert output(program) == ["False", "True"]
