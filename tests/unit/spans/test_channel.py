"""The channel to the exporter: bounded, whole lines, never waits."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator

import pytest

from stcp_proxy.spans import counts, sink
from stcp_proxy.spans.channel import CAPACITY, MOST, Channel
from stcp_proxy.spans.counts import Counts


@pytest.fixture
def channel() -> Iterator[Channel]:
    found = Channel()
    yield found
    found.close()
    os.close(found.counts)


def read(channel: Channel) -> list[dict[str, object]]:
    channel.close_writer()
    with open(os.dup(channel.reader), "rb") as file:
        return [json.loads(line) for line in file.read().splitlines()]


def test_a_record_arrives(channel: Channel) -> None:
    channel.offer({"peer": "ä\n"})
    channel.offer({"peer": "b"})
    assert read(channel) == [{"peer": "ä\n"}, {"peer": "b"}]
    assert channel.dropped == 0


def test_a_full_channel_drops_and_counts(channel: Channel) -> None:
    record = {"text": "x" * 500}
    for _ in range(4 * CAPACITY // 500):
        channel.offer(record)
    assert channel.dropped > CAPACITY // 500
    found = read(channel)
    assert len(found) + channel.dropped == 4 * CAPACITY // 500
    assert all(each == record for each in found)


def test_a_record_that_is_too_long_is_dropped(channel: Channel) -> None:
    channel.offer({"text": "x" * MOST})
    channel.offer({"text": "y"})
    assert channel.dropped == 1
    assert read(channel) == [{"text": "y"}]


def test_a_reader_that_has_gone_costs_the_record_alone(channel: Channel) -> None:
    channel.close_reader()
    channel.offer({"text": "x"})
    assert channel.dropped == 1


def test_records_of_several_writers_do_not_mix(channel: Channel) -> None:
    def write(letter: str) -> None:
        for _ in range(100):
            channel.offer({letter: letter * 1000})

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in read(channel):
        ((letter, text),) = each.items()
        assert text == letter * 1000


def test_both_sides_choose_alike(channel: Channel) -> None:
    names = [f"{number * 0x9E3779B97F4A7C15 % (1 << 64):016x}" for number in range(2000)]
    channel.sample(0.25)
    chosen = [name for name in names if channel.wants(name)]
    other = Channel()
    other.sample(0.25)
    assert chosen == [name for name in names if other.wants(name)]
    other.close()
    os.close(other.counts)
    assert 400 < len(chosen) < 600


def test_all_and_none(channel: Channel) -> None:
    assert channel.wants("")
    assert channel.wants("ffffffffffffffff")
    channel.sample(0.0)
    assert not channel.wants("0000000000000000")
    assert not channel.wants("")


def test_counts_are_shared(channel: Channel) -> None:
    assert channel.results == Counts()
    counts.write(channel.counts, Counts(7, 4, 3))
    assert channel.results == Counts(taken=7, exported=4, failed=3)
    channel.close()
    assert channel.results.exported == 4


def test_the_sink_of_a_process(channel: Channel) -> None:
    assert sink.current() is None
    sink.use(channel)
    assert sink.current() is channel
    sink.use(None)
    assert sink.current() is None
