"""The loopback addresses by which rules show that they are installed."""

from __future__ import annotations

import errno
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy.net import rules_sign
from stcp_proxy.net.rules_sign import SIGN, Installed, installed_rules, sign_of

DIGEST = "00ff10aabbcc"
PROHIBITED = OSError(errno.EHOSTUNREACH, "No route to host")
REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


@given(st.integers(0, 2**48 - 1))
def test_a_digest_has_a_loopback_address_of_its_own(number: int) -> None:
    address = ipaddress.ip_address(sign_of(f"{number:012x}"))
    assert address in ipaddress.ip_network("127.128.0.0/9")
    assert str(address) != SIGN


class Kernel:
    """What connect() says, by address."""

    def __init__(self, answers: dict[str, OSError | None]) -> None:
        self.answers = answers

    def __call__(self) -> Kernel:
        return self

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *exc: object) -> None: ...

    def settimeout(self, seconds: float) -> None: ...

    def connect(self, address: tuple[str, int]) -> None:
        answer = self.answers.get(address[0], REFUSED)
        if answer is not None:
            raise answer


@pytest.mark.parametrize(
    ("answers", "installed"),
    [
        ({}, Installed.MISSING),
        ({SIGN: PROHIBITED}, Installed.OUTDATED),
        ({SIGN: PROHIBITED, sign_of(DIGEST): PROHIBITED}, Installed.CURRENT),
        (dict.fromkeys([SIGN, sign_of(DIGEST), "127.83.84.68"], PROHIBITED), Installed.UNKNOWN),
        ({SIGN: TimeoutError("timed out")}, Installed.UNKNOWN),
        ({SIGN: None}, Installed.UNKNOWN),
    ],
)
def test_what_the_kernel_says_tells_which_rules_there_are(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, OSError | None], installed: Installed
) -> None:
    monkeypatch.setattr(rules_sign.socket, "socket", Kernel(answers))
    assert installed_rules(DIGEST) is installed
