"""Pages of libraries that only the start used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from stcp_proxy.process import resting_memory

_WRITTEN = """\
import ctypes, mmap, sys
with open(sys.argv[1], "rb") as file:
    clean = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    area = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
area[:5] = b"other"
address = ctypes.addressof(ctypes.c_char.from_buffer(area))
assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), mmap.PAGESIZE, 1) == 0
from stcp_proxy.process import resting_memory
assert address not in [first for first, _ in resting_memory._unwritten()]
resting_memory.settle()
print(area[:5].decode(), clean[:4].decode())
"""

_RESIDENT = """\
import sys
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from stcp_proxy.process import resting_memory
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[2])
before = resident()
resting_memory.settle()
print(before - resident())
X25519PrivateKey.generate().public_key()
"""


def output(program: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_pages_of_libraries_are_given_back_and_come_back() -> None:
    assert int(output(_RESIDENT)) > 500, "pages of files"


def test_a_page_that_was_written_to_stays(tmp_path: Path) -> None:
    """So does what the dynamic loader has written, and a breakpoint of a debugger."""
    file = tmp_path / "file"
    file.write_bytes(b"from the file".ljust(4096))
    assert output(_WRITTEN, str(file)) == "other from"


def test_every_mapping_is_read_only() -> None:
    with open("/proc/self/maps") as lines:
        writable = {line.partition("-")[0] for line in lines if "w" in line.split()[1] or line.split()[1].endswith("s")}
    found = [f"{first:x}" for first, _ in resting_memory._unwritten()]
    assert found
    assert not writable & set(found)
