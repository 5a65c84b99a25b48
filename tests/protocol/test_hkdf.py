"""HKDF of the handshake, against that of `cryptography`."""

from __future__ import annotations

import random

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from stcp_proxy.protocol.symmetric import hkdf


@pytest.mark.parametrize("outputs", [2, 3])
@pytest.mark.parametrize("size", [0, 32])
def test_hkdf_is_that_of_rfc_5869(outputs: int, size: int) -> None:
    rng = random.Random(1)
    for _ in range(20):
        chaining_key, material = rng.randbytes(32), rng.randbytes(size)
        library = HKDF(SHA256(), 32 * outputs, salt=chaining_key, info=b"").derive(material)
        assert b"".join(hkdf(chaining_key, material, outputs)) == library
