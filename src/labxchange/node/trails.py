"""One's own trail for people: list entries, export it, back the node up. Looking and exporting are entries themselves.

An export first writes ``trail.scope-heads`` and ``trail.exported``, so a file always ends in the entries that made it. An
excerpt (bundle) discloses the scopes it is about and shows only their entries and those without which nothing verifies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection

from labxchange.audit.checkpoint import parse_note
from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.audit.export import Hidden, Index, Item, OwnScope, Shown, Signed, bundle, csv_lines, jsonl_lines, plan, row
from labxchange.audit.leaf import parse as parse_leaf
from labxchange.audit.scope import Scope, scope_key, tag_of
from labxchange.errors import InputError, LabxchangeError
from labxchange.files.newfile import write_new
from labxchange.node.clock import utc_text
from labxchange.node.contacts import Contacts
from labxchange.node.core import Core
from labxchange.node.values import EntryInfo, Exported
from labxchange.settings import SOFTWARE
from labxchange.store import people, statements
from labxchange.store.trail import StoredEntry, Trail

FORMS = ("jsonl", "csv", "bundle")
_STATEMENTS = ("offer", "accept", "receipt", "receipt-ack", "cut")


class Trails:
    """Reads and exports the trail."""

    def __init__(self, core: Core, contacts: Contacts) -> None:
        self._core = core
        self._contacts = contacts

    def _trail(self) -> Trail:
        self._core.require()
        assert self._core.trail is not None
        return self._core.trail

    def entries(self, *, event: str, about: str, since: int, until: int, limit: int) -> list[EntryInfo]:
        """Entries newest first whose event begins with ``event`` and of which an opened field contains ``about``."""
        trail = self._trail()
        if not 1 <= limit <= 100_000:
            raise InputError("limit-malformed", "A limit is between 1 and 100,000 entries.")
        out: list[EntryInfo] = []
        with self._core.database.begin() as tx:
            for seq in trail.newest(tx, event=event, since=since, until=until):
                info = _info(trail.entry(tx, seq))
                if not about or any(about.casefold() in value.casefold() for value in info.fields.values()):
                    out.append(info)
                if len(out) == limit:
                    break
        self._core.record(Entry(event=Event.TRAIL_VIEWED, object_type="trail", who=self._core.who(), details={"shown": len(out)}))
        return out

    async def export(self, path: str, *, form: str, study: str, site: str, category: str) -> Exported:
        """Write the trail to a new file.

        Raises:
            InputError: ``form-unknown``, ``file-exists``, ``scope-unknown``, ``excerpt-needs-bundle``.
            UnavailableError: ``disk-full``.
        """
        trail = self._trail()
        wanted = [
            Scope(kind=kind, name=name) for kind, name in (("study", study), ("site", site), ("category", category)) if name
        ]
        if form not in FORMS:
            raise InputError("form-unknown", f"A trail is exported as {', '.join(FORMS)}.")
        if wanted and form != "bundle":
            raise InputError("excerpt-needs-bundle", "Only a bundle can be an excerpt that proves its completeness.")
        target = Path(path).expanduser()
        if target.exists():
            raise InputError("file-exists", f"There is already a file {str(target)!r}.", hint="Choose another name.")
        self._note_export(form, wanted)
        with self._core.database.begin() as tx:
            checkpoint = parse_note(trail.newest_checkpoint(tx)).checkpoint
            cosigned = len({size for size, *_ in trail.cosigned(tx)})
        size = await asyncio.to_thread(write_new, target, self._pieces(form, wanted, checkpoint.size))
        return Exported(path=str(target), form=form, entries=checkpoint.size, size=size, cosigned=cosigned)

    def _note_export(self, form: str, wanted: list[Scope]) -> None:
        trail = self._trail()
        exported = Entry(
            event=Event.TRAIL_EXPORTED,
            object_type="trail",
            who=self._core.who(),
            new=form,
            details={scope.kind: scope.name for scope in wanted},
        )
        with self._core.act() as tx:
            known = dict(trail.scopes(tx))
            for scope in wanted:
                if scope not in known:
                    raise InputError("scope-unknown", f"The trail knows no {scope.kind} of this name.")
            heads = [known[scope] for scope in wanted] if wanted else list(known.values())
            if heads:
                entry = Entry(event=Event.TRAIL_SCOPE_HEADS, object_type="trail", who=self._core.who(actor="program"))
                trail.append(tx, entry, heads=heads[:500])
            trail.append(tx, exported)
        self._core.notices.publish("trail")

    def _pieces(self, form: str, wanted: list[Scope], size: int) -> list[bytes]:
        with self._core.database.begin() as tx:
            if form == "bundle":
                return list(self._bundle(tx, wanted, size))
            rows = ((row(parse_leaf(item.leaf), item.openings)) for item in self._trail().entries(tx, last=size - 1))
            lines = csv_lines(rows) if form == "csv" else jsonl_lines(rows)
            return [line.encode() for line in lines]

    def _bundle(self, tx: Connection, wanted: list[Scope], size: int) -> Iterator[bytes]:
        trail, identity = self._trail(), self._core.require()
        tags = {tag_of(identity.scope_key, scope): scope for scope in wanted}
        chosen: list[int] | range = self._chosen(tx, set(tags), size) if wanted else range(size)
        cosigned: dict[int, list[str]] = {}
        cosigners: set[str] = set()
        for at, cosigner, _, line in trail.cosigned(tx):
            if at <= size:
                cosigned.setdefault(at, []).append(line)
                cosigners.add(cosigner)
        stops = sorted({*cosigned, *(at for at, _ in trail.epoch_checkpoints(tx) if at <= size), size})
        heads = {head.tag: head.counter for _, head in trail.scopes(tx)}
        card, now = self._core.require_card().body, self._core.clock.now()
        index = Index(
            about="The audit trail of a labxchange node. Verify it offline with `labxchange audit verify`.",
            origin=parse_note(trail.checkpoint_at(tx, size)).checkpoint.origin,
            name=card.name,
            organisation=card.organisation,
            fingerprint=trail.fingerprint,
            entries=size,
            shown=len(chosen),
            scopes=tuple(
                OwnScope(scope=scope, key=scope_key(identity.scope_key, scope), first=1, last=heads[tag])
                for tag, scope in tags.items()
            ),
            filter={scope.kind: scope.name for scope in wanted},
            exported_ms=now,
            exported=utc_text(now),
            software=SOFTWARE,
        )
        told = self._statements(tx, chosen if wanted else None)
        known = people.all_contacts(tx)
        yield from bundle(
            index,
            owner_cards=[self._core.require_card().envelope],
            counterparty_cards=[item.card for item in known if item.key in cosigners or not wanted or told],
            seen=[] if wanted else [seen[0].note for item in known if (seen := people.witnessed_of(tx, item.key))],
            statements=told,
            items=self._items(tx, chosen, stops, cosigned, size),
            sign=identity.sign_trail,
        )

    def _chosen(self, tx: Connection, tags: set[str], size: int) -> list[int]:
        """Entries of the scopes, and those that any reading needs: the first, starts, restores, heads."""
        always = {Event.TRAIL_SCOPE_HEADS.value, Event.TRAIL_RESTORED.value, Event.SYSTEM_STARTED.value}
        out = []
        for item in self._trail().entries(tx, last=size - 1):
            leaf = parse_leaf(item.leaf)
            if item.seq == 0 or leaf.event in always or any(scope.tag in tags for scope in leaf.scopes):
                out.append(item.seq)
        return out

    def _statements(self, tx: Connection, chosen: list[int] | range | None) -> list[bytes]:
        """The statements that the entries speak of: all of the exchange, or those of the transfers that are shown."""
        if chosen is None:
            return [envelope for kind in _STATEMENTS for envelope in statements.of_kind(tx, kind)]
        named: dict[str, None] = {}
        for seq in chosen:
            info = _info(self._trail().entry(tx, seq))
            if info.object_type == "transfer":
                named[info.fields.get("object_id", "")] = None
        return [envelope for transfer in named for kind in _STATEMENTS for envelope in statements.about(tx, transfer, kind)]

    def _items(
        self, tx: Connection, chosen: range | list[int], stops: list[int], cosigned: dict[int, list[str]], size: int
    ) -> Iterator[Item]:
        trail, node = self._trail(), self._trail().nodes(tx)
        pending, at = list(stops), 0
        for level, position, shown in plan(size, shown=chosen, breaks=stops):
            if shown:
                item = trail.entry(tx, position)
                yield Shown(seq=item.seq, leaf=item.leaf, openings=item.openings)
                at += 1
            else:
                yield Hidden(level=level, index=position, hash=node(level, position))
                at += 1 << level
            while pending and pending[0] <= at:
                here = pending.pop(0)
                yield Signed(note=parse_note(trail.checkpoint_at(tx, here)), cosignatures=cosigned.get(here, []))

    def backup(self, path: str) -> None:
        """Everything in one new file: the database as it stands, the keys sealed.

        Raises:
            InputError: ``file-exists``.
            UnavailableError: ``disk-full``, ``disk-error``.
        """
        self._core.require()
        target = Path(path).expanduser()
        if target.exists():
            raise InputError("file-exists", f"There is already a file {str(target)!r}.", hint="Choose another name.")
        self._core.record(Entry(event=Event.IDENTITY_BACKED_UP, object_type="node", who=self._core.who()))
        write_new(target, [])
        try:
            self._core.database.backup(target, settings={"backup-identity": self._core.home.identity.read_bytes()})
        except LabxchangeError:
            target.unlink(missing_ok=True)
            raise


def _info(item: StoredEntry) -> EntryInfo:
    leaf = parse_leaf(item.leaf)
    cells = row(leaf, item.openings)
    opened = {name: value for name, value in cells.items() if name in leaf.fields}
    return EntryInfo(
        seq=item.seq,
        utc=leaf.utc_ms,
        event=leaf.event,
        object_type=leaf.object_type,
        result=leaf.result,
        result_code=leaf.result_code,
        fields=opened,
    )
