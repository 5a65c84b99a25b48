"""Listening sockets of an old process among the workers of a new one: each worker has every address, each socket somebody."""

from __future__ import annotations

import itertools

import pytest

from stcp_proxy.net.address import TcpAddress
from stcp_proxy.net.listen import open_listeners
from stcp_proxy.process.worker_sockets import WorkerListeners


@pytest.mark.parametrize(("sockets", "workers"), list(itertools.product((1, 2, 3, 5), (1, 2, 3, 4))))
def test_nobody_is_left_out(sockets: int, workers: int) -> None:
    first = open_listeners(TcpAddress("localhost", 0), backlog=1, shared=True)
    port = first[0].getsockname()[1]
    found = [*first]
    for _ in range(sockets - 1):
        found += open_listeners(TcpAddress("localhost", port), backlog=1, shared=True)
    dealt = WorkerListeners.shared(found, workers)
    try:
        assert dealt.port == port
        assert len(dealt.sets) == workers
        assert set(itertools.chain.from_iterable(dealt.sets)) == set(found)
        for each in dealt.sets:
            assert len(set(each)) == len(each)  # a worker does not watch one socket twice
            assert {sock.getsockname() for sock in each} == {sock.getsockname() for sock in first}
    finally:
        for sock in found:
            sock.close()
    assert all(sock.fileno() == -1 for sock in found)
