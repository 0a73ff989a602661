"""Signed statements: what one party says to another and can be held to.

A statement is a DSSE envelope with exactly one Ed25519 signature over strict JSON. Rules kept here: the signature is checked
over the received bytes, before the payload is parsed; the key is the payload's ``issuer``; unknown fields, kinds and versions
are refused; nothing is signed that the other side would not read; the only name of a statement is ``id`` = SHA-256 of its
pre-authentication encoding. Who the issuer is, and what they may say, is left to the callers.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Annotated, ClassVar, Generic, TypeVar

import msgspec

from labxchange.encoding import JSON_MAX_BYTES, JSON_MAX_INTEGER, b64decode, b64encode, dump_json, parse_json
from labxchange.errors import InputError, IntegrityError
from labxchange.identity.keys import Identity, verify

Key = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}\\Z")]
"""An Ed25519 public key in lowercase hex."""
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}\\Z")]
"""A 32-byte digest or statement id in lowercase hex."""
MaybeDigest = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?\\Z")]
"""A digest, or empty where it is not known yet."""
ShortId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}\\Z")]
"""A random 16-byte id in lowercase hex."""
Text = Annotated[str, msgspec.Meta(max_length=1000)]
Count = Annotated[int, msgspec.Meta(ge=0, le=JSON_MAX_INTEGER)]
"""A non-negative integer; milliseconds since 1970 UTC where it is a time."""

_TYPE = "application/vnd.labxchange.{}.v{}+json"
_ENVELOPE_MAX_BYTES = 2 * JSON_MAX_BYTES
_FIELD = re.compile(r"\$\.([a-z_]+)")


class Statement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every kind has: who says it (identity key) and when (UTC milliseconds, the issuer's clock)."""

    kind: ClassVar[str]
    number: ClassVar[int] = 1

    issuer: Key
    issued: Count


B = TypeVar("B", bound=Statement)


class Signed(msgspec.Struct, Generic[B], frozen=True, kw_only=True):
    """A statement whose signature was checked: its id, its body, and the envelope's exact bytes."""

    id: str
    body: B
    envelope: bytes


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """DSSE's PAE: the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(body: B, identity: Identity) -> Signed[B]:
    """Sign ``body`` with the identity key, which must be its issuer's.

    Raises:
        InputError: ``statement-invalid``: ``parse`` would refuse it.
    """
    if body.issuer != identity.public.hex():
        raise ValueError("a statement is signed by its issuer")
    payload_type = _TYPE.format(body.kind, body.number)
    payload = _payload(body)
    pae = pre_authentication(payload_type, payload)
    envelope = {
        "payload": b64encode(payload),
        "payloadType": payload_type,
        "signatures": [{"sig": b64encode(identity.sign(pae))}],
    }
    return Signed(id=sha256(pae).hexdigest(), body=body, envelope=dump_json(envelope))


def _payload(body: Statement) -> bytes:
    """The bytes to sign, read back as the other side will read them."""
    try:
        payload = dump_json(msgspec.to_builtins(body))
        msgspec.convert(parse_json(payload), type(body), strict=True)
    except IntegrityError as error:
        raise InputError("statement-invalid", f"This {body.kind} cannot be signed. {error.message}") from None
    except UnicodeEncodeError:
        raise InputError("statement-invalid", f"This {body.kind} cannot be signed: a text in it is not Unicode.") from None
    except msgspec.ValidationError as error:
        field = _FIELD.search(str(error))
        name = f"its {field[1].replace('_', ' ')}" if field else "it"
        raise InputError(
            "statement-invalid",
            f"This {body.kind} cannot be signed: {name} is too long, too large or malformed.",
            hint="A text has at most 1,000 characters, a title 200, a study, site or category 100.",
        ) from None
    return payload


def _open(envelope: bytes) -> tuple[str, bytes, bytes]:
    outer = parse_json(envelope, max_bytes=_ENVELOPE_MAX_BYTES)
    payload_type, payload, signatures = outer.get("payloadType"), outer.get("payload"), outer.get("signatures")
    well_formed = (
        set(outer) == {"payloadType", "payload", "signatures"}
        and isinstance(payload_type, str)
        and isinstance(payload, str)
        and isinstance(signatures, list)
        and len(signatures) == 1
        and isinstance(signatures[0], dict)
        and set(signatures[0]) == {"sig"}
        and isinstance(signatures[0]["sig"], str)
    )
    if not well_formed:
        raise IntegrityError("malformed-statement", "A signed statement is not an envelope with one signature.")
    assert isinstance(payload_type, str)
    assert isinstance(payload, str)
    assert isinstance(signatures, list)
    return payload_type, b64decode(payload), b64decode(signatures[0]["sig"])


def peek_kind(envelope: bytes) -> str:
    """The kind an envelope claims, unverified; raises IntegrityError ``malformed-statement``."""
    payload_type, _, _ = _open(envelope)
    prefix, suffix = _TYPE.split("{}.v{}")
    if not (payload_type.startswith(prefix) and payload_type.endswith(suffix)):
        raise IntegrityError("malformed-statement", "A signed statement is of no kind that labxchange knows.")
    return payload_type[len(prefix) : -len(suffix)].rpartition(".v")[0]


def parse(envelope: bytes, kind: type[B]) -> Signed[B]:
    """Verify and parse an envelope that must hold a statement of ``kind``.

    Raises:
        IntegrityError: ``malformed-json``, ``malformed-statement``, ``malformed-base64``, ``wrong-kind``,
            ``unsupported-version``, ``bad-signature``.
    """
    payload_type, payload, signature = _open(envelope)
    if payload_type != _TYPE.format(kind.kind, kind.number):
        if payload_type.startswith(_TYPE.split("{}")[0] + kind.kind + ".v"):
            raise IntegrityError(
                "unsupported-version",
                f"A {kind.kind} statement has a version that this software does not know.",
                hint="Update labxchange on this machine.",
            )
        raise IntegrityError("wrong-kind", f"A signed statement is not a {kind.kind}.")
    fields = parse_json(payload)
    pae = pre_authentication(payload_type, payload)
    issuer = fields.get("issuer")
    try:
        public = bytes.fromhex(issuer) if isinstance(issuer, str) else b""
    except ValueError:
        public = b""
    if not verify(public, signature, pae):
        raise IntegrityError("bad-signature", f"The signature of a {kind.kind} statement does not verify.")
    try:
        body = msgspec.convert(fields, kind, strict=True)
    except msgspec.ValidationError as error:
        raise IntegrityError("malformed-statement", f"A {kind.kind} statement is malformed: {error}.") from None
    return Signed(id=sha256(pae).hexdigest(), body=body, envelope=envelope)
