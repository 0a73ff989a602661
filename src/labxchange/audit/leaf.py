"""A leaf: the exact bytes of one entry in the tree, and the openings kept beside it.

The life of a leaf: an ``Entry`` gets its place, time and scope counters; the open fields are written as they are, every other
field as ``{"c": commitment}`` with a fresh salt; the bytes are hashed, stored verbatim and never written again. An opening
(salt and value) is sealed under its subject's key by the store; without it the leaf still verifies, and says nothing.
Rules: leaf bytes are strict JSON of at most 65,535 bytes; a commitment is never reused; parsing gives a ``Parsed`` or raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Annotated

import msgspec

from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.audit.scope import ScopeCount
from labxchange.encoding import JSON_MAX_INTEGER, b64encode, dump_json, frame, parse_json
from labxchange.errors import InputError, IntegrityError
from labxchange.merkle import leaf_hash

LEAF_MAX_BYTES = 65_535
LEAF_VERSION = 1
SALT_BYTES = 32

_Count = Annotated[int, msgspec.Meta(ge=0, le=JSON_MAX_INTEGER)]
_Short = Annotated[str, msgspec.Meta(max_length=200)]


class Opening(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What opens one committed field: the salt, and the value as the UTF-8 bytes of its JSON text."""

    name: str
    subject: str
    salt: bytes
    value: bytes


class Leaf(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bytes to store verbatim, and the openings to seal under their subjects' keys."""

    data: bytes
    openings: tuple[Opening, ...]

    @property
    def hash(self) -> bytes:
        """RFC 6962 leaf hash."""
        return leaf_hash(self.data)


class _Commitment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    c: str


class Parsed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The open fields of a leaf and its commitments, in the order in which they are written."""

    v: int
    seq: _Count
    id: _Short
    origin: Annotated[str, msgspec.Meta(max_length=300)]
    utc_ms: _Count
    monotonic_ms: _Count
    clock: _Short
    event: _Short
    object_type: _Short
    result: _Short
    result_code: _Short
    software: _Short
    scopes: Annotated[tuple[ScopeCount, ...], msgspec.Meta(max_length=16)]
    heads: Annotated[tuple[ScopeCount, ...], msgspec.Meta(max_length=500)] = ()
    fields: dict[str, _Commitment]


def commitment(name: str, *, salt: bytes, value: bytes) -> str:
    """Base64 of SHA-256(F("labxchange field v1", salt, name, value))."""
    return b64encode(sha256(frame("labxchange field v1", salt, name, value)).digest())


def build(
    entry: Entry,
    *,
    seq: int,
    id: str,  # noqa: A002  the field's name
    origin: str,
    utc_ms: int,
    local: str,
    monotonic_ms: int,
    clock_source: str,
    software: str,
    scopes: Sequence[ScopeCount],
    salts: Callable[[], bytes],
    heads: Sequence[ScopeCount] = (),
) -> Leaf:
    """Write ``entry`` as leaf ``seq``.

    Args:
        local: local time with offset and zone; committed, empty on a locked node.
        monotonic_ms: counts up within a run of the node; starts again at ``system.started``.
        scopes: this entry's tags and counters, one for each of ``entry.scopes``.
        salts: gives 32 fresh random bytes at each call.
        heads: for ``trail.scope-heads`` only: the newest counter of each scope named by the export.

    Raises:
        InputError: ``entry-invalid``, ``entry-too-large``.
    """
    if len(scopes) != len(entry.scopes):
        raise InputError("entry-invalid", "An entry needs one counter for each of its scopes.")
    if heads and entry.event is not Event.TRAIL_SCOPE_HEADS:
        raise InputError("entry-invalid", "Only an entry of scope heads names heads.")
    fields: dict[str, dict[str, str]] = {}
    openings: list[Opening] = []
    for name, subject, value in entry.committed(local=local):
        salt = salts()
        if len(salt) != SALT_BYTES:
            raise ValueError("a salt has 32 bytes")
        fields[name] = {"c": commitment(name, salt=salt, value=value)}
        openings.append(Opening(name=name, subject=subject, salt=salt, value=value))
    body: dict[str, object] = {
        "v": LEAF_VERSION,
        "seq": seq,
        "id": id,
        "origin": origin,
        "utc_ms": utc_ms,
        "monotonic_ms": monotonic_ms,
        "clock": clock_source,
        "event": entry.event.value,
        "object_type": entry.object_type,
        "result": entry.result,
        "result_code": entry.result_code,
        "software": software,
        "scopes": [{"tag": item.tag, "counter": item.counter} for item in scopes],
    }
    if heads:
        body["heads"] = [{"tag": item.tag, "counter": item.counter} for item in heads]
    body["fields"] = fields
    data = dump_json(body)
    if len(data) > LEAF_MAX_BYTES:
        raise InputError("entry-too-large", "An entry of the audit trail is too large to be written.")
    return Leaf(data=data, openings=tuple(openings))


def parse(data: bytes) -> Parsed:
    """Read a leaf.

    Raises:
        IntegrityError: ``malformed-json``, ``malformed-leaf``, ``unsupported-version``.
    """
    raw = parse_json(data, max_bytes=LEAF_MAX_BYTES)
    if raw.get("v") != LEAF_VERSION:
        raise IntegrityError(
            "unsupported-version",
            "An entry of the audit trail has a version that this software does not know.",
            hint="Update labxchange on this machine.",
        )
    try:
        return msgspec.convert(raw, Parsed, strict=True)
    except msgspec.ValidationError as error:
        raise IntegrityError("malformed-leaf", f"An entry of the audit trail is malformed: {error}.") from None


def check_opening(leaf: Parsed, name: str, *, salt: bytes, value: bytes) -> bool:
    """True when the salt and value are what the leaf committed to under ``name``."""
    committed = leaf.fields.get(name)
    return committed is not None and len(salt) == SALT_BYTES and committed.c == commitment(name, salt=salt, value=value)


def opened_value(value: bytes) -> str | dict[str, str | int]:
    """The text or details object that an opened value holds; raises IntegrityError ``malformed-opening``."""
    try:
        wrapped = parse_json(b'{"value":' + value + b"}", max_bytes=LEAF_MAX_BYTES)
        return msgspec.convert(wrapped, dict[str, str | dict[str, str | int]], strict=True)["value"]
    except (IntegrityError, msgspec.ValidationError, KeyError):
        raise IntegrityError("malformed-opening", "The value of an opened field is malformed.") from None
