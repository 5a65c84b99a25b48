"""The source of a connection: host and network."""

from __future__ import annotations

from typing import Any

import pytest

from stcp_proxy.net.source import UNIX, Source, source_of


@pytest.mark.parametrize(
    ("address", "source"),
    [
        (("10.1.2.3", 5), Source("10.1.2.0/24", "10.1.2.3")),
        (("::ffff:10.1.2.3", 5, 0, 0), Source("10.1.2.0/24", "10.1.2.3")),
        (("2001:db8:1:2:3::4", 5, 0, 0), Source("2001:db8:1::/48", "2001:db8:1:2::/64")),
        (("2001:db8:1:2:ffff::", 5, 0, 0), Source("2001:db8:1::/48", "2001:db8:1:2::/64")),
        (("2001:db8:1:ffff::4", 5, 0, 0), Source("2001:db8:1::/48", "2001:db8:1:ffff::/64")),
        (("fe80::1%eth0", 5, 0, 2), Source("fe80::/48", "fe80::/64")),
        (("::1", 5, 0, 0), Source("::/48", "::/64")),
        ("", UNIX),
        (b"\0abstract", UNIX),
        (None, UNIX),
        (("not an address", 1), UNIX),
        (("a:b", 1), UNIX),
    ],
)
def test_source(address: Any, source: Source) -> None:
    assert source_of(address) == source
