"""The contents of OPEN, ACCEPT, RESET and REJECT.

Promises: only a FrameError refuses; what was read can be written and read again; an endpoint has a valid address.
"""

from __future__ import annotations

from stcp_proxy.errors import FrameError
from stcp_proxy.protocol.opening import Opening, decode_reason, encode_reason, parse_attributes, read_keep
from stcp_proxy.redact import shown


def one(data: bytes) -> None:
    """Run one input: the bytes are the content of a frame."""
    try:
        opening = Opening.decode(data)
    except FrameError:
        opening = None
    if opening is not None:
        assert Opening.decode(opening.encode()) == opening
        assert "\n" not in shown(opening.service or "")
    try:
        found = parse_attributes(data)
        keep = read_keep(found)
    except FrameError:
        assert opening is None
    else:
        assert sum(3 + len(value) for value in found.values()) <= len(data)
        assert opening is None or keep == opening.keep
    try:
        code, text = decode_reason(data)
    except FrameError:
        return
    assert decode_reason(encode_reason(code, text))[0] == code
