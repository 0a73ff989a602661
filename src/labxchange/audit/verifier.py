"""Check an exported audit trail (``.labxtrail``) offline: one file, Python's standard library and ``cryptography``.

    python verifier.py TRAIL.labxtrail --trust OWNER-FINGERPRINT --trust COUNTERPARTY-FINGERPRINT

The strategy: read the file once, line by line, keeping the right edge of the Merkle tree, the keys, the counters and what was
promised, never the entries. Each rule is one method; a broken rule is a ``Reason`` that names the entry and the line. Damage
that makes the rest unreadable stops the reading; of the other reasons the first hundred for each verdict are collected.

The five verdicts, the worst that applies:
- INVALID: the file contradicts itself, a signature, or its own form: nothing in it can be relied on.
- DIVERGED: the owner signed two different histories, or fewer entries than somebody saw before.
- INCOMPLETE: all that is shown is genuine, and something that must be there is not: entries lost by a restore, the
  counterparty's receipt of a finished transfer, entries of a disclosed scope.
- VALID-UNANCHORED: genuine and complete, but nobody whom you trust apart from the owner has confirmed it.
- VALID: genuine, complete, and cosigned by a counterparty whose fingerprint you gave.

It never uses the network or the clock, and shares no code with the rest of labxchange, so that a fault there is not repeated
here. The format is ``docs/spec/audit.md``. Never run a verifier that came inside a file you want to check.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import io
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, BinaryIO, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT = "labxtrail"
VERSION = 1
LINE_MAX_BYTES = 262_144
LEAF_MAX_BYTES = 65_535
STATEMENT_MAX_BYTES = 65_536
NOTE_MAX_BYTES = 16_384
INTEGER_MAX = 2**53 - 1
REASONS_MAX = 100
PARTIES_MAX = 10_000
KEYS_MAX = 64
SEEN_MAX = 100_000
TAGS_MAX = 1_000_000
DEPTH_MAX = 8

EMPTY_ROOT = hashlib.sha256(b"").digest()


class Verdict(StrEnum):
    """What can be said of a file, from best to worst."""

    VALID = "VALID"
    UNANCHORED = "VALID-UNANCHORED"
    INCOMPLETE = "INCOMPLETE"
    DIVERGED = "DIVERGED"
    INVALID = "INVALID"


EXIT_CODES = {Verdict.VALID: 0, Verdict.UNANCHORED: 10, Verdict.INCOMPLETE: 11, Verdict.DIVERGED: 12, Verdict.INVALID: 13}
_ORDER = list(Verdict)


class VerifierError(Exception):
    """The question cannot be asked: the file cannot be opened, or a given fingerprint is mistyped."""


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why the verdict is not better: a stable code, a sentence, and the entry (seq) and line (from 1) where they are known."""

    verdict: Verdict
    code: str
    text: str
    entry: int | None = None
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was found.

    ``anchored`` is the number of first entries confirmed by the newest cosignature of a trusted counterparty, and ``tail`` how
    many came after it: only the owner's word stands for those. ``claims`` and ``notes`` are sentences for a person.
    """

    verdict: Verdict
    reasons: tuple[Reason, ...]
    claims: tuple[str, ...]
    notes: tuple[str, ...]
    owner: str
    owner_name: str
    origin: str
    exported_ms: int
    size: int
    shown: int
    lines: int
    checkpoints: int
    cosignatures: int
    anchored: int
    anchored_at_s: int
    anchored_by: tuple[str, ...]
    tail: int
    missing: int
    completed: int
    openings: int
    withheld: int


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What others hold about a trail: signed cards of its owner (DSSE envelopes) and signed checkpoints (notes), as texts."""

    cards: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class _Malformed(Exception):
    """A text is not what it must be; becomes a Reason where the line is known."""


class _Stop(Exception):
    """The rest of the file cannot be read."""


# --- texts, encodings and hashes


def printable(text: str) -> str:
    """``text`` without anything that steers a terminal or reorders letters."""
    return "".join(letter if letter.isprintable() else f"\\u{{{ord(letter):x}}}" for letter in text)


def _frame(*parts: bytes) -> bytes:
    return b"".join([piece for part in parts for piece in (len(part).to_bytes(4, "big"), part)])


_FIELD = _frame(b"labxchange field v1")
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_decode = json.JSONDecoder().decode


def _base64(text: object, length: int | None = None) -> bytes:
    if not isinstance(text, str):
        raise _Malformed("a field is not base64")
    try:
        data = binascii.a2b_base64(text)
    except ValueError:
        raise _Malformed("a field is not base64") from None
    if _to_base64(data) != text or (length is not None and len(data) != length):
        raise _Malformed("a field is not base64 of the right length")
    return data


def _to_base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def _hex32(text: object) -> bytes:
    if not isinstance(text, str) or re.fullmatch("[0-9a-f]{64}", text) is None:
        raise _Malformed("a field is not 32 bytes in hex")
    return bytes.fromhex(text)


def _object(data: bytes) -> dict[str, Any]:
    """A JSON object in its one spelling - no spaces, strings escaped as in RFC 8785 - so that no key can be there twice."""
    try:
        value = _decode(data.decode())
        if not isinstance(value, dict) or _encode(value).encode() != data:
            raise _Malformed("it is not JSON in its one spelling")
    except (ValueError, RecursionError):
        raise _Malformed("it is not JSON") from None
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is there twice")
    return value


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not allowed")


def _integer(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > INTEGER_MAX:
        raise ValueError("an integer is too large")
    return int(text)


def _strict(data: bytes) -> dict[str, Any]:
    """A strict JSON object of a signed statement: no duplicate keys, fractions, nulls, large integers or deep nesting."""
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=_once, parse_int=_integer, parse_float=_refuse, parse_constant=_refuse
        )
        _check_strict(value, 1)
    except (ValueError, RecursionError):
        raise _Malformed("it is not strict JSON") from None
    if not isinstance(value, dict):
        raise _Malformed("it is not a JSON object")
    return value


