"""The seed sealed at rest.

The sealed identity is a JSON text: a random 32-byte key wraps the seed (AES-256-GCM), and *slots* wrap that key - a passphrase
slot through Argon2id (256 MiB, t=3, p=4), credential slots directly under 256 random bits kept in a file. The public key stands
open beside them and is authenticated, so a locked node knows whose it is. Salts and nonces are arguments; files are left to
``files.keyfile``.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from labxchange.encoding import b64decode, b64encode, dump_json, frame, parse_json
from labxchange.errors import InputError, IntegrityError
from labxchange.identity.keys import SEED_BYTES, Identity

CREDENTIAL_BYTES = 32
PASSPHRASE_MIN_LENGTH = 12

RandomBytes = Callable[[int], bytes]


class Argon(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cost of the passphrase slot; bounds on reading keep a damaged file from asking for all memory."""

    memory_kib: int = 262_144
    passes: int = 3
    lanes: int = 4


class _Slot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: str
    salt: str
    wrapped: str
    argon: Argon


class Sealed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of ``identity.json``."""

    format: str
    public: str
    seed: str
    slots: list[_Slot]

    def dump(self) -> bytes:
        return dump_json(msgspec.to_builtins(self))


_FORMAT = "labxchange identity v1"


def _wrap(key: bytes, plain: bytes, *aad: str, random_bytes: RandomBytes) -> str:
    nonce = random_bytes(12)
    return b64encode(nonce + AESGCM(key).encrypt(nonce, plain, frame(_FORMAT, *aad)))


def _unwrap(key: bytes, wrapped: str, *aad: str) -> bytes:
    raw = b64decode(wrapped)
    return AESGCM(key).decrypt(raw[:12], raw[12:], frame(_FORMAT, *aad))


def _stretch(passphrase: str, salt: bytes, argon: Argon) -> bytes:
    kdf = Argon2id(salt=salt, length=32, iterations=argon.passes, lanes=argon.lanes, memory_cost=argon.memory_kib)
    return kdf.derive(passphrase.encode())


def seal(
    seed: bytes, *, passphrase: str = "", credential: bytes = b"", random_bytes: RandomBytes, argon: Argon | None = None
) -> Sealed:
    """Seal ``seed`` under a passphrase, a credential (32 random bytes), or both.

    Raises:
        InputError: ``passphrase-too-short``, ``no-unlock-method``.
    """
    if passphrase and len(passphrase) < PASSPHRASE_MIN_LENGTH:
        raise InputError(
            "passphrase-too-short",
            f"A passphrase needs at least {PASSPHRASE_MIN_LENGTH} characters.",
            hint="Four or five random words are easy to remember and hard to guess.",
        )
    if not passphrase and not credential:
        raise InputError("no-unlock-method", "An identity needs a passphrase or a credential file to seal it.")
    argon = argon or Argon()
    public = Identity(seed).public.hex()
    key = random_bytes(32)
    slots: list[_Slot] = []
    for kind, secret in (("passphrase", passphrase), ("credential", credential)):
        if secret:
            salt = random_bytes(16)
            opener = _stretch(secret, salt, argon) if isinstance(secret, str) else secret
            wrapped = _wrap(opener, key, public, kind, b64encode(salt), random_bytes=random_bytes)
            slots.append(_Slot(kind=kind, salt=b64encode(salt), wrapped=wrapped, argon=argon))
    return Sealed(format=_FORMAT, public=public, seed=_wrap(key, seed, public, "seed", random_bytes=random_bytes), slots=slots)


def load(data: bytes) -> Sealed:
    """Parse a sealed identity; raises IntegrityError ``key-file-damaged``."""
    try:
        sealed = msgspec.convert(parse_json(data), Sealed, strict=True)
        bytes.fromhex(sealed.public)
    except (IntegrityError, msgspec.ValidationError, ValueError):
        raise _damaged() from None
    if sealed.format != _FORMAT or not all(_bounded(slot.argon) for slot in sealed.slots):
        raise _damaged()
    return sealed


def _bounded(argon: Argon) -> bool:
    return 8 <= argon.memory_kib <= 1 << 21 and 1 <= argon.passes <= 16 and 1 <= argon.lanes <= 16


def _damaged() -> IntegrityError:
    return IntegrityError(
        "key-file-damaged",
        "The sealed identity is damaged and cannot be read.",
        hint="Restore it with `labxchange key restore` from your backup.",
    )


def unseal(sealed: Sealed, *, passphrase: str = "", credential: bytes = b"") -> bytes:
    """The seed.

    Raises:
        InputError: ``passphrase-wrong``, ``credential-wrong``, ``no-unlock-method``.
        IntegrityError: ``key-file-damaged``.
    """
    kind = "credential" if credential else "passphrase"
    slot = next((slot for slot in sealed.slots if slot.kind == kind), None)
    if slot is None:
        raise InputError("no-unlock-method", f"This identity was not sealed with a {kind}.")
    try:
        opener = credential or _stretch(passphrase, b64decode(slot.salt), slot.argon)
        key = _unwrap(opener, slot.wrapped, sealed.public, kind, slot.salt)
    except (InvalidTag, ValueError):
        raise InputError(
            f"{kind}-wrong", f"The {kind} does not open this identity.", hint="Nothing was changed; try again."
        ) from None
    except IntegrityError:
        raise _damaged() from None
    try:
        seed = _unwrap(key, sealed.seed, sealed.public, "seed")
    except (InvalidTag, ValueError, IntegrityError):
        raise _damaged() from None
    if len(seed) != SEED_BYTES or Identity(seed).public.hex() != sealed.public:
        raise _damaged()
    return seed
