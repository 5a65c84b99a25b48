"""The type of keys and shared secrets."""

from __future__ import annotations

import hmac
from typing import Any, ClassVar, Final, NoReturn

from stcp_proxy.protocol.wire import KEY_LEN


class Secret:
    """A private key, shared secret or cipher key: redacted repr, constant-time comparison, no pickling.

    Python cannot promise that no copy stays in memory. SECURITY.md has the consequences.

    Args:
        raw: exactly 32 bytes.

    Raises:
        ValueError: on any other length.
    """

    __slots__ = ("_raw", "cipher")

    size: ClassVar[int | None] = KEY_LEN
    """Bytes of a secret of this type; None for any number."""

    def __init__(self, raw: bytes) -> None:
        if self.size is not None and len(raw) != self.size:
            raise ValueError(f"a secret is {self.size} bytes, not {len(raw)}")
        self._raw: Final = bytes(raw)
        self.cipher: Any = None
        """What `frames` keeps here: the cipher with this key. To make one costs as much as to seal two small frames."""

    def reveal(self) -> bytes:
        """The bytes, for the cipher and the key file. Never put them into a message."""
        return self._raw

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._raw, other._raw)

    def __hash__(self) -> int:
        raise TypeError("a secret is not a dictionary key")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")
