"""A person's keys, derived from one 32-byte seed.

One seed gives three Ed25519 keys - identity (statements), trail (checkpoints), cosign (other people's checkpoints) - and two
symmetric ones (scope tags of the trail, wrapping of keys in the store). Derivation is HKDF-Expand with SHA-384, so the seed
alone restores all. Sealing the seed at rest is left to ``sealing``; making a fresh seed to the caller.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from labxchange.encoding import frame

SEED_BYTES = 32
KEY_BYTES = 32
SIGNATURE_BYTES = 64


def derive(key: bytes, length: int, *info: bytes | str | int) -> bytes:
    """``KDF`` of the specification: HKDF-Expand-SHA-384 of ``key`` with ``frame(*info)``."""
    return HKDFExpand(SHA384(), length, frame(*info)).derive(key)


def verify(public: bytes, signature: bytes, data: bytes) -> bool:
    """True when ``signature`` is the Ed25519 signature of ``data`` under the raw public key."""
    if len(public) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


class Identity:
    """The unlocked keys of one person; lives in the node's process only, and has no printable form."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise ValueError("a seed has 32 bytes")
        self._identity, self._trail, self._cosign = (
            Ed25519PrivateKey.from_private_bytes(derive(seed, KEY_BYTES, "labxchange key v1", use))
            for use in ("identity", "trail", "cosign")
        )
        self.scope_key = derive(seed, KEY_BYTES, "labxchange key v1", "scope")
        self.store_key = derive(seed, KEY_BYTES, "labxchange key v1", "store")
        self.public = self._identity.public_key().public_bytes_raw()
        self.trail_public = self._trail.public_key().public_bytes_raw()
        self.cosign_public = self._cosign.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        """Signature of the identity key."""
        return self._identity.sign(data)

    def sign_trail(self, data: bytes) -> bytes:
        """Signature of the trail key: checkpoints of one's own trail."""
        return self._trail.sign(data)

    def sign_cosign(self, data: bytes) -> bytes:
        """Signature of the cosigning key: other people's checkpoints."""
        return self._cosign.sign(data)

    def __repr__(self) -> str:
        return "Identity(...)"
