"""Small secrets in the database (of invitations), sealed under the store key."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from labxchange.encoding import frame
from labxchange.identity.keys import Identity
from labxchange.store.damage import reading


def seal_secret(identity: Identity, secret: bytes, name: str, *, random_bytes: Callable[[int], bytes]) -> bytes:
    """Seal ``secret``; ``name`` is authenticated with it."""
    nonce = random_bytes(12)
    return nonce + AESGCM(identity.store_key).encrypt(nonce, secret, frame("labxchange secret v1", name))


def open_sealed(identity: Identity, sealed: bytes, name: str) -> bytes:
    """Raises IntegrityError ``database-damaged``."""
    with reading("A secret"):
        return AESGCM(identity.store_key).decrypt(sealed[:12], sealed[12:], frame("labxchange secret v1", name))
