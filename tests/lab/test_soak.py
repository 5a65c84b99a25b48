"""Memory under load: the arithmetic on a made-up course, and one short course of a real pair."""

import shutil
from pathlib import Path

import pytest

from stcp_proxy.lab import soak
from stcp_proxy.lab.bench import peers
from stcp_proxy.lab.soak import Course

MIB = 1 << 20


def course() -> Course:
    """Memory that doubles in the warm-up and then grows by a tenth."""
    sizes = [10] * 20 + [20] * 60 + [22] * 21
    return Course("x", [(float(at), {"listen": size * MIB}) for at, size in enumerate(sizes)], dict.fromkeys(DID, 1))


DID = ("round trips", "bytes", "new connections")


def test_growth_is_counted_after_the_warm_up() -> None:
    (line,) = soak.table([course()]).lines
    assert line[1:5] == ["listen", "20.0", "22.0", "+10.0 %"]


def test_it_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    assert soak.draw([course()], tmp_path / "soak").stat().st_size > 1000


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for the load generator")
def test_a_real_pair_is_watched() -> None:
    (peer,) = peers.choose(["plain"])
    if why := peer.missing():
        pytest.skip(why)
    watched = soak.watch(peer, duration=1.0, progress=lambda words: None)
    assert len(watched.points) > 10
    assert all(watched.did[name] > 0 for name in DID)
    assert soak.table([watched]).lines[0][0] == "plain"
