"""What an exported trail holds: rows for CSV and JSON lines, and the lines of a signed bundle or an excerpt of it.

The trail only grows, so an export of its first ``size`` entries is built in many short reads of the store, between which the node
goes on. An excerpt discloses the scopes it is about and shows only their entries and those without which nothing verifies.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

from labxchange.audit.events import Event
from labxchange.audit.export import Hidden, Index, Item, OwnScope, Shown, Signed, bundle, csv_lines, jsonl_lines, plan, row
from labxchange.audit.scope import Scope, scope_key, tag_of
from labxchange.node.clock import utc_text
from labxchange.node.core import Core
from labxchange.node.values import EntryInfo
from labxchange.settings import SOFTWARE
from labxchange.store import people, statements
from labxchange.store.damage import damaged
from labxchange.store.trail import StoredEntry, Trail

FORMS = ("jsonl", "csv", "bundle")
_STATEMENTS = ("offer", "accept", "receipt", "receipt-ack", "cut")
_ALWAYS = frozenset({Event.TRAIL_SCOPE_HEADS.value, Event.TRAIL_RESTORED.value, Event.SYSTEM_STARTED.value})
"""Events that any reading needs, besides the first entry."""


class Export:
    """One export of the first ``size`` entries; ``wanted`` scopes make it an excerpt."""

    def __init__(self, core: Core, trail: Trail, *, size: int, wanted: Sequence[Scope]) -> None:
        self._core = core
        self._trail = trail
        self._size = size
        self._wanted = wanted

    def lines(self, form: str) -> Iterator[bytes]:
        """The lines of the file, one by one, and nothing (``b""``) for each step of the work before them."""
        if form == "bundle":
            return self._bundle()
        rows = (row(item.parsed(), item.openings) for item in self._entries(range(self._size)))
        return (line.encode() for line in (csv_lines(rows) if form == "csv" else jsonl_lines(rows)))

    def _entries(self, numbers: Sequence[int]) -> Iterator[StoredEntry]:
        for seq in numbers:
            with self._core.database.begin() as tx:
                item = self._trail.entry(tx, seq)
            yield item

    def _bundle(self) -> Iterator[bytes]:
        identity, trail = self._core.require(), self._trail
        tags = {tag_of(identity.scope_key, scope): scope for scope in self._wanted}
        chosen: Sequence[int] = range(self._size)
        if tags:
            chosen = yield from self._chosen(set(tags))
        told = yield from self._told(chosen if tags else None)
        with self._core.database.begin() as tx:
            cosigned: dict[int, list[str]] = {}
            cosigners: set[str] = set()
            for at, cosigner, _, line in trail.cosigned(tx):
                if at <= self._size:
                    cosigned.setdefault(at, []).append(line)
                    cosigners.add(cosigner)
            epochs = [at for at, _ in trail.epoch_checkpoints(tx) if at <= self._size]
            heads = {head.tag: head.counter for _, head in trail.scopes(tx)}
            known = people.all_contacts(tx)
            seen = [] if tags else [item.note for one in known for item in people.witnessed_of(tx, one.key)]
            origin = trail.note_at(tx, self._size).checkpoint.origin
        index = self._index(origin, tags, heads, shown=len(chosen))
        yield from bundle(
            index,
            owner_cards=[self._core.require_card().envelope],
            counterparty_cards=[item.card for item in known if item.key in cosigners or not tags or told],
            seen=seen,
            statements=self._statements(told),
            items=self._items(chosen, sorted({*cosigned, *epochs, self._size}), cosigned),
            sign=identity.sign_trail,
        )

    def _index(self, origin: str, tags: dict[str, Scope], heads: dict[str, int], *, shown: int) -> Index:
        card, now = self._core.require_card().body, self._core.clock.now()
        own = self._core.require().scope_key
        return Index(
            about="The audit trail of a labxchange node. Verify it offline with `labxchange audit verify`.",
            origin=origin,
            name=card.name,
            organisation=card.organisation,
            fingerprint=self._trail.fingerprint,
            entries=self._size,
            shown=shown,
            scopes=tuple(
                OwnScope(scope=scope, key=scope_key(own, scope), first=1, last=heads[tag]) for tag, scope in tags.items()
            ),
            filter={scope.kind: scope.name for scope in self._wanted},
            exported_ms=now,
            exported=utc_text(now),
            software=SOFTWARE,
        )

    def _chosen(self, tags: set[str]) -> Generator[bytes, None, list[int]]:
        """Entries of the scopes, and those that any reading needs."""
        out = []
        for seq in range(self._size):
            with self._core.database.begin() as tx:
                leaf = self._trail.parsed(tx, seq)
            if seq == 0 or leaf.event in _ALWAYS or any(scope.tag in tags for scope in leaf.scopes):
                out.append(seq)
            yield b""
        return out

    def _told(self, chosen: Sequence[int] | None) -> Generator[bytes, None, list[str]]:
        """Ids of the statements that the entries speak of: all of the exchange, or those of the transfers that are shown."""
        if chosen is None:
            with self._core.database.begin() as tx:
                return [found for kind in _STATEMENTS for found in statements.ids(tx, kind)]
        named: dict[str, None] = {}
        for item in self._entries(chosen):
            info = entry_info(item)
            if info.object_type == "transfer":
                named[info.fields.get("object_id", "")] = None
            yield b""
        named.pop("", None)
        with self._core.database.begin() as tx:
            return [found for transfer in named for kind in _STATEMENTS for found in statements.ids(tx, kind, about=transfer)]

    def _statements(self, told: Sequence[str]) -> Iterator[bytes]:
        for statement in told:
            with self._core.database.begin() as tx:
                envelope = statements.get(tx, statement)
            if envelope is None:
                raise damaged("A signed statement")
            yield envelope

    def _items(self, chosen: Sequence[int], stops: list[int], cosigned: dict[int, list[str]]) -> Iterator[Item]:
        trail, pending, at = self._trail, list(stops), 0
        for level, position, shown in plan(self._size, shown=chosen, breaks=stops):
            with self._core.database.begin() as tx:
                item: Item
                if shown:
                    entry = trail.entry(tx, position)
                    item = Shown(seq=entry.seq, leaf=entry.leaf, openings=entry.openings)
                else:
                    item = Hidden(level=level, index=position, hash=trail.nodes(tx)(level, position))
            yield item
            at += 1 << level
            while pending and pending[0] <= at:
                here = pending.pop(0)
                with self._core.database.begin() as tx:
                    note = trail.note_at(tx, here)
                yield Signed(note=note, cosignatures=cosigned.get(here, []))


def entry_info(item: StoredEntry) -> EntryInfo:
    """An entry for a face: open fields, and the others as far as they could be opened."""
    leaf = item.parsed()
    cells = row(leaf, item.openings)
    return EntryInfo(
        seq=item.seq,
        utc=leaf.utc_ms,
        event=leaf.event,
        object_type=leaf.object_type,
        result=leaf.result,
        result_code=leaf.result_code,
        fields={name: value for name, value in cells.items() if name in leaf.fields},
    )
