"""stcp-proxy whose frames are not encrypted, for measurements beside a module that does not encrypt either. For nothing else."""

from __future__ import annotations

from typing import Any

from stcp_proxy.cli import main
from stcp_proxy.protocol import frames


class NoCipher:
    """Takes the place of AESGCM: copies, and fills the tag with zeros."""

    def __init__(self, key: bytes) -> None:
        pass

    def encrypt(self, nonce: bytes, data: bytes, associated: bytes | None) -> bytes:
        return bytes(data) + bytes(16)

    def decrypt(self, nonce: bytes, data: bytes, associated: bytes | None) -> bytes:
        return bytes(data[:-16])

    def encrypt_into(self, nonce: Any, data: Any, associated: Any, out: Any) -> int:
        n = len(data)
        view = memoryview(out)
        view[:n] = data
        view[n : n + 16] = bytes(16)
        return n + 16

    def decrypt_into(self, nonce: Any, data: Any, associated: Any, out: Any) -> int:
        n = len(data) - 16
        memoryview(out)[:n] = memoryview(data)[:n]
        return n


frames.AESGCM = NoCipher  # type: ignore[assignment,misc]

if __name__ == "__main__":
    main()
