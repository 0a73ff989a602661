"""Row 2 of the reliability campaign: power loss. ``kill -9`` leaves the page cache intact, so only this finds a missing fsync.

A recipient and a sender are recorded with strace; for cuts all over the recordings the disk is rebuilt as it could be after a
power loss at that moment - nothing unsynced there, or some of it, in any order, torn at 512 bytes or 4 KiB - and judged
(``judge``). The same recordings show that the test bites, whatever the seed: leaving out the syncs of any one place in ``files``,
``node`` and ``store``, or running with ``synchronous=NORMAL``, makes it fail.
"""

from __future__ import annotations

import ast
import asyncio
import os
import pickle
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from labxchange.errors import LabxchangeError
from tests.crash import scenario
from tests.crash.disk import Cut, Recording
from tests.crash.judge import Lost, judge
from tests.crash.scenario import Story

SEED = os.environ.get("LABXCHANGE_SEED", "1")
SOURCE = Path(__file__).parents[2] / "src" / "labxchange"
STORIES: dict[str, Callable[..., Any]] = {"recipient": scenario.record_recipient, "sender": scenario.record_sender}
WAL = "sqlite node.db-wal"
CUTS = 50
SEEDS = 2


@pytest.fixture(scope="module")
def recordings() -> Iterator[dict[str, Path]]:
    """Both stories, recorded at the same time and kept as files."""
    folder = Path(tempfile.mkdtemp(prefix="lx-power-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    try:
        yield asyncio.run(_record(folder, list(STORIES)))
    finally:
        shutil.rmtree(folder)


async def _record(folder: Path, names: list[str], **how: Any) -> dict[str, Path]:
    async def one(name: str) -> Path:
        (folder / name).mkdir()
        story = await STORIES[name](folder / name, seed=SEED, **how)
        (folder / name / "calls").unlink()
        path = folder / f"{name}.story"
        path.write_bytes(pickle.dumps(story))
        return path

    paths = await asyncio.gather(*(one(name) for name in names))
    return dict(zip(names, paths, strict=True))


def _wrong(story: Story, cut: Cut) -> str:
    """What is wrong with the disk that was rebuilt; an empty text when all is well."""
    try:
        asyncio.run(judge(story, cut.marks))
    except Lost as error:
        return str(error)
    except LabxchangeError as error:
        return f"{error} ({error.code})"
    return ""


# --- everything as it is: nothing is lost --------------------------------------------------------------------------------
def _survive(path: Path, seed: str, cuts: int, seeds: int) -> tuple[int, int, list[str]]:
    """Judge ``cuts`` of a recording (0: all), each with nothing unsynced and with ``seeds`` chances."""
    story: Story = pickle.loads(path.read_bytes())
    total = sum(1 for _ in Recording(story.calls, story.root).cuts())
    chance = random.Random(f"{story.name} {seed}")
    chosen = set(chance.sample(range(1, total + 1), min(cuts, total))) if cuts else set(range(1, total + 1))
    tried, wrong = 0, []
    for cut in Recording(story.calls, story.root).cuts():
        if cut.number not in chosen:
            continue
        for number in range(seeds + 1):
            tried += 1
            cut.rebuild(story.root, random.Random(f"{seed} {cut.number} {number}") if number else None)
            said = _wrong(story, cut)
            if said:
                wrong.append(f"{story.name}, cut {cut.number} after a {cut.after}, variant {number} of seed {seed!r}: {said}")
        if len(wrong) > 5:
            break
    return total, tried, wrong


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(len(STORIES), mp_context=get_context("spawn"))


def _survive_all(recordings: dict[str, Path], seed: str, *, cuts: int, seeds: int) -> None:
    began = time.monotonic()
    print(f"seed {seed!r}")
    with _pool() as pool:
        runs = {name: pool.submit(_survive, path, seed, cuts, seeds) for name, path in recordings.items()}
        found = {name: run.result() for name, run in runs.items()}
    for name, (total, tried, _) in found.items():
        print(f"{name}: {tried} disks judged, of {total} moments; {time.monotonic() - began:.0f} s")
    wrong = [text for *_, texts in found.values() for text in texts]
    assert not wrong, "\n".join(wrong)


def test_nothing_acknowledged_is_lost(recordings: dict[str, Path]) -> None:
    _survive_all(recordings, SEED, cuts=CUTS, seeds=SEEDS)


@pytest.mark.campaign
def test_nothing_acknowledged_is_lost_at_any_moment(recordings: dict[str, Path]) -> None:
    _survive_all(recordings, SEED, cuts=0, seeds=int(os.environ.get("LABXCHANGE_SEEDS", "50")))


# --- and each sync is needed ---------------------------------------------------------------------------------------------
def _bites(path: Path, sites: list[str]) -> dict[str, str]:
    """For each place: what goes wrong without its syncs; an empty text when nothing does."""
    story: Story = pickle.loads(path.read_bytes())
    return {site: _bite(story, site) for site in sites}


def _bite(story: Story, site: str) -> str:
    """No chance is in this: after each mark and each change of names, what only the syncs left out would have put on the disk is
    lost, and nothing else, so nothing else can be what goes wrong; and with it all is well."""
    tried = 0
    for cut in Recording(story.calls, story.root, without=site).cuts():
        if not cut.owed or not cut.after.startswith(("mark", "names")):
            continue
        tried += 1
        cut.rebuild_without(story.root, cut.owed)
        said = _wrong(story, cut)
        if said:
            cut.rebuild_without(story.root, ())
            assert not _wrong(story, cut), f"cut {cut.number} is wrong though nothing is lost"
            return f"{said.strip().splitlines()[-1]} (cut {cut.number}, {tried} tried)"
    return ""


def _sites(path: Path) -> dict[str, int]:
    story: Story = pickle.loads(path.read_bytes())
    recording = Recording(story.calls, story.root)
    for _ in recording.cuts():
        pass
    return recording.sites


def test_each_sync_is_needed(recordings: dict[str, Path]) -> None:
    own: dict[str, list[str]] = {name: [] for name in recordings}
    seen = {name: sorted(site for site in _sites(path) if not site.startswith("sqlite ")) for name, path in recordings.items()}
    for site in (*sorted({site for sites in seen.values() for site in sites}), WAL):
        holders = [name for name, sites in seen.items() if site in sites or site == WAL]
        own[min(holders, key=lambda name: len(own[name]))].append(site)
    with _pool() as pool:
        runs = [pool.submit(_bites, recordings[name], sites) for name, sites in own.items()]
        found = {site: said for run in runs for site, said in run.result().items()}
    for site, said in sorted(found.items()):
        print(f"  without {site}: {said or 'NOTHING'}")
    assert all(found.values()), f"not needed, or not noticed: {[site for site, said in found.items() if not said]}"


def test_a_database_that_does_not_sync_each_commit_is_noticed(recordings: dict[str, Path]) -> None:
    with tempfile.TemporaryDirectory(prefix="lx-power-") as name:
        weak = asyncio.run(_record(Path(name), ["sender"], normal=True))
        _, _, wrong = _survive(weak["sender"], SEED, 40, 1)
    assert wrong, "synchronous=NORMAL lost nothing"
    print(wrong[0])


def test_each_place_that_syncs_is_recorded(recordings: dict[str, Path]) -> None:
    """A sync that no story reaches would not be tested by the others."""
    seen = {site.rpartition(":")[0] for path in recordings.values() for site in _sites(path)}
    missing = sorted(place for place in _places() if place not in seen)
    assert not missing, f"syncs that no story reaches: {missing}"


def _places() -> set[str]:
    """File and function of each call of the fsync family in the source."""
    out = set()
    for path in SOURCE.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef) and function.name not in ("sync_file_system", "_synced"):
                for call in ast.walk(function):
                    if isinstance(call, ast.Call) and _syncs(call):
                        out.add(f"{path.relative_to(SOURCE)}:{function.name}")
    return out


def _syncs(call: ast.Call) -> bool:
    named = [call.func, *call.args[:1]]
    names = {item.attr if isinstance(item, ast.Attribute) else item.id if isinstance(item, ast.Name) else "" for item in named}
    return bool(names & {"fsync", "fdatasync", "sync_file_system"})
