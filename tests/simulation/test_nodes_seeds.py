"""Campaign row 5: whole nodes under random faults, many seeds; see ``tests.support.stories``.

``LABXCHANGE_SEED`` is the beginning of every seed's name, ``LABXCHANGE_SEEDS`` their number (300; with ``-m campaign`` 10,000).
A seed that failed is printed and told again by ``LABXCHANGE_ONLY=NAME pytest -s tests/simulation/test_nodes_seeds.py``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from tests.support.stories import Outcome, run_seed, template

SEED = os.environ.get("LABXCHANGE_SEED", "1")
ONLY = os.environ.get("LABXCHANGE_ONLY", "")
_MEMORY = Path("/dev/shm")
_SHOWN = 3


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    template(folder)
    return folder


def outcomes(seeds: list[str], homes: Path) -> Iterator[Outcome]:
    """One process a core; the seeds in order."""
    base = _MEMORY if _MEMORY.is_dir() else None
    count = len(seeds)
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("spawn")) as pool:
        yield from pool.map(run_seed, seeds, [homes] * count, [base] * count, chunksize=4)


def run_all(count: int, homes: Path) -> None:
    seeds = [ONLY] if ONLY else [f"{SEED}-{number}" for number in range(count)]
    print(f"seeds {seeds[0]} to {seeds[-1]}")
    failed, completed, mishaps = [], 0, 0
    for outcome in outcomes(seeds, homes):
        completed += outcome.completed
        mishaps += len(outcome.told)
        if outcome.failure:
            failed.append(outcome)
            print(f"FAILED: LABXCHANGE_ONLY={outcome.seed}", flush=True)
        if ONLY:
            print("\n".join(outcome.told))
    print(f"{len(seeds)} stories with {mishaps} turns, {completed} transfers completed, {len(failed)} failed")
    shown = "\n\n".join(f"LABXCHANGE_ONLY={item.seed}\n" + "\n".join(item.told) + f"\n{item.failure}" for item in failed[:_SHOWN])
    assert not failed, f"{len(failed)} of {len(seeds)} stories failed: {[item.seed for item in failed]}\n{shown}"
    assert ONLY or completed > len(seeds) // 3, "hardly anything was exchanged, so hardly anything was tested"


def test_whatever_happens_both_sides_agree(homes: Path) -> None:
    run_all(int(os.environ.get("LABXCHANGE_SEEDS", "300")), homes)


@pytest.mark.campaign
def test_whatever_happens_both_sides_agree_in_a_long_campaign(homes: Path) -> None:
    run_all(10_000, homes)
