"""Trails witnessed: each session, each side shows the head of its trail, proves that it only grew, and gets it cosigned.

What was seen last is persisted before the answer. A trail that diverged or was rolled back stops all work with that contact until
a person decides; both checkpoints are kept as evidence. The rule itself is ``audit.witness``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from msgspec.structs import replace

from labxchange.audit.checkpoint import (
    Checkpoint,
    cosign,
    cosigner_name,
    parse_note,
    parse_origin,
    parse_signature_line,
    verify_cosignature,
    verify_note,
)
from labxchange.audit.events import Event
from labxchange.audit.witness import EpochStart, Forked, Restored, RolledBack, Seen, held_size, judge, may_cosign
from labxchange.errors import PeerError, RefusedError
from labxchange.identity.fingerprint import fingerprint
from labxchange.net.channel import Channel, Stream
from labxchange.node.budget import Budget
from labxchange.node.contacts import Contacts
from labxchange.node.core import Core
from labxchange.node.refusals import raise_refused
from labxchange.settings import ANSWER_S
from labxchange.store import people
from labxchange.store.damage import reading
from labxchange.store.people import Contact, Evidence, Witnessed
from labxchange.wire.control.messages import (
    AskProof,
    Consistency,
    Cosigned,
    Refused,
    Witness,
    decode,
    decode_answer,
    encode,
)

STOPPED = ("diverged", "rolled-back")


class Witnessing:
    """Both sides of the exchange of one node.

    Args:
        seen: told when a contact's checkpoint was cosigned here.
    """

    def __init__(self, core: Core, contacts: Contacts, budget: Budget, *, seen: Callable[[Channel], None]) -> None:
        self._core = core
        self._contacts = contacts
        self._budget = budget
        self._seen = seen
        self._refused: set[str] = set()
        self._turns: dict[str, asyncio.Lock] = {}
        self._showing: dict[str, asyncio.Lock] = {}

    # --- our trail ----------------------------------------------------------------------------------------------------
    async def show(self, channel: Channel, *, again: bool = False) -> None:
        """Have our newest checkpoint cosigned; ``again``: only if the peer refused the one before.

        Raises:
            RefusedError: the peer does not cosign; nothing is exchanged until it is settled.
            PeerError, UnavailableError.
        """
        # One head after the other: of two at once, the smaller could come second, and that is what a rollback looks like.
        key = channel.peer_key.hex()
        async with self._showing.setdefault(key, asyncio.Lock()):
            if again and key not in self._refused:
                return
            try:
                await self._show(channel)
            except RefusedError:
                self._refused.add(key)
                raise

    async def _show(self, channel: Channel) -> None:
        trail = self._core.trail
        row = self._contacts.get(channel.peer_key.hex())
        if trail is None or row is None or row.state != "verified" or not self._budget.has(row.key):
            return  # a contact that makes this node write too much cannot have more by connecting again and again
        self._budget.spend(row.key, 2)
        with self._core.act(
            self._contacts.entry(Event.TRAIL_CHECKPOINT, row, object_type="trail", who=self._core.who(actor="program"))
        ):
            pass
        with self._core.database.begin() as tx:
            note = trail.newest_checkpoint(tx)
        checkpoint = parse_note(note).checkpoint
        stream = await channel.open()
        async with stream:
            await stream.send(encode(Witness(note=note)))
            asked = decode_answer(await stream.receive(ANSWER_S))
            if isinstance(asked, Refused):
                raise_refused(asked.statement, channel)
            if not isinstance(asked, AskProof):
                raise PeerError("out-of-order", "The other node gave an answer to another question.")
            await stream.send(encode(self._proof(asked, checkpoint)), end=True)
            answer = decode_answer(await stream.receive(ANSWER_S))
            if isinstance(answer, Refused):
                raise_refused(answer.statement, channel)
            if not isinstance(answer, Cosigned):
                raise PeerError("out-of-order", "The other node gave an answer to another question.")
        line = parse_signature_line(answer.line)
        cosigner = channel.card.body
        name = cosigner_name(fingerprint(channel.peer_key))
        verify_cosignature(checkpoint, line, name=name, public=bytes.fromhex(cosigner.cosign_key))
        entry = self._contacts.entry(
            Event.TRAIL_COSIGNED, row, object_type="trail", who=self._core.who(actor="program"), details={"size": checkpoint.size}
        )
        with self._core.act(entry) as tx:
            trail.add_cosignature(tx, size=checkpoint.size, cosigner=cosigner.issuer, line=answer.line)
        self._refused.discard(row.key)
        self._core.notices.publish("trail")

    def _proof(self, asked: AskProof, checkpoint: Checkpoint) -> Consistency:
        trail = self._core.trail
        assert trail is not None
        with self._core.database.begin() as tx:
            first_leaf, first_proof, held = b"", [], checkpoint.size
            if asked.sizes and asked.epoch != trail.epoch:
                begin = trail.epoch_begin(tx)
                if begin is not None:
                    held, first_leaf = begin, trail.leaf(tx, begin)
                    first_proof = trail.inclusion(tx, begin, checkpoint.size)
            old = next((size for size in asked.sizes if size <= held), 0)
            proof = trail.consistency(tx, old, checkpoint.size)
        return Consistency(old=old, proof=proof, first_leaf=first_leaf, first_proof=first_proof)

    # --- the other's trail --------------------------------------------------------------------------------------------
    async def answer(self, channel: Channel, stream: Stream, request: Witness) -> None:
        """Judge and cosign a contact's checkpoint.

        Raises:
            RefusedError: ``trail-diverged``, ``trail-rolled-back``, ``trail-stopped``.
            PeerError, IntegrityError: the note or the proof is malformed or not the peer's.
        """
        async with self._turns.setdefault(channel.peer_key.hex(), asyncio.Lock()):  # two heads at once are judged one by one
            await self._answer(channel, stream, request)
        self._seen(channel)

    async def _answer(self, channel: Channel, stream: Stream, request: Witness) -> None:
        key = channel.peer_key.hex()
        checkpoint = self._verified(channel, request.note)
        with self._core.database.begin() as tx:
            seen = people.witnessed_of(tx, key)
        epoch = seen[0].epoch if seen else 0
        sizes = [item.size for item in seen][:256]
        await stream.send(encode(AskProof(epoch=epoch, sizes=sizes)))
        given = decode(await stream.receive(ANSWER_S), Consistency)
        epoch_start = EpochStart(leaf=given.first_leaf, proof=tuple(given.first_proof)) if given.first_leaf else None
        newest = _seen(seen[0]) if seen else None
        held = held_size(checkpoint, epoch_start)
        earlier = next((_seen(item) for item in seen if held is not None and item.size <= held), None)
        judgement = judge(newest, checkpoint, old_size=given.old, proof=given.proof, epoch_start=epoch_start, earlier=earlier)
        row = self._contacts.get(key)
        if row is None or row.trail in STOPPED:
            raise RefusedError("trail-stopped", "Your audit trail contradicts what was seen of it; a person must decide first.")
        if not may_cosign(judgement):
            self._stop(row, checkpoint, request.note, judgement)
        line = cosign(
            checkpoint,
            name=cosigner_name(fingerprint(self._core.public)),
            sign=self._core.require().sign_cosign,
            public=self._core.require().cosign_public,
            time_s=self._core.clock.now() // 1000,
        )
        self._remember(row, checkpoint, request.note, judgement)
        await stream.send(encode(Cosigned(line=line)), end=True)

    def check_note(self, channel: Channel, note: str) -> None:
        """The note is a checkpoint of the peer's trail, signed; raises PeerError, IntegrityError."""
        self._verified(channel, note)

    def _verified(self, channel: Channel, note: str) -> Checkpoint:
        row = self._contacts.get(channel.peer_key.hex())
        assert row is not None
        checkpoint = verify_note(parse_note(note), bytes.fromhex(people.card_of(row).trail_key))
        if parse_origin(checkpoint.origin).fingerprint != fingerprint(channel.peer_key):
            raise PeerError("foreign-trail", "The other node showed the trail of somebody else as its own.")
        return checkpoint

    def _remember(self, row: Contact, checkpoint: Checkpoint, note: str, judgement: object) -> None:
        witnessed = Witnessed(key=row.key, epoch=parse_origin(checkpoint.origin).epoch, size=checkpoint.size, note=note)
        entries = []
        if isinstance(judgement, Restored):
            text = f"restored, {judgement.missing} entries missing"
            entries.append(
                self._contacts.entry(Event.TRAIL_ROLLED_BACK, row, object_type="trail", new=text, result_code="restored")
            )
            row = replace(row, trail=text)
        with self._core.act(*entries) as tx:
            people.put_witnessed(tx, witnessed)
            if entries:
                people.put_contact(tx, row)
        if entries:
            self._core.notices.publish("contact", row.key)

    def _stop(self, row: Contact, checkpoint: Checkpoint, note: str, judgement: object) -> None:
        """Keep the evidence, stop work with the contact, refuse."""
        if not isinstance(judgement, RolledBack | Forked):
            raise PeerError("proof-stale", "The other node proved growth from a size that was not asked for.")
        diverged = isinstance(judgement, Forked)
        event = Event.TRAIL_DIVERGED if diverged else Event.TRAIL_ROLLED_BACK
        state: Literal["diverged", "rolled-back"] = "diverged" if diverged else "rolled-back"
        alert = (
            "Their audit trail contradicts what this node saw of it before."
            if diverged
            else "Their audit trail is smaller than what this node saw of it before."
        )
        entry = self._contacts.entry(
            event,
            row,
            object_type="trail",
            result="denied",
            details={"seen": judgement.seen.checkpoint.size, "shown": checkpoint.size},
        )
        now = self._core.clock.now()
        found = Evidence(key=row.key, kind=state, utc_ms=now, first=judgement.seen.note, second=note)
        with self._core.act(entry) as tx:
            people.put_evidence(tx, found)
            people.put_contact(tx, replace(row, trail=state, alert=alert))
        self._core.notices.publish("contact", row.key)
        raise RefusedError(
            f"trail-{state}",
            "Your audit trail does not extend what was seen of it before; nothing is exchanged until a person here decides.",
            hint="Tell them what happened; `labxchange contact show` shows it on their side.",
        )


def _seen(row: Witnessed) -> Seen:
    with reading("A checkpoint of a contact's trail"):
        return Seen(checkpoint=parse_note(row.note).checkpoint, note=row.note)
