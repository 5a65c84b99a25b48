"""HKDF of the handshake, against the library's."""

from __future__ import annotations

import random

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from stcp_proxy.protocol.noise import hkdf


@pytest.mark.parametrize("outputs", [2, 3])
@pytest.mark.parametrize("size", [0, 32])
def test_it_is_rfc_5869s_without_info(outputs: int, size: int) -> None:
    rng = random.Random(1)
    for _ in range(20):
        chaining_key, material = rng.randbytes(32), rng.randbytes(size)
        library = HKDF(SHA256(), 32 * outputs, salt=chaining_key, info=b"").derive(material)
        assert b"".join(hkdf(chaining_key, material, outputs)) == library
