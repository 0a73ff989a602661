"""Whatever names a sender signs and whatever lies at the destination: nothing is written outside of it.

The evil sender's lists bypass every check of our own scan. A file that lies beside the destination, and everything in the folder
above it, is compared before and after.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from labxchange.errors import LabxchangeError
from labxchange.node.node import Node
from tests.fuzz.evil import SEED
from tests.fuzz.test_evil_sender import EvilSender, EvilShare, give, recipient, tree
from tests.support.nodes import wait_for
from tests.support.world import World, simulate

NAMES = [
    "../escaped",
    "a/../../escaped",
    "..",
    ".",
    "",
    "/",
    "//escaped",
    "a//b",
    "./a",
    "a/./b",
    "\\escaped",
    "..\\escaped",
    "C:\\escaped",
    "c:escaped",
    "\\\\server\\share",
    "a:stream",
    "CON",
    "nul.txt",
    "com1",
    "a/LPT9.csv",
    "name.",
    "name ",
    "a\x00b",
    "a\nb",
    "\x1b[31mred",
    "\u202egpj.exe",
    "a\u0301",
    "\ufeffx",
    "x" * 256,
    "/".join("d" * 65),
    ".labxchange-0123",
    ".LABXCHANGE-x/part",
    "~root/escaped" + "\x7f",
    "a\u2028b",
]


async def outcome(node: Node, share: EvilShare, into: Path) -> tuple[str, str]:
    info = await node.receive(share=share.share, destination=str(into))

    async def over() -> bool:
        return (await node.transfer_show(transfer=info.transfer)).state not in ("waiting", "running")

    await wait_for(over, timeout_s=600)
    found = await node.transfer_show(transfer=info.transfer)
    return found.state, found.reason


def absolute(folder: Path) -> str:
    return str(folder / "escaped")


def test_hostile_names_reach_no_disk(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        node, identity, channel = await recipient(world)
        chance = random.Random(SEED)
        place = tmp_path / "place"
        place.mkdir()
        (place / "precious").write_bytes(b"mine")
        before = tree(place)
        for number, name in enumerate([*NAMES, absolute(place)]):
            into = place / "in"
            share = EvilShare(identity, {name: b"evil", "good.csv": b"1"}, chance=chance, now=node.core.clock.now())
            EvilSender(chance, channel, share, evil=0.0)
            give(node, share, chance, days=number)
            state, reason = await outcome(node, share, into)
            assert (state, reason) == ("failed", "hostile-name"), (name, state, reason)
            assert tree(place) == before, name
            assert not (tmp_path / "escaped").exists()
        await world.close()

    simulate(story, tmp_path)


COLLISIONS = [
    {"a.csv": b"1", "A.csv": b"2"},
    {"caf\u00e9": b"1", "CAF\u00c9": b"2"},
    {"a": b"1", "a/b": b"2"},
    {"stra\u00dfe": b"1", "STRASSE": b"2"},
]


def test_names_that_are_one_on_another_system_are_refused(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        node, identity, channel = await recipient(world)
        chance = random.Random(SEED)
        place = tmp_path / "place"
        place.mkdir()
        for number, files in enumerate(COLLISIONS):
            share = EvilShare(identity, files, chance=chance, now=node.core.clock.now())
            EvilSender(chance, channel, share, evil=0.0)
            give(node, share, chance, days=number)
            state, reason = await outcome(node, share, place / "in")
            assert (state, reason) == ("failed", "name-collision"), (files, state, reason)
            assert tree(place) == {}
        await world.close()

    simulate(story, tmp_path)


@pytest.mark.parametrize("trap", ["folder", "file", "dangling", "private folder"])
def test_links_at_the_destination_lead_nowhere(tmp_path: Path, trap: str) -> None:
    async def story(world: World) -> None:
        node, identity, channel = await recipient(world)
        chance = random.Random(SEED)
        outside, into = tmp_path / "outside", tmp_path / "in"
        outside.mkdir()
        into.mkdir()
        (outside / "precious.csv").write_bytes(b"mine")
        if trap == "folder":
            (into / "data").symlink_to(outside, target_is_directory=True)
        elif trap == "file":
            (into / "data").mkdir()
            (into / "data" / "precious.csv").symlink_to(outside / "precious.csv")
        elif trap == "dangling":
            (into / "data").mkdir()
            (into / "data" / "precious.csv").symlink_to(outside / "new.csv")
        share = EvilShare(identity, {"data/precious.csv": b"evil", "ok.csv": b"1"}, chance=chance, now=node.core.clock.now())
        EvilSender(chance, channel, share, evil=0.0)
        give(node, share, chance, days=1)
        before = tree(outside)
        if trap == "private folder":
            info = await node.receive(share=share.share, destination=str(into))
            (into / f".labxchange-{info.transfer}").symlink_to(outside, target_is_directory=True)
            await wait_for(lambda: node.receiving.row(info.transfer).state not in ("waiting", "running"), timeout_s=600)
            state = node.receiving.row(info.transfer).state
        else:
            state, _ = await outcome(node, share, into)
        assert state != "verified"
        assert tree(outside) == before
        await world.close()

    simulate(story, tmp_path)


def test_a_folder_that_becomes_a_link_while_files_are_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody with access to the destination swaps a folder for a link between its making and the rename into it."""
    real = os.rename
    outside, into = tmp_path / "outside", tmp_path / "in"

    async def story(world: World) -> None:
        node, identity, channel = await recipient(world)
        chance = random.Random(SEED)
        outside.mkdir()
        into.mkdir()
        files = {f"data/{number:03}.csv": b"x" * number for number in range(1, 60)}
        share = EvilShare(identity, files, chance=chance, now=node.core.clock.now())
        EvilSender(chance, channel, share, evil=0.0)
        give(node, share, chance, days=1)
        swaps = 0
        from labxchange.files import quarantine

        release = quarantine.Quarantine.release

        def swapped(self: quarantine.Quarantine, batch: object) -> object:
            nonlocal swaps
            swaps += 1
            (into / "data").symlink_to(outside, target_is_directory=True)
            return release(self, batch)  # type: ignore[arg-type]

        monkeypatch.setattr(quarantine.Quarantine, "release", swapped)
        try:
            await outcome(node, share, into)
        except LabxchangeError:
            pass
        assert swaps
        assert tree(outside) == {}
        await world.close()

    simulate(story, tmp_path)
    assert os.rename is real
