"""The signature that binds a Noise static key to a certificate (PROTOCOL.md section 8)."""

from __future__ import annotations

from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from stcp_proxy.errors import BindingRefused
from stcp_proxy.protocol.credential import Credential, binding_message
from stcp_proxy.protocol.wire import Role

MIN_RSA_BITS: Final = 2048
_CURVE_HASH: Final[dict[str, hashes.HashAlgorithm]] = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384()}
_PSS: Final = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=hashes.SHA256.digest_size)

SigningKey: TypeAlias = Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey


def make_credential(
    certificates: tuple[bytes, ...], key: SigningKey | None, *, role: Role, static: bytes, not_after: int
) -> bytes:
    """Make and encode a credential.

    Args:
        certificates: DER encodings, the leaf first.
        key: the leaf's private key; None when the leaf's key is the static key.
        role: this side's role in the handshake.
        static: this side's Noise static public key, 32 bytes.
        not_after: end of the binding, in unix seconds.

    Raises:
        ValueError: the key is of a kind that the format does not know, or the credential is too large.
    """
    signature = b"" if key is None else _sign(key, binding_message(role, static, not_after))
    return Credential(certificates, not_after, signature).encode()


def check_binding(credential: Credential, key: object, *, role: Role, static: bytes) -> None:
    """Check that a credential's leaf key vouches for a Noise static key.

    Args:
        credential: the peer's credential.
        key: the public key of its leaf.
        role: the peer's role in the handshake.
        static: the peer's Noise static public key, 32 bytes.

    Raises:
        BindingRefused: the signature does not fit, or the key is of a kind that the format does not know.
    """
    if isinstance(key, X25519PublicKey):
        if key.public_bytes_raw() != static or credential.signature:
            raise _refused("the certificate's X25519 key is not the key of the handshake")
        return
    message = binding_message(role, static, credential.not_after)
    try:
        _verify(key, credential.signature, message)
    except InvalidSignature:
        raise _refused("its signature does not fit the key of the handshake") from None


def _sign(key: SigningKey, message: bytes) -> bytes:
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(message)
    if isinstance(key, EllipticCurvePrivateKey) and key.curve.name in _CURVE_HASH:
        return key.sign(message, ECDSA(_CURVE_HASH[key.curve.name]))
    if isinstance(key, RSAPrivateKey) and key.key_size >= MIN_RSA_BITS:
        return key.sign(message, _PSS, hashes.SHA256())
    raise ValueError("a credential is signed with Ed25519, ECDSA P-256 or P-384, or RSA of 2048 bits or more")


def _verify(key: object, signature: bytes, message: bytes) -> None:
    if isinstance(key, Ed25519PublicKey):
        key.verify(signature, message)
    elif isinstance(key, EllipticCurvePublicKey) and key.curve.name in _CURVE_HASH:
        key.verify(signature, message, ECDSA(_CURVE_HASH[key.curve.name]))
    elif isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        key.verify(signature, message, _PSS, hashes.SHA256())
    else:
        raise _refused("the certificate's key is not Ed25519, ECDSA P-256 or P-384, RSA of 2048 bits or more, or X25519")


def _refused(why: str) -> BindingRefused:
    return BindingRefused(f"the peer's credential does not belong to this handshake: {why}")
