"""A private key as PEM text, encrypted with a passphrase (PKCS#8).

`cryptography` writes encrypted PKCS#8 with 2,048 rounds of PBKDF2, which is too few for a passphrase that a person has chosen.
This module writes the same structure with 600,000 rounds (OWASP's figure for PBKDF2 with HMAC-SHA-256). `cryptography` and
openssl read it.
"""

from __future__ import annotations

import base64
import os
import textwrap
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

ROUNDS: Final = 600_000
_ENCRYPTED: Final = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
_KEY_LEN: Final = 32
_BLOCK_LEN: Final = 16

# Object identifiers in DER: RFC 8018, appendix C, and NIST's aes256-CBC.
_PBES2: Final = bytes.fromhex("06092a864886f70d01050d")
_PBKDF2: Final = bytes.fromhex("06092a864886f70d01050c")
_HMAC_SHA256: Final = bytes.fromhex("06082a864886f70d0209")
_AES_256_CBC: Final = bytes.fromhex("060960864801650304012a")
_NULL: Final = b"\x05\x00"
_INTEGER, _OCTETS, _SEQUENCE = 0x02, 0x04, 0x30


def encode_key(key: Ed25519PrivateKey, passphrase: bytes | None) -> str:
    """The PEM text of a key.

    Args:
        key: the private key.
        passphrase: encrypts the text; None leaves it as it is.
    """
    if passphrase is None:
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    body = base64.b64encode(_encrypted(plain, passphrase)).decode()
    return "\n".join([_ENCRYPTED.decode(), *textwrap.wrap(body, 64), _ENCRYPTED.decode().replace("BEGIN", "END"), ""])


def is_encrypted(pem: bytes) -> bool:
    """Whether the PEM text of a key needs a passphrase."""
    return _ENCRYPTED in pem


def decode_key(pem: bytes, passphrase: bytes | None) -> Ed25519PrivateKey:
    """The key in a PEM text.

    Raises:
        ValueError: the text is damaged, the passphrase is wrong, or the key is no Ed25519 key.
    """
    try:
        key = load_pem_private_key(pem, passphrase)
    except (TypeError, UnsupportedAlgorithm) as exc:
        raise ValueError(str(exc)) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("the key is no Ed25519 key")
    return key


def _encrypted(plain: bytes, passphrase: bytes) -> bytes:
    """EncryptedPrivateKeyInfo (RFC 5958, section 3) with PBES2 (RFC 8018, section 6.2), in DER."""
    salt, start = os.urandom(_BLOCK_LEN), os.urandom(_BLOCK_LEN)
    secret = PBKDF2HMAC(hashes.SHA256(), _KEY_LEN, salt, ROUNDS).derive(passphrase)
    padder = PKCS7(8 * _BLOCK_LEN).padder()
    encryptor = Cipher(algorithms.AES(secret), modes.CBC(start)).encryptor()
    sealed = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    rounds = _der(_INTEGER, ROUNDS.to_bytes((ROUNDS.bit_length() + 8) // 8, "big"))
    hmac = _der(_SEQUENCE, _HMAC_SHA256 + _NULL)
    kdf = _der(_SEQUENCE, _PBKDF2 + _der(_SEQUENCE, _der(_OCTETS, salt) + rounds + hmac))
    cipher = _der(_SEQUENCE, _AES_256_CBC + _der(_OCTETS, start))
    scheme = _der(_SEQUENCE, _PBES2 + _der(_SEQUENCE, kdf + cipher))
    return _der(_SEQUENCE, scheme + _der(_OCTETS, sealed))


def _der(tag: int, content: bytes) -> bytes:
    """One DER element. Its content has fewer than 256 bytes."""
    length = bytes([len(content)]) if len(content) < 0x80 else bytes([0x81, len(content)])
    return bytes([tag]) + length + content
