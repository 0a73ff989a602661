"""The trail as text for people and machines: CSV, JSON lines, and the signed bundle (``.labxtrail``).

Rules kept here: in CSV, a cell that a spreadsheet would run as a formula is defused, and characters that steer a screen never
leave raw; a bundle is a stream of lines, in the one order that the verifier accepts, and its last line signs all before.
What goes in - which entries, which openings, which checkpoints - is the caller's choice; ``plan`` says which hashes an excerpt
needs for the entries it leaves out. The format is ``docs/spec/audit.md``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256

import msgspec

from labxchange.audit.checkpoint import Note, Sign
from labxchange.audit.leaf import Opening, Parsed, opened_value
from labxchange.audit.scope import Scope
from labxchange.encoding import b64encode, dump_json, frame
from labxchange.errors import IntegrityError
from labxchange.merkle import leaf_hash

FORMAT = "labxtrail"
FORMAT_VERSION = 1
WITHHELD = "(withheld)"

COLUMNS = (
    "seq", "utc_ms", "local", "event", "result", "result_code", "person", "role", "organisation", "key", "authenticated",
    "actor", "object_type", "object_id", "object_digest", "study", "site", "category", "old", "new", "reason_code",
    "reason_text", "purpose", "agreement", "counterparty", "counterparty_name", "country", "details", "software", "clock",
    "monotonic_ms", "origin", "id",
)  # fmt: skip
"""The columns of a row, in order: all open and committed fields but the scope tags."""


class OwnScope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A scope that an excerpt discloses: its key, and the counters shown: from 1 to the head when it is whole."""

    scope: Scope
    key: bytes
    first: int
    last: int


