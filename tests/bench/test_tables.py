"""Reading a small table costs little beside pandas' own reading of the same bytes, and a fingerprint is quick.

Processor seconds, the least of several rounds; each round takes all ways in turn, so that a busy machine is busy for each of
them.
`tests.bench.tables` measures what is large.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from hashlib import sha256

import pandas as pd

from labxchange.content import tables, writing
from labxchange.content.fingerprint import fingerprint
from tests.bench.tables import events, mixed, numbers

ROUNDS = 5
SMALL_MB = 12
HEAD_S = 0.03
HASHED_MB = 50


def least_s(*ways: Callable[[], object]) -> list[float]:
    """Processor seconds of each way; the least of all rounds."""
    out = [float("inf")] * len(ways)
    for _ in range(ROUNDS):
        for index, way in enumerate(ways):
            begun = time.process_time()
            way()
            out[index] = min(out[index], time.process_time() - begun)
    return out


def measure(megabytes: float) -> dict[str, tuple[float, float]]:
    """Prints a line for each kind of table; returns our seconds and those of pandas."""
    print(f"{'table':24}{'MB':>8}{'ours s':>10}{'pandas s':>10}{'ratio':>8}")
    out = {}
    text, floats = events(megabytes), numbers(megabytes)
    rows: list[tuple[str, str, bytes, Callable[[bytes], object]]] = [
        (
            "events, XPT",
            "a.xpt",
            writing.write(text, "xpt"),
            lambda data: pd.read_sas(io.BytesIO(data), format="xport", encoding="utf-8"),
        ),
        ("events, CSV", "a.csv", writing.write(text, "csv"), lambda data: pd.read_csv(io.BytesIO(data))),
        ("floats, CSV", "a.csv", writing.write(floats, "csv"), lambda data: pd.read_csv(io.BytesIO(data))),
        ("events, Parquet", "a.parquet", writing.write(text, "parquet"), lambda data: pd.read_parquet(io.BytesIO(data))),
    ]
    for what, name, data, theirs in rows:
        ours_s, pandas_s = least_s(
            lambda data=data, name=name: tables.read(data, name), lambda data=data, theirs=theirs: theirs(data)
        )
        out[what] = ours_s, pandas_s
        print(f"{what:24}{len(data) / 1e6:8.1f}{ours_s:10.3f}{pandas_s:10.3f}{ours_s / pandas_s:8.2f}")
    return out


def test_reading_costs_little_beside_pandas() -> None:
    """The bar is 1.10 at 1 GB. Beside a small table the look at the head of a CSV counts, which costs the same for any size."""
    seconds = measure(SMALL_MB)
    slow = {what: both for what, both in seconds.items() if both[0] > 1.3 * both[1] + HEAD_S}
    assert not {what for what in slow if "Parquet" not in what}, slow


def test_a_fingerprint_of_a_million_cells() -> None:
    """The bar is 5 s for ten million cells where SHA-256 makes 2 GB/s; on any machine, its time for 1 GB for each million."""
    frame, piece = mixed(1_000_000), bytes(HASHED_MB * 1_000_000)
    ours_s, sha256_s = least_s(lambda: fingerprint(frame), lambda: sha256(piece).digest())
    print(f"{ours_s:.3f} s, SHA-256 {HASHED_MB / 1000 / sha256_s:.2f} GB/s")
    assert ours_s < sha256_s * 1000 / HASHED_MB
