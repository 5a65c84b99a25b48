"""The sentence for targets of which none answered."""

from __future__ import annotations

import errno
import itertools

from stcp_proxy.net.dial import Failure, summary

TARGETS = ("127.0.0.1:81", "127.0.0.1:82")
FAILURES = tuple(Failure(name, errno.ECONNREFUSED, "connection refused") for name in TARGETS)


def test_one_fault_has_one_sentence_whatever_was_tried_first() -> None:
    """An unhealthy endpoint is tried last: the order of the attempts changes, the fault does not."""
    found = {summary(TARGETS, failures).what for failures in itertools.permutations(FAILURES)}
    assert found == {"cannot reach 127.0.0.1:81: connection refused; 127.0.0.1:82: connection refused"}


def test_addresses_of_a_name_stand_behind_it() -> None:
    assert summary(("db.internal:80",), FAILURES).what == (
        "cannot reach db.internal:80 (127.0.0.1:81: connection refused; 127.0.0.1:82: connection refused)"
    )