class Index(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The first line of a bundle, for a person who opens the file. ``entries`` is the size of the last checkpoint."""

    about: str
    origin: str
    name: str
    organisation: str
    fingerprint: str
    entries: int
    shown: int
    scopes: tuple[OwnScope, ...] = ()
    filter: dict[str, str] = {}
    exported_ms: int
    exported: str
    software: str

    @property
    def excerpt(self) -> bool:
        return self.shown != self.entries


class Succession(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One identity key names the next, and the next accepts: both sign ``succession_message``."""

    previous: bytes
    next: bytes
    previous_signature: bytes
    next_signature: bytes


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """An entry that is shown, with the openings that go along."""

    seq: int
    leaf: bytes
    openings: Sequence[Opening]


class Hidden(msgspec.Struct, frozen=True, kw_only=True):
    """A run of withheld entries: the complete subtree ``index`` of ``level`` (0 is one leaf hash)."""

    level: int
    index: int
    hash: bytes


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint of the trail's size at this place, with its own signature, and the cosignature lines for it."""

    note: Note
    cosignatures: Sequence[str] = ()


Item = Shown | Hidden | Signed


def succession_message(previous: bytes, following: bytes) -> bytes:
    """What both keys of a succession sign."""
    return frame("labxchange successor v1", previous, following)


def plan(size: int, *, shown: Iterable[int], breaks: Iterable[int] = ()) -> Iterator[tuple[int, int, bool]]:
    """How an excerpt covers leaves [0, size): (level, index, is_shown), left to right.

    Args:
        shown: the entries to show, in order.
        breaks: sizes at which a checkpoint will stand, in order; no subtree spans them.
    """
    stops = iter([*breaks, size])
    stop = next(stops)
    wanted = iter(shown)
    next_shown = next(wanted, size)
    begin = 0
    while begin < size:
        while stop <= begin:
            stop = next(stops)
        if begin == next_shown:
            yield 0, begin, True
            next_shown = next(wanted, size)
            begin += 1
            continue
        room = min(stop, next_shown) - begin
        level = room.bit_length() - 1
        if begin:
            level = min(level, (begin & -begin).bit_length() - 1)
        yield level, begin >> level, False
        begin += 1 << level


def bundle(
    index: Index,
    *,
    owner_cards: Iterable[bytes],
    counterparty_cards: Iterable[bytes],
    successions: Iterable[Succession] = (),
    seen: Iterable[str] = (),
    statements: Iterable[bytes] = (),
    items: Iterable[Item],
    sign: Sign,
) -> Iterator[bytes]:
    """The lines of a bundle, each with its newline.

    Args:
        owner_cards: card envelopes of the owner, oldest key first; each succession stands before the first card of its new key.
        counterparty_cards: cards of all who cosigned, sent receipts, or whose checkpoints were seen.
        seen: signed notes: counterparties' checkpoints cosigned here, and own checkpoints that others gave back after a restore.
        statements: envelopes; the receipts of all transfers that the shown entries say were completed.
        items: entries, hidden runs and checkpoints in the order of the tree; the last is the checkpoint of ``index.entries``.
        sign: signature by the trail key.
    """
    digest = sha256()
    lines = shown = size = 0
    for value in _lines(index, owner_cards, counterparty_cards, successions, seen, statements):
        lines += 1
        data = dump_json(value) + b"\n"
        digest.update(data)
        yield data
    for item in items:
        if isinstance(item, Shown):
            shown, size = shown + 1, size + 1
        elif isinstance(item, Hidden):
            size += 1 << item.level
        for value in _item_lines(item):
            lines += 1
            data = dump_json(value) + b"\n"
            digest.update(data)
            yield data
    if (size, shown) != (index.entries, index.shown):
        raise ValueError("the index announces other entries than were written")
    signature = b64encode(sign(frame("labxchange bundle v1", digest.digest())))
    yield dump_json({"t": "end", "lines": lines, "entries": size, "shown": shown, "signature": signature}) + b"\n"


def _lines(
    index: Index,
    owner_cards: Iterable[bytes],
    counterparty_cards: Iterable[bytes],
    successions: Iterable[Succession],
    seen: Iterable[str],
    statements: Iterable[bytes],
) -> Iterator[Mapping[str, object]]:
    """Everything before the first entry."""
    yield {
        "t": "index",
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "about": index.about,
        "origin": index.origin,
        "owner": {"name": index.name, "organisation": index.organisation, "fingerprint": index.fingerprint},
        "entries": index.entries,
        "shown": index.shown,
        "excerpt": index.excerpt,
        "scopes": [
            {"kind": one.scope.kind, "name": one.scope.name, "key": b64encode(one.key), "first": one.first, "last": one.last}
            for one in index.scopes
        ],
        "filter": index.filter,
        "exported_ms": index.exported_ms,
        "exported": index.exported,
        "software": index.software,
    }
    cards = iter(owner_cards)
    yield from ({"t": "card", "role": "owner", "envelope": _text(card)} for card in [next(cards)])
    for step in successions:
        yield {
            "t": "key",
            "previous": step.previous.hex(),
            "next": step.next.hex(),
            "previous_signature": b64encode(step.previous_signature),
            "next_signature": b64encode(step.next_signature),
        }
    yield from ({"t": "card", "role": "owner", "envelope": _text(card)} for card in cards)
    yield from ({"t": "card", "role": "counterparty", "envelope": _text(card)} for card in counterparty_cards)
    yield from ({"t": "seen", "note": note} for note in seen)
    yield from ({"t": "statement", "envelope": _text(envelope)} for envelope in statements)


def _text(kept: bytes) -> str:
    """Raises IntegrityError ``database-damaged``: entries and statements are UTF-8 when they are written."""
    try:
        return kept.decode()
    except UnicodeDecodeError:
        raise IntegrityError(
            "database-damaged",
            "An entry of the audit trail, or a statement that it speaks of, is damaged on the disk.",
            hint="Restore your last backup with `labxchange node restore`.",
        ) from None


def _item_lines(item: Item) -> Iterator[Mapping[str, object]]:
    if isinstance(item, Shown):
        yield {
            "t": "leaf",
            "seq": item.seq,
            "hash": b64encode(leaf_hash(item.leaf)),
            "leaf": _text(item.leaf),
            "open": {one.name: [b64encode(one.salt), _text(one.value)] for one in item.openings},
        }
    elif isinstance(item, Hidden) and item.level == 0:
        yield {"t": "hash", "seq": item.index, "hash": b64encode(item.hash)}
    elif isinstance(item, Hidden):
        yield {"t": "subtree", "level": item.level, "index": item.index, "hash": b64encode(item.hash)}
    else:
        yield {"t": "checkpoint", "note": item.note.text}
        for line in item.cosignatures:
            yield {"t": "cosignature", "size": item.note.checkpoint.size, "line": line.removesuffix("\n")}


def row(leaf: Parsed, openings: Iterable[Opening]) -> dict[str, str]:
    """One entry by ``COLUMNS``; a field whose opening is not there reads ``(withheld)``, one that was never set is empty."""
    cells = dict.fromkeys(COLUMNS, "")
    cells |= {name: str(value) for name, value in msgspec.structs.asdict(leaf).items() if name in cells}
    for name in leaf.fields:
        cells[name] = WITHHELD
    for opening in openings:
        value = opened_value(opening.value)
        cells[opening.name] = value if isinstance(value, str) else dump_json(value).decode()
    return cells


def csv_lines(rows: Iterable[dict[str, str]]) -> Iterator[str]:
    """RFC 4180 with a header, every cell quoted and safe to open in a spreadsheet."""
    yield _csv_line(COLUMNS)
    for cells in rows:
        yield _csv_line([cells[name] for name in COLUMNS])


def jsonl_lines(rows: Iterable[dict[str, str]]) -> Iterator[str]:
    """One JSON object a line, in ASCII; empty cells are left out."""
    for cells in rows:
        yield json.dumps({name: text for name, text in cells.items() if text}, separators=(",", ":")) + "\n"


_FORMULA = frozenset("=+-@\t\r\n|%＝＋－＠")


def safe_cell(text: str) -> str:
    """``text`` without characters that steer a screen, and with an apostrophe before what a spreadsheet would run."""
    clean = "".join(letter if letter.isprintable() else f"\\u{{{ord(letter):x}}}" for letter in text)
    starts = text.lstrip(" \u00a0\u3000")[:1]
    return f"'{clean}" if starts in _FORMULA and starts else clean


def _csv_line(cells: Sequence[str]) -> str:
    return ",".join('"' + safe_cell(cell).replace('"', '""') + '"' for cell in cells) + "\r\n"
