"""Row 1 of the reliability campaign: kill -9 at random points of sender and recipient, in every phase, and nothing is lost.

One pair of nodes lives through many rounds. In each, a folder is shared and received while its nodes are killed in turn: at a
counted point (hashing, writing, flushing, committing, sealing, renaming, tidying, sending), at a random moment, or while they
start again. After each kill: no acknowledged entry, chunk or file is lost, and no file that has its name is wrong. After each
round: the files are whole, both trails are VALID, and the bytes that came in vain are within the bound.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.crash.pair import Died, Pair, Refused, check_released, check_trails, make_source, patiently
from tests.support.nodes import NotInTime

SEED = os.environ.get("LABXCHANGE_SEED", "1")


def test_kills_in_every_phase() -> None:
    asyncio.run(_campaign(SEED, kills=80, pairs=2))


@pytest.mark.campaign
@pytest.mark.parametrize("part", range(10))
def test_kills_in_every_phase_at_length(part: int) -> None:
    asyncio.run(_campaign(f"{SEED}/{part}", kills=100, pairs=2))


async def _campaign(seed: str, *, kills: int, pairs: int) -> None:
    """As many pairs at once, each with as many kills."""
    print(f"seed {seed!r}")
    await asyncio.gather(*(_pair(f"{seed}/{number}", kills) for number in range(pairs)))


async def _pair(seed: str, kills: int) -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lx-kill-") as folder:
        async with Pair(Path(folder), seed) as pair:
            rounds = 0
            while pair.kills.total() < kills:
                rounds += 1
                await _Round(pair, rounds).run()
            sizes = await check_trails(pair)
    print(
        f"{pair.kills.total()} kills in {rounds} rounds, {time.monotonic() - began:.0f} s; {pair.heads_checked} acknowledged "
        f"heads found again; trails of {sizes} entries VALID; bytes sent again: "
        f"{max(sum(pair.lost_bytes), 0) // pair.kills.total():,} a kill, most in one round {max(pair.lost_bytes):,}"
    )
    print("  " + ", ".join(f"{count} {kind}" for kind, count in sorted(pair.kills.items())))


class _Round:
    """One share, received through some kills."""

    def __init__(self, pair: Pair, number: int) -> None:
        self.pair = pair
        self.title = f"round {number}"
        self.folder = pair.folder / "source"
        self.destination = pair.folder / "received"
        self.kills = 0
        self._armed: dict[str, str] = {}
        self.how: list[str] = []
        self.transfer = ""

    async def run(self) -> None:
        pair, chance = self.pair, self.pair.chance
        for folder in (self.folder, self.destination):
            shutil.rmtree(folder, ignore_errors=True)
        self.source = make_source(self.folder, chance, small=chance.choice((5, 150)), large=2)
        self.begun = pair.sent_bytes()
        if chance.random() < 0.4:
            await self._arm("Ada")
        await self._share()
        for _ in range(12):
            if await self._completed():
                break
            victim = chance.choice(("Ada", "Bo"))
            if chance.random() < 0.75:
                await self._arm(victim)
                await self._until_dead_or_done(victim)
            else:
                await asyncio.sleep(chance.uniform(0.0, 0.6))
                await self._kill(victim)
            await self._tend()
        for name in ("Ada", "Bo"):
            await self._ask(name, "trap", kind="", count=0, after=False)
        await self._wait(self._completed, f"{self.title} to complete")
        await self._wait(self._countersigned, f"{self.title} to be completed at the sender")
        check_released(self.destination, self.source, complete=True)
        size = sum(map(len, self.source.values()))
        pair.lost_bytes.append(pair.account(pair.sent_bytes() - self.begun, size, self.kills))
        await check_trails(pair)

    async def _wait(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        try:
            await patiently(condition, what)
        except NotInTime as error:
            for hosted in self.pair.nodes.values():
                if not hosted.dead.is_set():
                    os.kill(hosted.pid, signal.SIGUSR1)
            infos = [await self._ask(name, "transfer_show", transfer=self.transfer) for name in ("Ada", "Bo")]
            states = [info and f"{info['state']} {info['reason']} {info['done_bytes']}/{info['bytes']}" for info in infos]
            raise NotInTime(f"{error}; at the sender and the recipient it is {states}; kills: {self.how}") from None

    # --- what the two persons do --------------------------------------------------------------------------------------
    async def _share(self) -> None:
        """Share and begin to receive, as often as it takes."""
        made: Any = None

        async def offered() -> Any:
            nonlocal made
            known = [item for item in await self._ask("Ada", "share_list") if item["title"] == self.title]
            if not known:
                terms = {"paths": [str(self.folder)], "to": ["Bo"], "title": self.title, "study": "CRASH-1", "downloads": 1}
                made = await self._ask("Ada", "share_create", again=False, **terms)
            inbox = await self._ask("Bo", "inbox_list")
            return any(item["title"] == self.title for item in inbox)

        await patiently(offered, "the offer")

        async def receiving() -> Any:
            known = [item for item in await self._ask("Bo", "transfer_list") if item["title"] == self.title]
            if not known:
                await self._ask("Bo", "receive", again=False, share=self.title, destination=str(self.destination))
                return False
            self.transfer = known[0]["transfer"]
            return True

        await patiently(receiving, "the transfer")

    async def _completed(self) -> bool:
        info = await self._ask("Bo", "transfer_show", transfer=self.transfer)
        assert info["state"] not in ("failed", "cut", "cancelled", "paused"), f"{info['state']}: {info['reason']}"
        return info["state"] == "completed"

    async def _countersigned(self) -> bool:
        info = await self._ask("Ada", "transfer_show", transfer=self.transfer)
        return info is not None and info["state"] == "completed"

    # --- kills --------------------------------------------------------------------------------------------------------
    async def _ask(self, name: str, verb: str, *, again: bool = True, **given: Any) -> Any:
        """Ask a node; where it is killed meanwhile, start it again, and ask again unless told otherwise."""
        while True:
            try:
                return await self.pair.nodes[name].call(verb, **given)
            except Died:
                await self._rise(name, self._armed.get(name, "?"))
                if not again:
                    return None
            except Refused as error:
                if str(error) not in ("share-unknown", "offer-unknown", "transfer-unknown"):
                    raise
                return None

    async def _arm(self, name: str) -> None:
        trap = self.pair.trap(name)
        self._armed[name] = trap[0]
        try:
            await self.pair.arm(name, trap)
        except Died:
            await self._rise(name, "?")

    async def _until_dead_or_done(self, victim: str) -> None:
        """An earlier trap of the other node may close first."""

        def dead() -> bool:
            return any(hosted.dead.is_set() for hosted in self.pair.nodes.values())

        async def reached() -> bool:
            return dead() or await self._completed()

        await self._wait(reached, f"{victim} to die or the transfer to complete")
        if not dead():
            await self._kill(victim)

    async def _kill(self, victim: str) -> None:
        self._armed[victim] = "moment"
        if not self.pair.nodes[victim].dead.is_set():
            await self.pair.nodes[victim].kill()

    async def _tend(self) -> None:
        for name in ("Ada", "Bo"):
            if self.pair.nodes[name].dead.is_set():
                await self._rise(name, self._armed.get(name, "?"))

    async def _rise(self, name: str, how: str) -> None:
        self.pair.kills[f"{name} {how}"] += 1
        self.how.append(f"{name} {how}")
        self.kills += 1
        sent = self.pair.sent_bytes() - self.begun  # not what is sent when it is back
        self.kills += await self.pair.rise(name, self.destination, self.source)
        if name == "Bo" and self.transfer:
            self.pair.account(sent, self.pair.held["done"].get(self.transfer, 0), self.kills)
