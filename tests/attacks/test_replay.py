"""Row 11 of the campaign: everything that was ever said is said again - in the same session, in a later one, by another peer.

All messages of two honest nodes are recorded where they are sealed, through a whole exchange: offers, accept, pages, pieces,
progress, receipts, cosignatures, an extension, a revocation. Then each is sent again, alone and as the whole stream it stood in.
Nothing but refusals follows: every table but the trail's is as before, and the trail has refusals only.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from labxchange.errors import PeerError
from labxchange.identity.card import parse_card
from labxchange.identity.statement import Signed
from labxchange.net.channel import Stream
from labxchange.node.node import Node
from labxchange.store import statements
from labxchange.store.tables import metadata
from labxchange.wire.control import messages
from labxchange.wire.control.messages import Begin, Deliver, Fetch, GetDigests, GetPage, Waiting, Witness, encode
from tests.fuzz.evil import Faults, ScriptedChannel, must_not_fail
from tests.support.nodes import befriend, ended, share, wait_for
from tests.support.world import DAY_MS, World, settle, simulate, write_files

_LIVING = {"settings", "trail_entries", "trail_openings", "trail_subjects", "trail_nodes", "trail_checkpoints", "trail_scopes"}
REFUSALS = {"access.denied", "security.protocol-violation", "grant.denied", "transfer.refused"}


class Tape:
    """What each node said, stream by stream."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.streams: dict[tuple[int, int], list[bytes]] = {}
        self.told: dict[tuple[int, int], tuple[bytes, bytes]] = {}
        send = Stream.send

        async def recorded(stream: Stream, data: bytes, *, end: bool = False) -> None:
            name = (id(stream.channel), stream.id)
            self.streams.setdefault(name, []).append(data)
            owner: Any = stream.channel._link._owner
            self.told[name] = (owner._authority.identity.public, stream.channel.peer_key)
            self._kept.append(stream.channel)
            await send(stream, data, end=end)

        self._kept: list[Any] = []
        monkeypatch.setattr(Stream, "send", recorded)

    def said(self, one: bytes, other: bytes) -> list[list[bytes]]:
        """Everything between two nodes, stream by stream and side by side."""
        return [said for name, said in self.streams.items() if set(self.told[name]) == {one, other}]


def snapshot(node: Node) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table that is not the trail's own."""
    with node.core.database.begin() as tx:
        return {
            table.name: sorted(tuple(row) for row in tx.execute(select(table)))
            for table in metadata.sorted_tables
            if table.name not in _LIVING
        }


async def replay(node: Node, card: Signed[Any], said: list[list[bytes]], *, sessions: int) -> tuple[int, set[str]]:
    """Say each message alone and each stream whole, and each statement by itself; returns how many, and how they ended."""
    count, outcomes = 0, set()
    scripts = [[message] for stream in said for message in stream] + said
    for session in range(sessions):
        channel = ScriptedChannel(card)
        channel.th2 = bytes([session]) * 32
        for script in scripts:
            stream = channel.incoming(*script)
            count += len(script)
            try:
                await must_not_fail(node.peers._answer(channel, stream), script)  # type: ignore[arg-type]
                outcomes |= {type(messages.decode_answer(data)).__name__ for data in stream.sent}
            except PeerError as error:
                outcomes.add(error.code)
        await asyncio.sleep(3600)
    return count, outcomes


async def stopped(node: Node) -> None:
    for task in node._tasks:
        task.cancel()
    await asyncio.gather(*node._tasks, return_exceptions=True)


@pytest.mark.parametrize("who", ["the peer itself", "another peer"])
def test_nothing_said_again_has_an_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    async def story(world: World) -> None:
        tape = Tape(monkeypatch)
        ada, bo = await world.pair()
        cy = world.machine("Cy")
        await cy.boot()
        await befriend(ada.node, cy.node)
        await befriend(bo.node, cy.node)
        write_files(tmp_path / "data", {f"a-{number}.csv": bytes([number]) * 500 for number in range(30)})
        for sender, recipient in ((ada, bo), (bo, ada)):
            made = await share(sender.node, recipient.node, tmp_path / "data", title=f"From {sender.name}")
            await recipient.node.request_extension(share=made.share, until=sender.wall() + 60 * DAY_MS, reason="more time")
            key = recipient.node.core.me

            async def asked(sender: Any = sender, made: Any = made) -> bool:
                return bool((await sender.node.share_status(share=made.share)).recipients[0].asked_until)

            await wait_for(asked)
            await sender.node.share_extend(share=made.share, until=sender.wall() + 60 * DAY_MS, reason="granted")
            await ended(recipient.node, (await recipient.node.receive(share=made.share)).transfer)
            other = await share(sender.node, recipient.node, tmp_path / "data", title="Another")
            await sender.node.share_revoke(share=other.share, contact=key, reason="the wrong cut")
        await settle(ada, bo)
        await asyncio.sleep(60)
        victim = ada.node
        peer = bo if who == "the peer itself" else cy
        card = parse_card(peer.node.core.require_card().envelope)
        said = tape.said(victim.core.public, bo.node.core.public)
        for machine in (bo, cy):
            await machine.stop()
            world.cut_wire(ada, machine)
        await asyncio.sleep(60)
        await stopped(victim)
        faults = Faults()
        kinds = {type(messages.decode_request(stream[0])).__name__ for stream in said if _is_request(stream[0])}
        asked = (Deliver, Waiting, GetPage, GetDigests, Begin, Fetch, Witness)
        assert kinds == {kind.__name__ for kind in asked}
        if who == "the peer itself":
            # Its own old checkpoint is a trail that shrank, whoever shows it; test_trail_attacks has that.
            said = [stream for stream in said if not _is_request(stream[0], Witness)]
        with victim.core.database.begin() as tx:
            kept = [envelope for kind in KINDS for envelope in statements.of_kind(tx, kind)]
        said += [[encode(Deliver(statements=[envelope]))] for envelope in kept]
        before, size = snapshot(victim), victim.core.trail.size  # type: ignore[union-attr]
        count, outcomes = await replay(victim, card, said, sessions=2)
        victim.denials.flush()
        faults.check()
        after = snapshot(victim)
        for name, rows in before.items():
            assert after[name] == rows, f"{name} changed: {set(map(str, after[name])) ^ set(map(str, rows))}"
        new = [entry for entry in await victim.audit_list(limit=10_000) if entry.seq >= size]
        assert {entry.event for entry in new} <= REFUSALS, {entry.event for entry in new}
        assert len(new) < 200
        print(f"{count} messages of {len(said)} streams, {len(kept)} statements: {sorted(outcomes)}; {len(new)} entries")
        await world.close()

    simulate(story, tmp_path)


KINDS = (
    *("card", "listing", "manifest", "share", "grant", "revocation", "offer", "accept", "progress", "cut", "receipt"),
    *("receipt-ack", "refusal", "extension-request"),
)


def _is_request(data: bytes, kind: type[Any] = object) -> bool:
    try:
        return isinstance(messages.decode_request(data), kind)
    except PeerError:
        return False
