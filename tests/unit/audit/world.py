"""A trail kept in memory, as the node keeps it in its store: for the tests of the audit package.

Everything is derived from a seed text: keys, salts, times. Nothing here is used outside tests.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

from labxchange.audit import checkpoint as cp
from labxchange.audit import export, leaf
from labxchange.audit.entry import Entry, Who
from labxchange.audit.events import Event
from labxchange.audit.scope import Scope, ScopeCount, scope_key, tag_of
from labxchange.audit.witness import EpochStart, Seen
from labxchange.encoding import b64encode, dump_json, frame
from labxchange.identity.card import Card
from labxchange.identity.fingerprint import fingerprint
from labxchange.identity.keys import Identity
from labxchange.identity.statement import pre_authentication, sign
from labxchange.merkle import Frontier, consistency_proof, inclusion_proof

START_MS = 1_760_000_000_000
SOFTWARE = "labxchange 0.1.0"


class Party:
    """An identity with a signed card."""

    def __init__(self, seed: str, name: str, organisation: str) -> None:
        self.identity = Identity(sha256(seed.encode()).digest())
        self.name, self.organisation = name, organisation
        self.fingerprint = fingerprint(self.identity.public)
        self.key = self.identity.public.hex()
        card = Card(
            issuer=self.key,
            issued=START_MS,
            trail_key=self.identity.trail_public.hex(),
            cosign_key=self.identity.cosign_public.hex(),
            name=name,
            organisation=organisation,
            role="",
            country="",
            addresses=[],
        )
        self.card = sign(card, self.identity).envelope

    def statement(self, kind: str, **fields: object) -> bytes:
        """Any statement, signed: the verifier reads kinds that other packages define."""
        payload = dump_json({"issuer": self.key, "issued": START_MS, **fields})
        payload_type = f"application/vnd.labxchange.{kind}.v1+json"
        signature = self.identity.sign(pre_authentication(payload_type, payload))
        return dump_json(
            {"payload": b64encode(payload), "payloadType": payload_type, "signatures": [{"sig": b64encode(signature)}]}
        )


class Trail:
    """Entries, tree, checkpoints and cosignatures of one party."""

    def __init__(self, party: Party, seed: str = "salts") -> None:
        self.party = party
        self.epoch = 1
        self.leaves: list[leaf.Leaf] = []
        self.nodes: dict[tuple[int, int], bytes] = {}
        self.frontier = Frontier()
        self.counters: dict[str, int] = {}
        self.notes: dict[int, cp.Note] = {}
        self.cosignatures: dict[int, list[str]] = {}
        self.statements: list[bytes] = []
        self.seen: list[str] = []
        self.monotonic = 0
        self.now_ms = START_MS
        self._salts = 0
        self._seed = seed

    def salt(self) -> bytes:
        self._salts += 1
        return sha256(f"{self._seed} {self._salts}".encode()).digest()

    @property
    def origin(self) -> str:
        return str(cp.Origin(fingerprint=self.party.fingerprint, epoch=self.epoch))

    @property
    def size(self) -> int:
        return len(self.leaves)

    def node(self, level: int, index: int) -> bytes:
        return self.nodes[level, index]

    def write(self, entry: Entry, *, heads: Sequence[ScopeCount] = (), step_ms: int = 1000) -> int:
        """Append an entry; returns its seq."""
        self.now_ms += step_ms
        self.monotonic = 0 if entry.event is Event.SYSTEM_STARTED else self.monotonic + abs(step_ms)
        tags = []
        for scope in entry.scopes:
            tag = tag_of(self.party.identity.scope_key, scope)
            self.counters[tag] = self.counters.get(tag, 0) + 1
            tags.append(ScopeCount(tag=tag, counter=self.counters[tag]))
        built = leaf.build(
            entry,
            seq=self.size,
            id=sha256(f"{self._seed} id {self.size}".encode()).hexdigest()[:32],
            origin=self.origin,
            utc_ms=self.now_ms,
            local="" if entry.event in (Event.ACCESS_DENIED,) else "2025-10-09T10:53:20+02:00[Europe/Berlin]",
            monotonic_ms=self.monotonic,
            clock_source="system",
            software=SOFTWARE,
            scopes=tags,
            salts=self.salt,
            heads=heads,
        )
        self.append(built)
        return self.size - 1

    def append(self, built: leaf.Leaf) -> None:
        self.leaves.append(built)
        for level, index, value in self.frontier.append(built.hash):
            self.nodes[level, index] = value

    def checkpoint(self) -> cp.Note:
        """Sign the tree as it is."""
        point = cp.Checkpoint(origin=self.origin, size=self.size, root=self.frontier.root())
        text = cp.sign_note(point, sign=self.party.identity.sign_trail, public=self.party.identity.trail_public)
        self.notes[self.size] = cp.parse_note(text)
        return self.notes[self.size]

    def cosigned_by(self, other: Party, *, time_s: int = 0) -> str:
        """Let ``other`` cosign the newest checkpoint; returns the line."""
        note = self.notes[max(self.notes)]
        line = cp.cosign(
            note.checkpoint,
            name=cp.cosigner_name(other.fingerprint),
            sign=other.identity.sign_cosign,
            public=other.identity.cosign_public,
            time_s=time_s or self.now_ms // 1000,
        )
        self.cosignatures.setdefault(note.checkpoint.size, []).append(line)
        return line

    def seen_at(self, size: int) -> Seen:
        note = self.notes[size]
        return Seen(checkpoint=note.checkpoint, note=note.text)

    def consistency(self, old: int, new: int) -> list[bytes]:
        return consistency_proof(old, new, self.node)

    def restored(self, held: int, *, epoch: int, seed: str = "restored") -> Trail:
        """The trail after a restore of a backup that held ``held`` entries, with its first entry written."""
        after = Trail(self.party, seed)
        after.epoch, after.now_ms = epoch, self.now_ms + 60_000
        for built in self.leaves[:held]:
            after.append(built)
            for item in leaf.parse(built.data).scopes:
                after.counters[item.tag] = item.counter
        after.notes = {size: note for size, note in self.notes.items() if size <= held}
        after.cosignatures = {size: lines for size, lines in self.cosignatures.items() if size <= held}
        last = max(after.notes, default=0)
        entry = Entry(
            event=Event.TRAIL_RESTORED,
            object_type="checkpoint",
            object_id=self.origin,
            object_digest=after.notes[last].checkpoint.root.hex() if last else "",
            details={"size": last},
        )
        after.write(entry)
        return after

    def epoch_start(self, seq: int) -> EpochStart:
        return EpochStart(leaf=self.leaves[seq].data, proof=tuple(inclusion_proof(seq, self.size, self.node)))

    def bundle(
        self,
        *,
        shown: Iterable[int] | None = None,
        parties: Sequence[Party] = (),
        scopes: Sequence[export.OwnScope] = (),
        openings: Callable[[int], bool] = lambda _: True,
        exported_ms: int = 0,
        successions: Sequence[export.Succession] = (),
        owner_cards: Sequence[bytes] = (),
        cosigned_only: bool = False,
    ) -> bytes:
        """The exported file."""
        seqs = range(self.size) if shown is None else sorted(set(shown))
        sizes = sorted(size for size in self.notes if not cosigned_only or size in self.cosignatures or size == self.size)
        index = export.Index(
            about="The audit trail of one labxchange node. Check it with `labxchange audit verify FILE`.",
            origin=self.origin,
            name=self.party.name,
            organisation=self.party.organisation,
            fingerprint=self.party.fingerprint,
            entries=self.size,
            shown=len(seqs),
            scopes=tuple(scopes),
            exported_ms=exported_ms or self.now_ms + 1000,
            exported="2025-10-09",
            software=SOFTWARE,
        )
        lines = export.bundle(
            index,
            owner_cards=owner_cards or [self.party.card],
            counterparty_cards=[party.card for party in parties],
            successions=successions,
            seen=self.seen,
            statements=self.statements,
            items=self._items(seqs, sizes, openings),
            sign=self.party.identity.sign_trail,
        )
        return b"".join(lines)

    def _items(self, seqs: Sequence[int], sizes: Sequence[int], openings: Callable[[int], bool]) -> Iterable[export.Item]:
        at = 0
        for level, index, is_shown in export.plan(self.size, shown=seqs, breaks=sizes):
            if is_shown:
                built = self.leaves[index]
                yield export.Shown(seq=index, leaf=built.data, openings=built.openings if openings(index) else ())
            else:
                yield export.Hidden(level=level, index=index, hash=self.node(level, index))
            at += 1 << level
            if at in self.notes and at in sizes:
                yield export.Signed(note=self.notes[at], cosignatures=self.cosignatures.get(at, ()))

    def own_scope(self, scope: Scope, *, first: int = 1, last: int | None = None) -> export.OwnScope:
        key = scope_key(self.party.identity.scope_key, scope)
        head = self.counters.get(tag_of(self.party.identity.scope_key, scope), 0)
        return export.OwnScope(scope=scope, key=key, first=first, last=head if last is None else last)

    def write_heads(self, *scopes: Scope) -> int:
        tags = [tag_of(self.party.identity.scope_key, scope) for scope in scopes]
        heads = [ScopeCount(tag=tag, counter=self.counters.get(tag, 0)) for tag in tags]
        return self.write(Entry(event=Event.TRAIL_SCOPE_HEADS, object_type="trail"), heads=heads)


def sealed_again(lines: Sequence[bytes]) -> bytes:
    """The sponsor counts and signs a file again after its lines were changed; what cannot be counted is left as it is."""
    values = [json.loads(line) for line in lines]
    kept = [line for line, value in zip(lines, values, strict=True) if value.get("t") != "end"]
    shown = sum(value.get("t") == "leaf" for value in values)
    entries = shown + sum(value.get("t") == "hash" for value in values)
    levels = [value.get("level") for value in values if value.get("t") == "subtree"]
    entries += sum(1 << level for level in levels if isinstance(level, int) and 0 <= level < 50)
    if values and values[0].get("t") == "index":
        kept[0] = dump_json({**values[0], "entries": entries, "shown": shown}) + b"\n"
    signature = SPONSOR.identity.sign_trail(frame("labxchange bundle v1", sha256(b"".join(kept)).digest()))
    end = {"t": "end", "lines": len(kept), "entries": entries, "shown": shown, "signature": b64encode(signature)}
    return b"".join(kept) + dump_json(end) + b"\n"


SPONSOR = Party("sponsor", "Ada Sponsor", "Acme Pharma")
CRO = Party("cro", "Ben Receiver", "Contract Research Ltd")
STRANGER = Party("stranger", "Eve Other", "Nobody Inc")


def entry(number: int, *, event: Event = Event.SHARE_CREATED, **fields: str) -> Entry:
    """One of many different entries: every third in study X, every fifth at site 7."""
    values: dict[str, str] = {
        "object_type": "share",
        "object_id": f"{number:032x}",
        "study": "X" if number % 3 == 0 else "",
        "site": "7" if number % 5 == 0 else "",
        "old": "",
        "new": f"/data/fïle {number}\n",
        "counterparty": CRO.key,
        **fields,
    }
    return Entry(event=event, who=Who(person="Ada Sponsor", role="data manager", key=SPONSOR.key, actor="person"), **values)


def sample(size: int, *, every: int = 5, cosign: bool = True, party: Party = SPONSOR, other: Party = CRO) -> Trail:
    """A trail of ``size`` entries with a checkpoint after each ``every`` and at the end, all cosigned but the last."""
    trail = Trail(party)
    trail.write(Entry(event=Event.SYSTEM_STARTED))
    for number in range(1, size):
        if number % 11 == 0:
            transfer = f"{number:032x}"
            trail.write(
                entry(number, event=Event.TRANSFER_COMPLETED, object_type="transfer", object_id=transfer, counterparty=other.key)
            )
            trail.statements.append(other.statement("receipt", transfer=transfer, level="intact"))
        elif number % 13 == 0:
            trail.write(Entry(event=Event.SYSTEM_STARTED))
        else:
            trail.write(entry(number))
        if trail.size % every == 0 and trail.size < size:
            trail.checkpoint()
            if cosign:
                trail.cosigned_by(other)
    trail.checkpoint()
    return trail