def _check_strict(value: object, depth: int) -> None:
    if value is None or depth > DEPTH_MAX:
        raise ValueError("null or too deep")
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict):
        for key, item in value.items():
            key.encode()
            _check_strict(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_strict(item, depth + 1)


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value <= INTEGER_MAX:
        raise _Malformed("a number is not an integer in range")
    return value


def _text(value: object, limit: int = 1000) -> str:
    if not isinstance(value, str) or len(value) > limit:
        raise _Malformed("a field is not a text of the right length")
    return value


def _keys(value: object, *names: str) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != set(names):
        raise _Malformed(f"it has not exactly the fields {', '.join(names)}")
    return value


def _verify(public: bytes, signature: bytes, data: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


def _check_letter(part: str) -> str:
    total = 0
    for position, letter in enumerate(reversed(part)):
        value = _LETTERS.index(letter) * (2 if position % 2 == 0 else 1)
        total += value // 32 + value % 32
    return _LETTERS[-total % 32]


def _grouped(letters: str) -> str:
    return "-".join(letters[i : i + 7] for i in range(0, len(letters), 7))


def fingerprint(public: bytes) -> str:
    """The fingerprint of an identity key."""
    letters = base64.b32encode(hashlib.sha256(b"labxchange id v1" + public).digest()).decode().rstrip("=")
    parts = [letters[i : i + 13] for i in range(0, 52, 13)]
    return _grouped("".join(part + _check_letter(part) for part in parts))


def parse_fingerprint(text: str) -> str:
    """The canonical form of a typed fingerprint; raises VerifierError when a letter is wrong."""
    letters = "".join(text.split()).replace("-", "").upper().translate(str.maketrans("018", "OIB"))
    parts = [letters[i : i + 14] for i in range(0, len(letters), 14)]
    if len(letters) != 56 or set(letters) - set(_LETTERS) or any(_check_letter(part[:-1]) != part[-1] for part in parts):
        raise VerifierError(f"{printable(text)!r} is not a fingerprint, or a letter of it is wrong.")
    return _grouped(letters)


class _Tree:
    """The right edge of an RFC 6962 tree: (level, hash) of its complete subtrees, highest first."""

    def __init__(self) -> None:
        self.size = 0
        self._edge: list[tuple[int, bytes]] = []

    def append(self, level: int, value: bytes) -> None:
        self.size += 1 << level
        while self._edge and self._edge[-1][0] == level:
            value = hashlib.sha256(b"\x01" + self._edge.pop()[1] + value).digest()
            level += 1
        self._edge.append((level, value))

    def root(self) -> bytes:
        if not self._edge:
            return EMPTY_ROOT
        value = self._edge[-1][1]
        for _, left in reversed(self._edge[:-1]):
            value = hashlib.sha256(b"\x01" + left + value).digest()
        return value


# --- signed notes (C2SP signed-note, tlog-checkpoint, tlog-cosignature)

_ORIGIN = re.compile(r"labxchange/([A-Z2-7]{7}(?:-[A-Z2-7]{7}){7})/([1-9][0-9]{0,15})")
_COSIGNER = re.compile(r"labxchange/([A-Z2-7]{7}(?:-[A-Z2-7]{7}){7})/cosign")
_SIZE = re.compile(r"0|[1-9][0-9]{0,15}")


@dataclass(frozen=True)
class _Origin:
    fingerprint: str
    epoch: int
    text: str


@dataclass(frozen=True)
class _Line:
    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True)
class _Note:
    origin: _Origin
    size: int
    root: bytes
    body: bytes
    lines: tuple[_Line, ...]


def _origin(text: object) -> _Origin:
    match = _ORIGIN.fullmatch(text) if isinstance(text, str) else None
    if match is None or int(match[2]) > INTEGER_MAX:
        raise _Malformed("an origin is not one of labxchange")
    return _Origin(match[1], int(match[2]), match[0])


def _signature_line(text: str) -> _Line:
    dash, _, rest = text.partition(" ")
    name, _, encoded = rest.partition(" ")
    if dash != "—" or not name or "+" in name or name.split() != [name]:
        raise _Malformed("a signature line has not the form of a note")
    raw = _base64(encoded)
    if len(raw) < 5:
        raise _Malformed("a signature is too short")
    return _Line(name, raw[:4], raw[4:])


def _note(text: object) -> _Note:
    if not isinstance(text, str) or len(text) > NOTE_MAX_BYTES or any(ord(c) < 0x20 and c != "\n" for c in text):
        raise _Malformed("a note is too long or holds control characters")
    body, separator, tail = text.rpartition("\n\n")
    lines = body.split("\n")
    if not separator or len(lines) != 3 or not tail.endswith("\n"):
        raise _Malformed("a checkpoint has not exactly three lines and signatures")
    if _SIZE.fullmatch(lines[1]) is None or int(lines[1]) > INTEGER_MAX:
        raise _Malformed("the size of a checkpoint is not a number")
    signatures = tuple(_signature_line(line) for line in tail[:-1].split("\n")[: KEYS_MAX + 1])
    if len(signatures) > KEYS_MAX:
        raise _Malformed("a note has too many signatures")
    return _Note(_origin(lines[0]), int(lines[1]), _base64(lines[2], 32), f"{body}\n".encode(), signatures)


def _key_id(name: str, kind: int, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:4]


def _signed_by(note: _Note, keys: Sequence[bytes]) -> bool:
    """Is the note signed by one of these trail keys, and by none of them wrongly?"""
    good = False
    for public in keys:
        wanted = _key_id(note.origin.text, 0x01, public)
        for line in note.lines:
            if line.name == note.origin.text and line.key_id == wanted:
                if not _verify(public, line.signature, note.body):
                    return False
                good = True
    return good


def _cosigned_at(note: _Note, line: _Line, keys: Sequence[bytes]) -> int | None:
    """The time of a cosignature by one of these keys; None when it does not verify."""
    for public in keys:
        if line.key_id == _key_id(line.name, 0x04, public) and len(line.signature) == 72:
            time_s = int.from_bytes(line.signature[:8], "big")
            message = f"cosignature/v1\ntime {time_s}\n".encode() + note.body
            if time_s < 1 << 63 and _verify(public, line.signature[8:], message):
                return time_s
    return None


# --- signed statements (DSSE)

_TYPE = re.compile(r"application/vnd\.labxchange\.([a-z-]{1,40})\.v([1-9][0-9]{0,8})\+json")


@dataclass(frozen=True)
class _Statement:
    kind: str
    id: str
    issuer: bytes
    payload: dict[str, Any]


def _statement(envelope: object) -> _Statement:
    if not isinstance(envelope, str):
        raise _Malformed("a statement is not a text")
    outer = _keys(_strict(envelope.encode("utf-8", "surrogatepass")), "payload", "payloadType", "signatures")
    signatures = outer["signatures"]
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise _Malformed("a statement has not exactly one signature")
    signature = _base64(_keys(signatures[0], "sig")["sig"], 64)
    payload_type = outer["payloadType"]
    match = _TYPE.fullmatch(payload_type) if isinstance(payload_type, str) else None
    if match is None:
        raise _Malformed("a statement is of no known form")
    if match[2] != "1":
        raise _Malformed(f"a {match[1]} statement has version {match[2]}: use a newer verifier")
    payload = _base64(outer["payload"])
    if len(payload) > STATEMENT_MAX_BYTES:
        raise _Malformed("a statement is too long")
    fields = _strict(payload)
    issuer = _hex32(fields.get("issuer"))
    pae = b"DSSEv1 %d %b %d %b" % (len(match[0]), match[0].encode(), len(payload), payload)
    if not _verify(issuer, signature, pae):
        raise _Malformed(f"the signature of a {match[1]} statement does not verify")
    return _Statement(match[1], hashlib.sha256(pae).hexdigest(), issuer, fields)


# --- the state of one reading


@dataclass
class _Party:
    """What the signed cards of one identity key say."""

    name: str
    organisation: str
    trail_keys: list[bytes] = field(default_factory=list)
    cosign_keys: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class _Scope:
    kind: str
    name: str
    tag: str
    first: int
    last: int


@dataclass(frozen=True)
class _Start:
    """A new epoch that began with ``held`` entries, after a restore or with the owner's next key."""

    held: int
    epoch: int
    restored: bool


@dataclass(frozen=True)
class _Seen:
    """A signed checkpoint of this trail that came from elsewhere than its place in the file."""

    note: _Note
    line: int | None


_LEAF_KEYS = {
    "v", "seq", "id", "origin", "utc_ms", "monotonic_ms", "clock", "event", "object_type", "result", "result_code", "software",
    "scopes", "fields",
}  # fmt: skip
_PHASES = {
    "index": 0, "card": 1, "key": 1, "seen": 2, "statement": 3,
    "leaf": 4, "hash": 4, "subtree": 4, "checkpoint": 4, "cosignature": 4, "end": 5,
}  # fmt: skip
_NEW_EPOCH = {"trail.restored", "key.rotated"}
_NEW_RUN = {"system.started", "trail.restored"}
_PROOF_OF_COMPLETION = {"receipt", "receipt-ack"}


class _Reading:
    """One pass over one file."""

    def __init__(self, *, trust: frozenset[str], evidence: Evidence) -> None:
        self.trust = trust
        self.evidence = evidence
        self.reasons: list[Reason] = []
        self.counted: dict[Verdict, int] = {}
        self.notes: list[str] = []
        self.claims: list[str] = []
        self.line = 0
        self.phase = -1
        self.digest = hashlib.sha256()
        self.ended = False

        self.origin: _Origin | None = None
        self.excerpt = False
        self.declared_size = 0
        self.declared_shown = 0
        self.exported_ms = 0
        self.scopes: dict[str, _Scope] = {}

        self.parties: dict[str, _Party] = {}
        self.cards: dict[str, list[str]] = {}
        self.owner = ""
        self.owners: dict[str, bytes] = {}
        self.about_others: list[str] = []
        self.others_heads: dict[tuple[str, int], bytes] = {}
        self.pending: dict[int, list[_Seen]] = {}
        self.pending_count = 0
        self.unmet: list[_Seen] = []
        self.completions: dict[str, set[bytes]] = {}
        self.statements: dict[str, dict[str, tuple[str, str]]] = {}

        self.tree = _Tree()
        self.shown = 0
        self.at: _Origin | None = None
        self.previous_shown = False
        self.previous_monotonic = 0
        self.previous_utc = 0
        self.backward = 0
        self.counters: dict[str, int] = {}
        self.heads: dict[str, int] = {}
        self.starts: list[_Start] = []
        self.mismatches: list[tuple[int, int, str]] = []
        self.note: _Note | None = None
        self.note_matches = False
        self.good_size = 0
        self.checkpoints = 0
        self.cosignatures = 0
        self.strangers: set[str] = set()
        self.anchored = 0
        self.anchored_at_s = 0
        self.anchored_by: set[str] = set()
        self.missing = 0
        self.completed = 0
        self.unlinked = 0
        self.openings = 0
        self.withheld = 0

    # --- reasons

    def add(self, verdict: Verdict, code: str, text: str, *, entry: int | None = None, line: int | None = None) -> None:
        """Count a reason; of each verdict the first hundred are kept, so that many small ones cannot hide a grave one."""
        self.counted[verdict] = self.counted.get(verdict, 0) + 1
        if self.counted[verdict] <= REASONS_MAX:
            at = line if line is not None else self.line
            self.reasons.append(Reason(verdict=verdict, code=code, text=printable(text), entry=entry, line=at or None))

    def invalid(self, code: str, text: str, *, entry: int | None = None) -> None:
        self.add(Verdict.INVALID, code, text, entry=entry)

    def stop(self, code: str, text: str, *, entry: int | None = None) -> NoReturn:
        self.invalid(code, text, entry=entry)
        raise _Stop

    # --- lines

    def read(self, stream: BinaryIO) -> None:
        try:
            while data := stream.readline(LINE_MAX_BYTES + 1):
                self.take(data)
            if not self.ended:
                self.line += 1
                self.stop("cut-short", f"the file ends before its last line, after entry {self.tree.size - 1}")
        except _Stop:
            pass

    def take(self, data: bytes) -> None:
        self.line += 1
        if self.ended:
            self.stop("after-the-end", "the file goes on after its last line")
        if not data.endswith(b"\n"):
            code = "line-too-long" if len(data) > LINE_MAX_BYTES else "cut-short"
            where = f"in or after entry {self.tree.size}" if self.phase >= 4 else "before the first entry"
            self.stop(code, f"line {self.line} is {code.removeprefix('line-').replace('-', ' ')}, {where}")
        entry = self.tree.size if self.phase >= 4 else None
        try:
            value = _object(data[:-1])
            kind = value.pop("t", None)
            phase = _PHASES.get(kind, -1) if isinstance(kind, str) else -1
            if phase < 0 or phase < self.phase or (phase == 0) != (self.phase == -1):
                raise _Malformed("it is not of a kind that can stand here")
            self.enter(phase)
            if kind == "end":
                self.end(value)
            else:
                self.digest.update(data)
                _HANDLERS[str(kind)](self, value)
        except _Malformed as error:
            self.stop("malformed-line", f"line {self.line}: {error}", entry=entry)

    def enter(self, phase: int) -> None:
        if self.phase < 2 <= phase:
            self.judge_owner()
        if phase == 4 and self.phase < 4:
            self.add_evidence()
        self.phase = phase

    # --- index, cards, keys

    def index(self, value: dict[str, Any]) -> None:
        _keys(
            value, "format", "version", "about", "origin", "owner", "entries", "shown", "excerpt", "scopes", "filter",
            "exported_ms", "exported", "software",
        )  # fmt: skip
        if value["format"] != FORMAT or _count(value["version"]) != VERSION:
            raise _Malformed("it is not a labxtrail file of a version that this verifier knows")
        self.origin = _origin(value["origin"])
        owner = _keys(value["owner"], "name", "organisation", "fingerprint")
        if _text(owner["fingerprint"]) != self.origin.fingerprint:
            raise _Malformed("its owner is not the one of its origin")
        for text in (value["about"], value["exported"], value["software"], owner["name"], owner["organisation"]):
            _text(text)
        self.declared_size, self.declared_shown = _count(value["entries"]), _count(value["shown"])
        self.exported_ms = _count(value["exported_ms"])
        types = {"excerpt": bool, "filter": dict, "scopes": list}
        if not all(isinstance(value[name], kind) for name, kind in types.items()):
            raise _Malformed("its fields have wrong types")
        self.excerpt = value["excerpt"]
        for item in value["scopes"][: KEYS_MAX + 1]:
            _keys(item, "kind", "name", "key", "first", "last")
            kind, name, key = _text(item["kind"]), _text(item["name"], LEAF_MAX_BYTES), _base64(item["key"], 32)
            message = _frame(b"labxchange scope v1", key, kind.encode(), name.encode())
            tag = hashlib.sha256(message).digest()[:16].hex()
            self.scopes[tag] = _Scope(kind, name, tag, _count(item["first"]), _count(item["last"]))
        if len(self.scopes) != len(value["scopes"]):
            raise _Malformed("it names too many scopes, or one twice")

    def card(self, value: dict[str, Any]) -> None:
        _keys(value, "role", "envelope")
        statement = _statement(value["envelope"])
        if statement.kind != "card":
            raise _Malformed("it is not a card")
        mark = fingerprint(statement.issuer)
        if value["role"] == "owner":
            if not self.owner:
                self.owner = mark
                self.owners[mark] = statement.issuer
            if mark not in self.owners:
                raise _Malformed("the card of the owner is of a key that no earlier key names as its successor")
        elif value["role"] != "counterparty" or mark in self.owners or not self.owner:
            raise _Malformed("the role of a card is wrong")
        self.know(mark, statement, value["envelope"])

    def know(self, mark: str, statement: _Statement, envelope: str) -> None:
        payload = statement.payload
        if mark not in self.parties and len(self.parties) >= PARTIES_MAX:
            raise _Malformed("there are too many cards")
        party = self.parties.setdefault(mark, _Party(_text(payload.get("name")), _text(payload.get("organisation"))))
        for keys, name in ((party.trail_keys, "trail_key"), (party.cosign_keys, "cosign_key")):
            key = _hex32(payload.get(name))
            if key not in keys:
                keys.append(key)
            if len(keys) > KEYS_MAX:
                raise _Malformed("a party has too many keys")
        kept = self.cards.setdefault(mark, [])
        if len(kept) < KEYS_MAX and envelope not in kept:
            kept.append(envelope)

    def key(self, value: dict[str, Any]) -> None:
        _keys(value, "previous", "next", "previous_signature", "next_signature")
        previous, following = _hex32(value["previous"]), _hex32(value["next"])
        message = _frame(b"labxchange successor v1", previous, following)
        if fingerprint(previous) not in self.owners or len(self.owners) >= KEYS_MAX:
            raise _Malformed("a key is the successor of no key of the owner")
        for public, name in ((previous, "previous_signature"), (following, "next_signature")):
            if not _verify(public, _base64(value[name], 64), message):
                raise _Malformed("a succession of keys is not signed by both keys")
        self.owners[fingerprint(following)] = following

    def judge_owner(self) -> None:
        if self.origin is None or self.origin.fingerprint not in self.owners or self.origin.fingerprint not in self.parties:
            self.stop("no-owner-card", "the file does not hold the signed card of the owner that it names")
        if self.trust and not self.trust & self.owners.keys():
            self.invalid("owner-not-trusted", f"the owner {self.owner} is not among the fingerprints that you trust")

    # --- what was seen elsewhere

    def add_evidence(self) -> None:
        """Cards and checkpoints of this trail that came from another file."""
        for envelope in self.evidence.cards:
            try:
                statement = _statement(envelope)
                mark = fingerprint(statement.issuer)
                if statement.kind == "card" and mark in self.owners:
                    self.know(mark, statement, envelope)
            except _Malformed:
                self.notes.append("A card given as evidence is malformed and was not used.")
        for text in self.evidence.notes:
            try:
                note = _note(text)
            except _Malformed as error:
                self.notes.append(f"A checkpoint given as evidence is malformed and was not used: {error}.")
                continue
            if note.origin.fingerprint not in self.owners:
                self.notes.append("A checkpoint given as evidence is of another trail and was not used.")
            elif not _signed_by(note, self.trail_keys(note.origin)):
                self.add(
                    Verdict.INCOMPLETE, "evidence-unknown-key",
                    f"a checkpoint of size {note.size} was given as evidence, and the file does not show the key that signed it",
                )  # fmt: skip
            else:
                self.expect(_Seen(note, None))

    def seen(self, value: dict[str, Any]) -> None:
        note = _note(_keys(value, "note")["note"])
        party = self.parties.get(note.origin.fingerprint)
        if party is None or not _signed_by(note, party.trail_keys):
            raise _Malformed("a seen checkpoint is not signed by a party of this file")
        if note.origin.fingerprint in self.owners:
            self.expect(_Seen(note, self.line))
            return
        if len(self.about_others) >= SEEN_MAX:
            raise _Malformed("there are too many seen checkpoints")
        self.about_others.append(value["note"])
        known = self.others_heads.setdefault((note.origin.text, note.size), note.root)
        if known != note.root:
            text = f"The file holds evidence that {printable(party.name)} signed two histories of {note.size} entries."
            self.notes.append(text)

    def expect(self, seen: _Seen) -> None:
        there = self.pending.setdefault(seen.note.size, [])
        self.pending_count += 1
        if self.pending_count > SEEN_MAX or len(there) >= KEYS_MAX:
            if seen.line is not None:
                raise _Malformed("there are too many seen checkpoints")
            self.notes.append("Some of the evidence was not used: there is too much of it.")
            return
        for other in there:
            if other.note.origin == seen.note.origin and other.note.root != seen.note.root:
                self.add(Verdict.DIVERGED, "two-roots", f"the owner signed two different histories of {seen.note.size} entries")
        there.append(seen)

    def statement(self, value: dict[str, Any]) -> None:
        statement = _statement(_keys(value, "envelope")["envelope"])
        transfer = statement.payload.get("transfer")
        if isinstance(transfer, str):
            self.statements.setdefault(transfer, {})[statement.id] = (statement.kind, statement.issuer.hex())
            if statement.kind in _PROOF_OF_COMPLETION:
                self.completions.setdefault(transfer, set()).add(statement.issuer)

    # --- the tree

    def leaf(self, value: dict[str, Any]) -> None:
        _keys(value, "seq", "hash", "leaf", "open")
        seq, digest = _count(value["seq"]), _base64(value["hash"], 32)
        if seq != self.tree.size:
            self.stop("out-of-order", f"entry {self.tree.size} is missing: entry {seq} stands in its place", entry=self.tree.size)
        if not isinstance(value["leaf"], str) or not isinstance(value["open"], dict):
            raise _Malformed("an entry has fields of wrong types")
        data = value["leaf"].encode()
        if hashlib.sha256(b"\x00" + data).digest() != digest:
            self.invalid("entry-altered", f"entry {seq} is not the one that was hashed", entry=seq)
        fields = self.entry(seq, data)
        opened = self.open(seq, fields["fields"], value["open"])
        self.scoped(seq, fields["scopes"], opened)
        if fields["event"] == "transfer.completed" and fields["result"] == "ok":
            self.completion(seq, opened)
        self.shown += 1
        self.grow(0, digest)
        self.previous_shown, self.previous_monotonic = True, fields["monotonic_ms"]

    def entry(self, seq: int, data: bytes) -> dict[str, Any]:
        """The leaf's own rules; the entry is named when one is broken."""
        try:
            if len(data) > LEAF_MAX_BYTES:
                raise _Malformed("it is too long")
            fields = _object(data)
            if _count(fields.get("v")) != 1:
                raise _Malformed("its version is not known: use a newer verifier")
            heads = fields.pop("heads", [])
            if fields.keys() != _LEAF_KEYS or not isinstance(fields["fields"], dict):
                raise _Malformed("it has other fields than an entry")
            if _count(fields["seq"]) != seq:
                raise _Malformed(f"it says that it is entry {fields['seq']}")
            for name in ("id", "clock", "event", "object_type", "result", "result_code", "software"):
                _text(fields[name], 200)
            monotonic, utc = _count(fields["monotonic_ms"]), _count(fields["utc_ms"])
            self.epoch(_origin(fields["origin"]), event=fields["event"], seq=seq)
            if self.previous_shown and monotonic < self.previous_monotonic and fields["event"] not in _NEW_RUN:
                self.invalid("counter-went-back", f"the monotonic counter of entry {seq} went back within a run", entry=seq)
            self.backward += utc < self.previous_utc
            self.previous_utc = utc
            self.count(seq, self.tags(fields["scopes"]))
            self.note_heads(seq, self.tags(heads), event=fields["event"])
        except _Malformed as error:
            self.stop("malformed-entry", f"entry {seq} is malformed: {error}", entry=seq)
        return fields

    def tags(self, items: object) -> list[tuple[str, int]]:
        if not isinstance(items, list) or len(items) > 500:
            raise _Malformed("its scopes are not a list")
        out = []
        for item in items:
            _keys(item, "tag", "counter")
            if not isinstance(item["tag"], str) or re.fullmatch("[0-9a-f]{32}", item["tag"]) is None:
                raise _Malformed("a scope tag is malformed")
            out.append((item["tag"], _count(item["counter"])))
        return out

    def epoch(self, origin: _Origin, *, event: str, seq: int) -> None:
        """An origin changes only at the first entry of a new epoch, which says why."""
        if origin.fingerprint not in self.owners:
            raise _Malformed(f"it is of another trail, {origin.text}")
        begins = self.at is None or origin != self.at
        if not begins:
            if event == "trail.restored":
                raise _Malformed("a restore begins no new epoch")
            return
        if self.at is not None:
            if origin.epoch <= self.at.epoch:
                raise _Malformed("its epoch is not later than the one before")
            if event not in _NEW_EPOCH:
                if self.previous_shown or not self.excerpt:
                    raise _Malformed("a new epoch begins without saying why")
                text = f"the first entry of epoch {origin.epoch} is not shown"
                self.add(Verdict.INCOMPLETE, "epoch-start-withheld", text, entry=seq)
            elif event == "key.rotated" and origin.fingerprint == self.at.fingerprint:
                raise _Malformed("a rotation of keys names the same key")
        if event in _NEW_EPOCH and (self.at is not None or event == "trail.restored"):
            self.starts.append(_Start(seq, origin.epoch, event == "trail.restored"))
        self.at = origin

    def count(self, seq: int, tags: list[tuple[str, int]]) -> None:
        for tag, counter in tags:
            last = self.counters.get(tag, 0)
            scope = self.scopes.get(tag)
            if counter <= last:
                raise _Malformed("a scope counter does not grow")
            if scope is not None:
                expected = last + 1 if last else scope.first
                if counter != expected:
                    text = f"{scope.kind} {scope.name}: its entries {expected} to {counter - 1} are not shown"
                    self.add(Verdict.INCOMPLETE, "scope-gap", text, entry=seq)
            elif not self.excerpt and counter != last + 1:
                self.invalid("scope-gap", f"a scope counter of entry {seq} skips from {last} to {counter}", entry=seq)
            self.counters[tag] = counter
        if len(self.counters) > TAGS_MAX:
            raise _Malformed("there are too many scopes")

    def note_heads(self, seq: int, heads: list[tuple[str, int]], *, event: str) -> None:
        if heads and event != "trail.scope-heads":
            raise _Malformed("only an entry of scope heads names heads")
        for tag, counter in heads:
            last = self.counters.get(tag, 0)
            if counter < last or (not self.excerpt and counter != last):
                self.invalid("wrong-head", f"entry {seq} gives a scope the head {counter} where {last} were counted", entry=seq)
            if tag in self.scopes:
                self.heads[tag] = counter

    def open(self, seq: int, committed: dict[str, Any], openings: dict[str, Any]) -> dict[str, str]:
        """The values that are opened, as JSON texts; each must be what the entry committed to."""
        for name, item in committed.items():
            if not isinstance(item, dict) or item.keys() != {"c"} or not isinstance(item["c"], str):
                self.stop("malformed-entry", f"entry {seq} is malformed: its field {name} is no commitment", entry=seq)
        opened: dict[str, str] = {}
        for name, item in openings.items():
            if not isinstance(item, list) or len(item) != 2 or not isinstance(item[1], str):
                raise _Malformed("an opening is not a salt and a value")
            framed = _FIELD + _frame(_base64(item[0], 32), name.encode(), item[1].encode())
            if name not in committed or committed[name]["c"] != _to_base64(hashlib.sha256(framed).digest()):
                self.invalid("opening-altered", f"the field {name} of entry {seq} is not what the entry committed to", entry=seq)
            opened[name] = item[1]
        self.openings += len(opened)
        self.withheld += len(committed.keys() - opened.keys())
        return opened

    def scoped(self, seq: int, tags: list[dict[str, Any]], opened: dict[str, str]) -> None:
        """An entry that names a disclosed scope carries its tag: the key given for the scope is the one that was used."""
        for scope in self.scopes.values():
            if opened.get(scope.kind) == _encode(scope.name) and not any(item["tag"] == scope.tag for item in tags):
                text = f"entry {seq} belongs to {scope.kind} {scope.name} and is not counted there"
                self.invalid("scope-key-wrong", text, entry=seq)

    def completion(self, seq: int, opened: dict[str, str]) -> None:
        """A transfer that says completed needs the word of the other party."""
        self.completed += 1
        try:
            transfer, other = (_opened_text(opened.get(name)) for name in ("object_id", "counterparty"))
        except _Malformed:
            self.invalid("malformed-opening", f"an opened field of entry {seq} is not a text", entry=seq)
            return
        if not transfer:
            self.unlinked += 1
            return
        others = {key.hex() for key in self.completions.get(transfer, ())} - {key.hex() for key in self.owners.values()}
        if not others or (other and other not in others):
            text = f"entry {seq} says that transfer {transfer} was completed; the counterparty's receipt for it is missing"
            self.add(Verdict.INCOMPLETE, "receipt-missing", text, entry=seq)

    def hash(self, value: dict[str, Any]) -> None:
        _keys(value, "seq", "hash")
        if _count(value["seq"]) != self.tree.size or not self.excerpt:
            raise _Malformed("a withheld entry stands where it cannot be")
        self.skip(0, _base64(value["hash"], 32))

    def subtree(self, value: dict[str, Any]) -> None:
        _keys(value, "level", "index", "hash")
        level, index = _count(value["level"]), _count(value["index"])
        if level > 52 or index << level != self.tree.size or self.tree.size + (1 << level) > INTEGER_MAX or not self.excerpt:
            raise _Malformed("a run of withheld entries stands where it cannot be")
        self.skip(level, _base64(value["hash"], 32))

    def skip(self, level: int, digest: bytes) -> None:
        if self.tree.size == 0:
            self.add(Verdict.INCOMPLETE, "first-entry-withheld", "the first entry of the trail is not shown", entry=0)
        self.previous_shown = False
        self.grow(level, digest)

    def grow(self, level: int, digest: bytes) -> None:
        self.tree.append(level, digest)
        self.note = None
        for seen in self.pending.pop(self.tree.size, ()):
            if seen.note.origin != self.at:
                self.unmet.append(seen)
            elif seen.note.root == self.tree.root():
                self.cosigners(seen.note)
            else:
                self.mismatches.append((seen.note.size, seen.line or 0, "a checkpoint that the owner signed"))

    # --- checkpoints and cosignatures

    def trail_keys(self, origin: _Origin) -> Sequence[bytes]:
        party = self.parties.get(origin.fingerprint)
        return party.trail_keys if party is not None else ()

    def checkpoint(self, value: dict[str, Any]) -> None:
        note = _note(_keys(value, "note")["note"])
        entry = max(0, note.size - 1)
        if note.size != self.tree.size or note.size == 0:
            self.stop("checkpoint-misplaced", f"a checkpoint of {note.size} entries stands after {self.tree.size}", entry=entry)
        if note.origin != self.at:
            self.epoch(note.origin, event="", seq=entry)
        if not _signed_by(note, self.trail_keys(note.origin)):
            self.stop("bad-signature", f"the signature of the checkpoint of {note.size} entries does not verify", entry=entry)
        self.checkpoints += 1
        self.note, self.note_matches = note, note.root == self.tree.root()
        if self.note_matches:
            self.good_size = note.size
            self.cosigners(note)
        else:
            self.mismatches.append((note.size, self.line, "a checkpoint of the file"))

    def cosignature(self, value: dict[str, Any]) -> None:
        _keys(value, "size", "line")
        line = _signature_line(_text(value["line"]))
        if self.note is None or _count(value["size"]) != self.note.size:
            raise _Malformed("a cosignature does not follow its checkpoint")
        self.cosigner(self.note, line, counts=self.note_matches)

    def cosigners(self, note: _Note) -> None:
        for line in note.lines:
            if line.name != note.origin.text:
                self.cosigner(note, line, counts=True)

    def cosigner(self, note: _Note, line: _Line, *, counts: bool) -> None:
        match = _COSIGNER.fullmatch(line.name)
        party = self.parties.get(match[1]) if match else None
        if match is None or party is None:
            if len(self.strangers) < KEYS_MAX:
                self.strangers.add(line.name)
            return
        time_s = _cosigned_at(note, line, party.cosign_keys)
        if time_s is None:
            text = f"the cosignature of {party.name}, {party.organisation} at {note.size} entries does not verify"
            self.invalid("bad-cosignature", text, entry=note.size - 1)
            return
        self.cosignatures += 1
        if counts and match[1] in self.trust and match[1] not in self.owners:
            if note.size > self.anchored:
                self.anchored, self.anchored_at_s, self.anchored_by = note.size, 0, set()
            if note.size == self.anchored:
                self.anchored_at_s = max(self.anchored_at_s, time_s)
                self.anchored_by.add(match[1])

    # --- the end

    def end(self, value: dict[str, Any]) -> None:
        _keys(value, "lines", "entries", "shown", "signature")
        signature = _base64(value["signature"], 64)
        expected = (self.line - 1, self.tree.size, self.shown)
        if tuple(_count(value[name]) for name in ("lines", "entries", "shown")) != expected:
            raise _Malformed("it counts other lines or entries than the file has")
        if (self.declared_size, self.declared_shown) != expected[1:] or self.tree.size == 0:
            self.stop("wrong-count", "the file's first line announces other entries than the file has")
        assert self.origin is not None
        message = _frame(b"labxchange bundle v1", self.digest.digest())
        if not any(_verify(key, signature, message) for key in self.parties[self.origin.fingerprint].trail_keys):
            self.invalid("bad-file-signature", "the signature over the file does not verify: a line of it was changed")
        if self.at != self.origin:
            self.invalid("wrong-origin", "the file's last entry is not of the origin that its first line names")
        if self.note is None:
            self.invalid("no-last-checkpoint", f"entry {self.tree.size - 1} stands under no checkpoint", entry=self.tree.size - 1)
        self.ended = True

    def conclude(self) -> None:
        """What can only be said when all was read."""
        if not self.ended:
            return
        self.judge_mismatches()
        self.judge_seen()
        self.judge_restorations()
        self.judge_scopes()

    def judge_mismatches(self) -> None:
        consistent = self.good_size == self.tree.size
        for size, line, what in self.mismatches:
            if consistent:
                text = f"{what}, of {size} entries, is of another history than this file: the owner signed both"
                self.add(Verdict.DIVERGED, "two-histories", text, entry=size - 1, line=line)
            else:
                text = f"the entries up to {size - 1} do not give the root of {what}"
                self.add(Verdict.INVALID, "wrong-root", text, entry=size - 1, line=line)

    def judge_seen(self) -> None:
        """Checkpoints seen elsewhere that the tree of this file did not meet at their size and epoch."""
        assert self.at is not None
        for seen in (*self.unmet, *(item for items in self.pending.values() for item in items)):
            origin, size = seen.note.origin, seen.note.size
            after = next((start for start in self.starts if start.epoch > origin.epoch), None)
            if origin.epoch > self.at.epoch or (origin == self.at and size > self.tree.size):
                self.judge_newer(seen)
            elif after is not None and size > after.held and after.restored:
                self.missing = max(self.missing, size - after.held)
            elif after is not None and size > after.held:
                self.roll_back(seen, kept=after.held)
            elif size and self.excerpt:
                self.notes.append("A checkpoint seen elsewhere falls between the shown entries and was not compared.")
            elif size:
                text = f"a checkpoint of {size} entries was seen in epoch {origin.epoch}, and the trail does not hold that epoch"
                self.add(Verdict.INCOMPLETE, "epoch-missing", text, entry=size - 1, line=seen.line or 0)

    def judge_newer(self, seen: _Seen) -> None:
        size = seen.note.size
        lost = max(0, size - self.tree.size)
        times = [self.seen_at(seen.note, line) for line in seen.note.lines if line.name != seen.note.origin.text]
        known = [time_s for time_s in times if time_s is not None]
        if known and self.exported_ms < min(known) * 1000:
            self.missing = max(self.missing, lost)
            text = f"the file says that it is older than a checkpoint of {size} entries: {lost} entries came after it"
            self.add(Verdict.INCOMPLETE, "older-than-evidence", text, entry=self.tree.size - 1, line=seen.line or 0)
        else:
            self.roll_back(seen, kept=min(size, self.tree.size))

    def roll_back(self, seen: _Seen, *, kept: int) -> None:
        size = seen.note.size
        text = f"the trail was rolled back: the owner had signed {size} entries, and {size - kept} of them are gone"
        self.add(Verdict.DIVERGED, "rolled-back", text, entry=kept - 1 if kept else 0, line=seen.line or 0)

    def seen_at(self, note: _Note, line: _Line) -> int | None:
        match = _COSIGNER.fullmatch(line.name)
        party = self.parties.get(match[1]) if match else None
        return _cosigned_at(note, line, party.cosign_keys) if party is not None else None

    def judge_restorations(self) -> None:
        for item in (start for start in self.starts if start.restored):
            known = f"{self.missing} entries missing" if self.missing else "no entry is known to be missing"
            text = f"the trail was restored from a backup that held {item.held} entries: {known}"
            self.add(Verdict.INCOMPLETE, "restored", text, entry=item.held, line=0)

    def judge_scopes(self) -> None:
        for tag, scope in self.scopes.items():
            last, head = self.counters.get(tag, scope.first - 1), self.heads.get(tag)
            label = f"{scope.kind} {scope.name}"
            if head is None:
                self.add(Verdict.INCOMPLETE, "no-scope-head", f"{label}: no entry gives its head", line=0)
            elif last < scope.last or scope.last > max(head, last):
                text = f"{label}: its entries {last + 1} to {scope.last} are not shown"
                self.add(Verdict.INCOMPLETE, "scope-gap", text, line=0)
            else:
                whole = scope.first == 1 and scope.last >= head
                what = f"all of its {scope.last} entries are" if whole else f"entries {scope.first} to {scope.last} of {head} are"
                self.claims.append(printable(f"{label}: {what} shown, without gaps."))

    def result(self) -> Result:
        self.conclude()
        worst = max(self.counted, key=_ORDER.index, default=Verdict.VALID)
        if worst is Verdict.VALID and not self.anchored:
            worst = Verdict.UNANCHORED
        self.tell()
        party = self.parties.get(self.owner)
        return Result(
            verdict=worst,
            reasons=tuple(sorted(self.reasons, key=lambda reason: -_ORDER.index(reason.verdict))),
            claims=tuple(self.claims),
            notes=tuple(dict.fromkeys(self.notes)),
            owner=self.owner,
            owner_name=printable(f"{party.name}, {party.organisation}") if party else "",
            origin=self.origin.text if self.origin else "",
            exported_ms=self.exported_ms,
            size=self.tree.size,
            shown=self.shown,
            lines=self.line,
            checkpoints=self.checkpoints,
            cosignatures=self.cosignatures,
            anchored=self.anchored,
            anchored_at_s=self.anchored_at_s,
            anchored_by=tuple(sorted(self.anchored_by)),
            tail=self.tree.size - self.anchored,
            missing=self.missing,
            completed=self.completed,
            openings=self.openings,
            withheld=self.withheld,
        )

    def tell(self) -> None:
        """The sentences that qualify the verdict."""
        if not self.trust:
            self.notes.append("Keys were taken from the file: no fingerprint was given, so nobody's identity was checked.")
        elif not self.anchored:
            self.notes.append("No counterparty whose fingerprint you gave has cosigned this trail.")
        if self.anchored and self.anchored < self.tree.size:
            tail = f"Entries {self.anchored} to {self.tree.size - 1}"
            self.notes.append(f"{tail} came after the last cosignature that you trust: for them only the owner's word stands.")
        if self.strangers:
            self.notes.append(f"Cosignatures by {len(self.strangers)} unknown keys were ignored.")
        if self.excerpt:
            self.claims.insert(0, f"This is an excerpt: {self.shown} of {self.tree.size} entries are shown.")
            if not self.scopes:
                self.claims.append("The excerpt names no scope: it does not show that nothing else belongs to it.")
        if self.unlinked:
            self.notes.append(f"{self.unlinked} completed transfers are not named, so their receipts could not be looked for.")
        if self.backward:
            self.notes.append(f"The clock went back {self.backward} times; the order is that of the entries.")


def _opened_text(value: str | None) -> str:
    if value is None:
        return ""
    try:
        text = json.loads(value)
    except (ValueError, RecursionError):
        raise _Malformed("an opened field is not JSON") from None
    return _text(text, LEAF_MAX_BYTES)


_HANDLERS: dict[str, Callable[[_Reading, dict[str, Any]], None]] = {
    "index": _Reading.index,
    "card": _Reading.card,
    "key": _Reading.key,
    "seen": _Reading.seen,
    "statement": _Reading.statement,
    "leaf": _Reading.leaf,
    "hash": _Reading.hash,
    "subtree": _Reading.subtree,
    "checkpoint": _Reading.checkpoint,
    "cosignature": _Reading.cosignature,
}


# --- what callers use

Source = str | os.PathLike[str] | bytes


def _read(source: Source, *, trust: frozenset[str], evidence: Evidence) -> _Reading:
    reading = _Reading(trust=trust, evidence=evidence)
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as stream:
            reading.read(stream)
    except OSError as error:
        raise VerifierError(f"The file cannot be read: {error.strerror}.") from None
    return reading


def verify(source: Source, *, trust: Sequence[str] = (), evidence: Evidence | None = None) -> Result:
    """Check a file, given as a path or as bytes.

    Args:
        trust: fingerprints of the owner and of counterparties, known from elsewhere.
        evidence: checkpoints of this trail that others hold.

    Raises:
        VerifierError: a fingerprint is mistyped, or the file cannot be opened. Whatever is in the file is a ``Result``.
    """
    trusted = frozenset(parse_fingerprint(text) for text in trust)
    return _read(source, trust=trusted, evidence=evidence or Evidence()).result()


def evidence_of(source: Source) -> Evidence:
    """What a file says about other trails: nothing when the file itself is INVALID."""
    reading = _read(source, trust=frozenset(), evidence=Evidence())
    if reading.result().verdict is Verdict.INVALID:
        return Evidence()
    cards = tuple(card for mark, cards in reading.cards.items() if mark not in reading.owners for card in cards)
    return Evidence(cards=cards, notes=tuple(reading.about_others))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two parties' files side by side. ``agree`` when each is at best what the other saw, and both hold the same statements."""

    first: Result
    second: Result
    transfers: int
    differences: tuple[str, ...]

    @property
    def agree(self) -> bool:
        bad = (Verdict.DIVERGED, Verdict.INVALID)
        return not self.differences and self.first.verdict not in bad and self.second.verdict not in bad


def compare(first: Source, second: Source, *, trust: Sequence[str] = ()) -> Comparison:
    """Do two parties tell the same of their exchange? Each file is checked with what the other one saw of it.

    Both are read twice, so they are given as paths or bytes.
    """
    trusted = frozenset(parse_fingerprint(text) for text in trust)
    readings = [_read(one, trust=trusted, evidence=evidence_of(other)) for one, other in ((first, second), (second, first))]
    results = [reading.result() for reading in readings]
    owners = [{key.hex() for key in reading.owners.values()} for reading in readings]
    differences: list[str] = []
    shared = 0
    for transfer in sorted(readings[0].statements.keys() | readings[1].statements.keys()):
        told = [reading.statements.get(transfer, {}) for reading in readings]
        issuers = {issuer for side in told for _, issuer in side.values()}
        if not (issuers & owners[0] and issuers & owners[1]):
            continue
        shared += 1
        for here, there, where in ((told[0], told[1], "second"), (told[1], told[0], "first")):
            differences += [
                printable(f"transfer {transfer}: the {here[mark][0]} {mark} is not in the {where} file")
                for mark in sorted(here.keys() - there.keys())
            ]
    return Comparison(first=results[0], second=results[1], transfers=shared, differences=tuple(differences))


def report(result: Result) -> str:
    """The result as lines for a person."""
    lines = [f"{result.verdict}"]
    if result.owner:
        lines.append(f"  owner      {result.owner_name} ({result.owner})")
    signed = f"{result.checkpoints} checkpoints, {result.cosignatures} cosignatures"
    lines.append(f"  entries    {result.size}, of which {result.shown} shown; {signed}")
    if result.anchored:
        lines.append(f"  confirmed  the first {result.anchored} entries, by {', '.join(result.anchored_by)}")
    for reason in result.reasons:
        places = [f"{name} {place}" for name, place in (("entry", reason.entry), ("line", reason.line)) if place is not None]
        lines.append(f"  {reason.verdict}: {reason.text} [{', '.join([reason.code, *places])}]")
    lines += [f"  {text}" for text in (*result.claims, *result.notes)]
    return "\n".join(lines)


def read_note(path: str) -> str:
    """A checkpoint that somebody kept in a file, for ``Evidence``; raises VerifierError."""
    try:
        with open(path, "rb") as stream:
            return stream.read(NOTE_MAX_BYTES + 1).decode()
    except (OSError, ValueError):
        raise VerifierError("A file with a checkpoint cannot be read.") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; the exit code is 0 for VALID, 10 to 13 for the other verdicts, 2 when the question is wrong."""
    parser = argparse.ArgumentParser(prog="verifier", description="Check an exported labxchange audit trail, offline.")
    parser.add_argument("file", help="the .labxtrail file")
    parser.add_argument("--trust", action="append", default=[], metavar="FINGERPRINT", help="the owner's, and counterparties'")
    parser.add_argument("--with", dest="other", metavar="OTHER", help="the other party's file, to compare with")
    parser.add_argument("--seen", action="append", default=[], metavar="NOTE", help="a file with a checkpoint seen elsewhere")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(arguments)
    write = sys.stdout.write
    try:
        if options.other is None:
            notes = tuple(read_note(path) for path in options.seen)
            result = verify(options.file, trust=options.trust, evidence=Evidence(notes=notes))
            write((json.dumps(asdict(result)) if options.json else report(result)) + "\n")
            return EXIT_CODES[result.verdict]
        both = compare(options.file, options.other, trust=options.trust)
    except VerifierError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if options.json:
        write(json.dumps({**asdict(both), "agree": both.agree}) + "\n")
    else:
        write(f"{report(both.first)}\n\n{report(both.second)}\n\n")
        write("".join(f"  {text}\n" for text in both.differences))
        told = "both tell the same" if both.agree else "they do not tell the same"
        write(f"{both.transfers} transfers between the two: {told}\n")
    worst = max(both.first.verdict, both.second.verdict, key=_ORDER.index)
    return EXIT_CODES[worst if both.agree else max(worst, Verdict.INCOMPLETE, key=_ORDER.index)]


if __name__ == "__main__":
    sys.exit(main())
