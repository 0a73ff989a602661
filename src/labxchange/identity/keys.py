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
_SMALL_ORDER = frozenset(
    bytes.fromhex(text)
    for text in (
        *("00" * 32, "01" + "00" * 31, "ec" + "ff" * 30 + "7f", "ed" + "ff" * 30 + "7f", "ee" + "ff" * 30 + "7f"),
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    )
)
"""Points of order 1, 2, 4 and 8, with the sign bit cleared: as keys they belong to nobody, as anyone can sign for them."""


def derive(key: bytes, length: int, *info: bytes | str | int) -> bytes:
    """``KDF`` of the specification: HKDF-Expand-SHA-384 of ``key`` with ``frame(*info)``."""
    return HKDFExpand(SHA384(), length, frame(*info)).derive(key)


def verify(public: bytes, signature: bytes, data: bytes) -> bool:
    """True when ``signature`` is the Ed25519 signature of ``data`` under the raw public key, one that somebody can own."""
    if len(public) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    if public[:-1] + bytes([public[-1] & 0x7F]) in _SMALL_ORDER:
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
