"""The audit trail on disk: appends entries, signs checkpoints, opens fields, fetches proofs.

Life of an entry: ``append`` gives it its place, writes the leaf verbatim, the finished tree nodes and the sealed openings into
the caller's transaction; ``seal`` signs a checkpoint over them before the commit. So an entry, its effect and its checkpoint
are durable together or not at all; after a transaction that failed, ``reload`` takes up what the disk holds.
Rules: insert-only (nothing here updates or deletes a leaf, a node or a checkpoint); a locked node writes only the events of
``WHILE_LOCKED``, with open fields alone. What an entry says is left to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import convert
from sqlalchemy import Connection, func, insert, select

from labxchange.audit.checkpoint import Checkpoint, Note, Origin, parse_note, sign_note
from labxchange.audit.entry import Entry
from labxchange.audit.events import WHILE_LOCKED, Event
from labxchange.audit.leaf import SALT_BYTES, Opening, Parsed, build, parse
from labxchange.audit.scope import Scope, ScopeCount, tag_of
from labxchange.encoding import frame
from labxchange.errors import NodeLocked
from labxchange.identity.fingerprint import fingerprint
from labxchange.identity.keys import Identity
from labxchange.merkle import Frontier, consistency_proof, inclusion_proof
from labxchange.store import settings
from labxchange.store.damage import reading
from labxchange.store.tables import (
    trail_checkpoints,
    trail_cosignatures,
    trail_entries,
    trail_nodes,
    trail_openings,
    trail_scopes,
    trail_subjects,
)

_EPOCH = "trail-epoch"


class Stamp(NamedTuple):
    """When: UTC milliseconds, local time with offset and zone, milliseconds since the node started, where the time is from."""

    utc_ms: int
    local: str
    monotonic_ms: int
    source: str


class StoredEntry(NamedTuple):
    """A leaf and the openings that this node can still decrypt."""

    seq: int
    leaf: bytes
    openings: tuple[Opening, ...]

    def parsed(self) -> Parsed:
        """Raises IntegrityError ``database-damaged``."""
        return _parsed(self.seq, self.leaf)


class Trail:
    """The one trail of this node. All methods work inside the caller's transaction.

    Args:
        public: the owner's identity key; known also while the node is locked.
        stamp: gives the time of an entry.
        random_bytes: for salts, nonces, ids.
    """

    def __init__(self, public: bytes, *, stamp: Callable[[], Stamp], random_bytes: Callable[[int], bytes], software: str) -> None:
        self.fingerprint = fingerprint(public)
        self._stamp = stamp
        self._random = random_bytes
        self._software = software
        self._identity: Identity | None = None
        self._frontier = Frontier()
        self._epoch = 0
        self._unsealed = False
        self._subjects: dict[str, tuple[int, AESGCM]] = {}

    def unlock(self, identity: Identity) -> None:
        self._identity = identity

    def lock(self) -> None:
        self._identity = None
        self._subjects.clear()

    @property
    def size(self) -> int:
        return self._frontier.size

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def origin(self) -> str:
        return str(Origin(fingerprint=self.fingerprint, epoch=self._epoch))

    def reload(self, tx: Connection) -> None:
        """Take up what the disk holds: at start, and after a transaction that failed."""
        epoch = settings.number(tx, _EPOCH)
        if not epoch:
            self.open_epoch(tx)
        else:
            self._epoch = epoch
        self._frontier = Frontier.load(self.stored_size(tx), self.nodes(tx))
        self._subjects.clear()
        newest = tx.execute(select(func.max(trail_checkpoints.c.size))).scalar() or 0
        self._unsealed = self._frontier.size > newest

    def stored_size(self, tx: Connection) -> int:
        newest = tx.execute(select(func.max(trail_entries.c.seq))).scalar()
        return 0 if newest is None else int(newest) + 1

    def open_epoch(self, tx: Connection) -> None:
        """Begin a new epoch: for a new trail, and after a restore."""
        self._epoch = max(self._stamp().utc_ms, self._epoch + 1)
        settings.put(tx, _EPOCH, str(self._epoch).encode())

    def append(self, tx: Connection, entry: Entry, *, heads: Sequence[ScopeCount] = ()) -> int:
        """Write one entry; returns its seq.

        Raises:
            NodeLocked: the entry has fields that need the keys.
        """
        stamp = self._stamp()
        if self._identity is None:
            if entry.event not in WHILE_LOCKED:
                raise NodeLocked
            entry = Entry(event=entry.event, object_type=entry.object_type, result=entry.result, result_code=entry.result_code)
            stamp = stamp._replace(local="")
        seq = self._frontier.size
        leaf = build(
            entry,
            seq=seq,
            id=self._random(16).hex(),
            origin=self.origin,
            utc_ms=stamp.utc_ms,
            local=stamp.local,
            monotonic_ms=stamp.monotonic_ms,
            clock_source=stamp.source,
            software=self._software,
            scopes=[self._count(tx, scope) for scope in entry.scopes],
            salts=lambda: self._random(SALT_BYTES),
            heads=heads,
        )
        nodes = [{"level": level, "position": at, "hash": value} for level, at, value in self._frontier.append(leaf.hash)]
        sealed = [self._seal(tx, seq, opening) for opening in leaf.openings]
        with reading("The audit trail"):  # where there is already an entry that the disk did not show
            tx.execute(insert(trail_entries).values(seq=seq, event=entry.event.value, utc_ms=stamp.utc_ms, leaf=leaf.data))
            tx.execute(insert(trail_nodes), nodes)
            if sealed:
                tx.execute(insert(trail_openings), sealed)
        self._unsealed = True
        return seq

    def seal(self, tx: Connection) -> None:
        """Sign a checkpoint over all entries, where the keys are there and something is new."""
        if self._unsealed and self._identity is not None:
            row = {"size": self.size, "epoch": self._epoch, "note": self.sign(self._identity)}
            tx.execute(insert(trail_checkpoints).values(**row))
            self._unsealed = False

    def sign(self, identity: Identity) -> str:
        checkpoint = Checkpoint(origin=self.origin, size=self.size, root=self._frontier.root())
        return sign_note(checkpoint, sign=identity.sign_trail, public=identity.trail_public)

    def _count(self, tx: Connection, scope: Scope) -> ScopeCount:
        assert self._identity is not None
        tag = tag_of(self._identity.scope_key, scope)
        head = tx.execute(select(trail_scopes.c.head).where(trail_scopes.c.tag == tag)).scalar()
        if head is None:
            nonce = self._random(12)
            name = nonce + AESGCM(self._identity.store_key).encrypt(nonce, scope.name.encode(), frame("scope", tag))
            tx.execute(insert(trail_scopes).values(tag=tag, kind=scope.kind, name=name, head=1))
            return ScopeCount(tag=tag, counter=1)
        tx.execute(trail_scopes.update().where(trail_scopes.c.tag == tag).values(head=head + 1))
        return ScopeCount(tag=tag, counter=head + 1)

    def scopes(self, tx: Connection) -> list[tuple[Scope, ScopeCount]]:
        """Every scope of this trail with its newest counter."""
        if self._identity is None:
            raise NodeLocked
        box, out = AESGCM(self._identity.store_key), []
        for tag, kind, name, head in tx.execute(select(trail_scopes).order_by(trail_scopes.c.kind, trail_scopes.c.tag)):
            with reading("The name of a study, site or category"):
                plain = box.decrypt(name[:12], name[12:], frame("scope", tag)).decode()
            out.append((Scope(kind=kind, name=plain), ScopeCount(tag=tag, counter=head)))
        return out

    # --- openings -----------------------------------------------------------------------------------------------------
    def _subject(self, tx: Connection, subject: str) -> tuple[int, AESGCM]:
        known = self._subjects.get(subject)
        if known is not None:
            return known
        assert self._identity is not None
        box = AESGCM(self._identity.store_key)
        query = select(trail_subjects.c.id, trail_subjects.c.wrapped).where(trail_subjects.c.subject == subject)
        row = tx.execute(query).first()
        if row is None:
            key, nonce = self._random(32), self._random(12)
            wrapped = nonce + box.encrypt(nonce, key, frame("subject", subject))
            inserted = tx.execute(insert(trail_subjects).values(subject=subject, wrapped=wrapped)).inserted_primary_key
            assert inserted is not None
            found = (int(inserted[0]), AESGCM(key))
        else:
            with reading("A key of the audit trail"):
                key = box.decrypt(row.wrapped[:12], row.wrapped[12:], frame("subject", subject))
            found = (int(row.id), AESGCM(key))
        self._subjects[subject] = found
        return found

    def _seal(self, tx: Connection, seq: int, opening: Opening) -> dict[str, object]:
        subject, box = self._subject(tx, opening.subject)
        nonce = self._random(12)
        sealed = nonce + box.encrypt(nonce, opening.salt + opening.value, frame(seq, opening.name))
        return {"seq": seq, "name": opening.name, "subject": subject, "sealed": sealed}

    def openings(self, tx: Connection, seq: int) -> tuple[Opening, ...]:
        """What this node can open of entry ``seq``; fields whose subject's key was destroyed are left out."""
        if self._identity is None:
            raise NodeLocked
        query = select(trail_openings.c.name, trail_openings.c.sealed, trail_subjects.c.subject)
        query = query.join(trail_subjects, trail_subjects.c.id == trail_openings.c.subject)
        opened: list[Opening] = []
        for name, sealed, subject in tx.execute(query.where(trail_openings.c.seq == seq)).all():
            _, box = self._subject(tx, subject)
            try:
                plain = box.decrypt(sealed[:12], sealed[12:], frame(seq, name))
            except (InvalidTag, TypeError):
                continue
            opened.append(Opening(name=name, subject=subject, salt=plain[:SALT_BYTES], value=plain[SALT_BYTES:]))
        return tuple(opened)

    def newest(
        self,
        tx: Connection,
        *,
        event: str = "",
        since: int = 0,
        until: int = 0,
        below: int | None = None,
        count: int | None = None,
    ) -> Iterator[int]:
        """Seqs, newest first, of entries whose event begins with ``event``, between two times (UTC ms; 0: open); at most
        ``count`` of them, all smaller than ``below``."""
        query = select(trail_entries.c.seq).order_by(trail_entries.c.seq.desc())
        if event:
            query = query.where(trail_entries.c.event.startswith(event, autoescape=True))
        if since:
            query = query.where(trail_entries.c.utc_ms >= since)
        if until:
            query = query.where(trail_entries.c.utc_ms < until)
        if below is not None:
            query = query.where(trail_entries.c.seq < below)
        if count is not None:
            query = query.limit(count)
        yield from tx.execute(query).scalars().all()

    def entry(self, tx: Connection, seq: int) -> StoredEntry:
        return StoredEntry(seq=seq, leaf=self.leaf(tx, seq), openings=self.openings(tx, seq))

    def entries(self, tx: Connection, *, first: int = 0, last: int | None = None) -> Iterator[StoredEntry]:
        """Entries first..last (inclusive; None: to the end) in order."""
        end = self.size - 1 if last is None else min(last, self.size - 1)
        for start in range(first, end + 1, 500):
            where = trail_entries.c.seq.between(start, min(start + 499, end))
            rows = tx.execute(select(trail_entries.c.seq, trail_entries.c.leaf).where(where).order_by(trail_entries.c.seq))
            for seq, leaf in rows.all():
                yield StoredEntry(seq=int(seq), leaf=bytes(leaf), openings=self.openings(tx, int(seq)))

    def epoch_begin(self, tx: Connection) -> int | None:
        """The seq of this epoch's first entry, ``trail.restored``; None for the first epoch of a trail."""
        where = trail_entries.c.event == Event.TRAIL_RESTORED.value
        for seq in tx.execute(select(trail_entries.c.seq).where(where).order_by(trail_entries.c.seq)).scalars().all():
            if self.parsed(tx, seq).origin == self.origin:
                return int(seq)
        return None

    def leaf(self, tx: Connection, seq: int) -> bytes:
        """Verbatim; raises IntegrityError ``database-damaged`` when it is not there."""
        with reading(_name(seq)):
            return convert(tx.execute(select(trail_entries.c.leaf).where(trail_entries.c.seq == seq)).scalar_one(), bytes)

    def parsed(self, tx: Connection, seq: int) -> Parsed:
        """Raises IntegrityError ``database-damaged``."""
        return _parsed(seq, self.leaf(tx, seq))

    # --- tree ---------------------------------------------------------------------------------------------------------
    def nodes(self, tx: Connection) -> Callable[[int, int], bytes]:
        def fetch(level: int, position: int) -> bytes:
            where = (trail_nodes.c.level == level, trail_nodes.c.position == position)
            with reading("The audit trail"):
                return convert(tx.execute(select(trail_nodes.c.hash).where(*where)).scalar_one(), bytes)

        return fetch

    def consistency(self, tx: Connection, old: int, new: int) -> list[bytes]:
        return consistency_proof(old, new, self.nodes(tx))

    def inclusion(self, tx: Connection, seq: int, size: int) -> list[bytes]:
        return inclusion_proof(seq, size, self.nodes(tx))

    def newest_checkpoint(self, tx: Connection) -> str:
        """The signed note over the largest size; empty for a trail that was never sealed."""
        query = select(trail_checkpoints.c.note).order_by(trail_checkpoints.c.size.desc()).limit(1)
        return tx.execute(query).scalar() or ""

    def note_at(self, tx: Connection, size: int) -> Note:
        """The checkpoint over the first ``size`` entries, which must be there; raises IntegrityError ``database-damaged``."""
        with reading("A checkpoint of the audit trail"):
            return parse_note(self.checkpoint_at(tx, size))

    def checkpoint_at(self, tx: Connection, size: int) -> str:
        return tx.execute(select(trail_checkpoints.c.note).where(trail_checkpoints.c.size == size)).scalar() or ""

    def add_cosignature(self, tx: Connection, *, size: int, cosigner: str, line: str) -> None:
        tx.execute(insert(trail_cosignatures).prefix_with("OR IGNORE").values(size=size, cosigner=cosigner, line=line))

    def cosigned(self, tx: Connection) -> list[tuple[int, str, str, str]]:
        """Cosigned checkpoints as (size, cosigner's key, note, cosignature line), smallest first."""
        query = select(
            trail_cosignatures.c.size, trail_cosignatures.c.cosigner, trail_checkpoints.c.note, trail_cosignatures.c.line
        )
        query = query.join(trail_checkpoints, trail_checkpoints.c.size == trail_cosignatures.c.size)
        return [tuple(row) for row in tx.execute(query.order_by(trail_cosignatures.c.size))]

    def epoch_checkpoints(self, tx: Connection) -> list[tuple[int, str]]:
        """The last checkpoint of each epoch, as (size, note)."""
        newest = select(func.max(trail_checkpoints.c.size)).group_by(trail_checkpoints.c.epoch)
        query = select(trail_checkpoints.c.size, trail_checkpoints.c.note).where(trail_checkpoints.c.size.in_(newest))
        return [(int(row[0]), str(row[1])) for row in tx.execute(query.order_by(trail_checkpoints.c.size))]


def _name(seq: int) -> str:
    return f"Entry {seq} of the audit trail"


def _parsed(seq: int, leaf: bytes) -> Parsed:
    with reading(_name(seq)):
        return parse(leaf)
