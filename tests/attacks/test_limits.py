"""Row 12 of the campaign: 64 clients of one recipient race for one to five download slots, and the power goes in between.

The streams reach the very handler that real ones reach, and are held up at random between any two messages. After each race and
after each crash: never more slots taken than granted, and never more transfers were told that they may start.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from labxchange.errors import LabxchangeError, PeerError
from labxchange.identity.card import parse_card
from labxchange.identity.keys import Identity
from labxchange.identity.statement import sign
from labxchange.node.node import Node
from labxchange.node.serving import possession_proof
from labxchange.sharing.exchange import Accept
from labxchange.sharing.share import Offer
from labxchange.store import shares, statements, transfers
from labxchange.wire.control import messages
from labxchange.wire.control.messages import Accepting, Begin, Nonce, Refused, Started, encode
from tests.fuzz.evil import ScriptedChannel, ScriptedStream, check_refusal, note_of
from tests.support.world import Machine, World, simulate

SEED = int(os.environ.get("LABXCHANGE_SEED", "6"), 16)
CLIENTS = 64


class SlowStream(ScriptedStream):
    """Held up at random before and after each message."""

    def __init__(self, channel: ScriptedChannel, script: list[Any], chance: random.Random) -> None:
        super().__init__(channel, script)
        self._chance = chance

    async def _pause(self) -> None:
        if self._chance.random() < 0.7:
            await asyncio.sleep(self._chance.choice([0.0, 0.001, 0.01]))

    async def receive(self, within_s: float | None = None) -> bytes | None:
        await self._pause()
        return await super().receive(within_s)

    async def send(self, data: bytes, *, end: bool = False) -> None:
        await super().send(data, end=end)
        await self._pause()


class Race:
    """The clients of Bo, and what they were told."""

    def __init__(self, machine: Machine, identity: Identity, channel: ScriptedChannel, chance: random.Random) -> None:
        self.machine = machine
        self.identity = identity
        self.channel = channel
        self.chance = chance
        self.started: set[str] = set()
        self.codes: list[str] = []

    def offer_of(self, share: str) -> tuple[str, Offer]:
        node = self.machine.node
        with node.core.database.begin() as tx:
            found = statements.about(tx, share, Offer)
        return found[-1].id, found[-1].body

    async def client(self, node: Node, offer_id: str, offer: Offer, transfer: str) -> None:
        def accepting(said: list[bytes]) -> bytes:
            nonce = messages.decode(said[-1], Nonce).nonce
            body = Accept(
                issuer=self.identity.public.hex(),
                issued=node.core.clock.now(),
                transfer=transfer,
                offer=offer_id,
                grant=offer.grant,
                listing=offer.listing,
                proof=possession_proof(nonce, self.channel.th2),
                checkpoint=note_of(self.identity),
            )
            return encode(Accepting(statement=sign(body, self.identity).envelope))

        stream = SlowStream(self.channel, [encode(Begin(transfer=transfer)), accepting], self.chance)
        try:
            await node.peers._answer(self.channel, stream)  # type: ignore[arg-type]
        finally:
            # What was said before the power went counts too.
            for data in stream.sent:
                answer = messages.decode_answer(data)
                if isinstance(answer, Started):
                    self.started.add(transfer)
                elif isinstance(answer, Refused):
                    self.codes.append(check_refusal(answer.statement, by=node.core.me, to=self.identity.public.hex()))

    async def run(self, share: str, limit: int, *, crash: bool) -> None:
        self.started.clear()
        self.codes.clear()
        offer_id, offer = self.offer_of(share)
        names = [self.chance.randbytes(16).hex() for _ in range(CLIENTS)]
        clients = [
            asyncio.ensure_future(self.client(self.machine.node, offer_id, offer, self.chance.choice([name, name, names[0]])))
            for name in names
        ]
        if crash:
            await asyncio.sleep(self.chance.choice([0.0, 0.0005, 0.001, 0.005, 0.02]))
            self.machine.crash()
            for task in clients:
                task.cancel()
            results = await asyncio.gather(*clients, return_exceptions=True)
            await self.machine.bury()
            for grave in self.machine.folder.glob("* before crash *"):
                shutil.rmtree(grave)
            await self.machine.boot()
            self.check(share, limit)
            again = [self.client(self.machine.node, offer_id, offer, name) for name in names]
            results += await asyncio.gather(*again, return_exceptions=True)
        else:
            results = await asyncio.gather(*clients, return_exceptions=True)
        for result in results:
            assert result is None or isinstance(result, asyncio.CancelledError | PeerError | LabxchangeError), repr(result)
        taken = self.check(share, limit)
        assert taken == limit, f"a slot was lost: {self.codes[:3]} {[repr(item) for item in results if item][:3]}"
        assert set(self.codes) <= {"downloads-exhausted"}

    def check(self, share: str, limit: int) -> int:
        node = self.machine.node
        with node.core.database.begin() as tx:
            row = shares.grants_of(tx, share, 1, owner=node.core.me)[0]
            taken = transfers.slots_taken(tx, row.grant, self.identity.public.hex(), without="")
            held = {item.transfer for item in transfers.outgoing_of(tx, row.grant) if item.slot in ("reserved", "used")}
        assert taken <= limit
        assert self.started <= held, "a transfer was started without a slot"
        return taken


def race(folder: Path, races: int, *, crash_each: int) -> None:
    print(f"seed {SEED:x}")

    async def story(world: World) -> None:
        ada, bo = await world.pair()
        chance = random.Random(f"limits {SEED}")
        identity, card = bo.node.core.require(), bo.node.core.require_card()
        bo_key = identity.public.hex()
        await bo.stop()
        world.cut_wire(ada, bo)
        data = folder / "data"
        data.mkdir()
        (data / "a.csv").write_bytes(b"1\n")
        running = Race(ada, identity, ScriptedChannel(parse_card(card.envelope)), chance)
        for number in range(races):
            limit = 1 + number % 5
            made = await ada.node.share_create(paths=[str(data)], to=[bo_key], title=f"Race {number}", downloads=limit)
            await ada.node.share_hashed(share=made.share)
            async with asyncio.timeout(600):
                await running.run(made.share, limit, crash=number % crash_each == 0)
            await asyncio.sleep(60)  # what a contact may make a node write fills up again
            ada.node.serving._active.clear()
        print(f"{races} races of {CLIENTS} clients, {-(-races // crash_each)} with a crash")
        await world.close()

    simulate(story, folder, seed=SEED)


def test_limits_are_never_exceeded(tmp_path: Path) -> None:
    race(tmp_path, 10, crash_each=3)


@pytest.mark.campaign
def test_limits_are_never_exceeded_in_ten_thousand_races(tmp_path: Path) -> None:
    race(tmp_path, int(os.environ.get("LABXCHANGE_RACES", "10000")), crash_each=20)
