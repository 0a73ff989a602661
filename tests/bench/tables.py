"""What a table of any size costs: loading beside pandas' own reading of the same file, and what is done with it as it grows.

    PYTHONPATH=src:. python -m tests.bench.tables load 1000 5 /var/tmp
    PYTHONPATH=src:. python -m tests.bench.tables grow 100000 1000000 10000000

``load`` takes a size in MB, how often, and a folder with room for the file. Loading is all of it: hash, compare, parse, labels.
The file is in the page cache; ours and pandas' take turns in which is first. ``grow`` takes numbers of rows. Each measurement is
a process of its own, which says what it took: seconds, seconds of the processor, and by how much its memory grew at most.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from labxchange.content import compare, fingerprint, tables, transport, writing
from labxchange.dataset.listing import chunk_bytes_for
from labxchange.files.held import held
from labxchange.node.values import FileInfo
from labxchange.notebook import loading
from tests.unit.content.samples import pilot

SHARE = "3f" * 32


# --- tables -----------------------------------------------------------------------------------------------------------
def events(megabytes: float) -> pd.DataFrame:
    """The adverse events of the pilot study, over and over."""
    frame = tables.read(pilot("adae.xpt"), "adae.xpt")
    many = pd.concat([frame] * max(1, round(megabytes * 1e6 / len(pilot("adae.xpt")))), ignore_index=True)
    many.attrs = frame.attrs
    return many


def numbers(megabytes: float) -> pd.DataFrame:
    """Ten columns of floats with all their digits."""
    chance = np.random.default_rng(1)
    return pd.DataFrame(chance.normal(size=(round(megabytes * 1e6 / 196), 10)), columns=list("ABCDEFGHIJ"))


def mixed(cells: int) -> pd.DataFrame:
    """Floats, whole numbers, text and moments in ten columns."""
    chance, rows = np.random.default_rng(1), cells // 10
    columns: dict[str, object] = {f"F{index}": chance.normal(size=rows) for index in range(4)}
    columns |= {f"I{index}": chance.integers(0, 10**6, rows) for index in range(3)}
    columns |= {f"T{index}": pd.Series(chance.integers(0, 1000, rows)).astype("str") for index in range(2)}
    columns["D"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(chance.integers(0, 10**8, rows), unit="s")
    return pd.DataFrame(columns)


def make(folder: Path, megabytes: float) -> dict[str, Path]:
    """Files of this size, each a smaller table over and over."""
    text, floats = events(20), numbers(20)
    out = {}
    for what, data in (("events.xpt", writing.write(text, "xpt")), ("events.csv", _csv(text)), ("floats.csv", _csv(floats))):
        if what.endswith("xpt"):
            header = transport.parse(data, what)
            head, body = data[: header.data_at], data[header.data_at :][: header.rows * header.row_bytes]
        else:
            head, body = data[: data.index(b"\n") + 1], data[data.index(b"\n") + 1 :]
        out[what] = folder / what
        with out[what].open("wb") as file:
            file.write(head)
            for _ in range(max(1, round((megabytes * 1e6 - len(head)) / len(body)))):
                file.write(body)
            file.write(b" " * (-file.tell() % 80) if what.endswith("xpt") else b"")
    # A Parquet file is no smaller table over and over, and one of repeated rows would be small.
    out["floats.parquet"] = folder / "floats.parquet"
    out["floats.parquet"].write_bytes(writing.write(numbers(megabytes * 196 / 80), "parquet"))
    return out


def _csv(frame: pd.DataFrame) -> bytes:
    return writing.write(frame, "csv")


# --- one reading ------------------------------------------------------------------------------------------------------
def ours(path: Path) -> None:
    with held(path) as now:
        digest = loading.digest(now.data, chunk_bytes=chunk_bytes_for(len(now.data)))
    measured(lambda: loading.load(_info(path, digest)))


def theirs(path: Path) -> None:
    ways: dict[str, Callable[[], Any]] = {
        ".xpt": lambda: pd.read_sas(path, format="xport", encoding="utf-8"),
        ".csv": lambda: pd.read_csv(path),
        ".parquet": lambda: pd.read_parquet(path),
    }
    measured(ways[path.suffix])


def _info(path: Path, digest: str) -> FileInfo:
    return FileInfo(
        path=path.name,
        place=str(path),
        size=path.stat().st_size,
        sha256=SHARE,
        chunks=digest,
        chunk_bytes=chunk_bytes_for(path.stat().st_size),
        share=SHARE,
        version=1,
        transfer=SHARE,
        receipt="",
    )


def measured(way: Callable[[], Any]) -> Any:
    """Prints wall and processor seconds, and by how many MiB the process grew at most; what ``way`` gives."""
    tables.read(writing.write(tables.read(pilot("adtte.xpt"), "adtte.xpt"), "csv"), "a.csv")  # imports, and pools of threads
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    begun, begun_cpu = time.perf_counter(), time.process_time()
    made = way()
    wall, cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
    print(json.dumps({"wall_s": wall, "cpu_s": cpu, "mib": (_status("VmHWM") - before) / 1024}))
    return made


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


# --- growth -----------------------------------------------------------------------------------------------------------
def results(rows: int) -> pd.DataFrame:
    """Laboratory results: ten for each subject, whose rows only USUBJID and LBSEQ identify."""
    chance, number = np.random.default_rng(1), np.arange(rows)
    words = pa.array(np.char.add("01-701-", np.char.zfill((number[: rows // 10 + 1]).astype(str), 7)))
    tests = pa.array(["ALT", "AST", "BILI", "CREAT", "K", "NA", "GLUC", "HGB", "WBC", "PLAT"])
    frame = pd.DataFrame(
        {
            "USUBJID": words.take(pa.array(number // 10)).to_pandas(),
            "LBSEQ": (number % 10 + 1).astype(np.float64),
            "LBTESTCD": tests.take(pa.array(number % 10)).to_pandas(),
            "LBSTRESN": chance.normal(size=rows).round(3),
            "ADT": np.datetime64("2014-01-01", "s") + chance.integers(0, 700, rows).astype("timedelta64[D]"),
            "SITEID": pa.array(["701", "702", "703", "704"]).take(pa.array(number // 10 % 4)).to_pandas(),
        }
    )
    frame.attrs = {"labels": {"LBSTRESN": "Numeric Result"}, "formats": {"ADT": "DATE9."}}
    return frame


def changed(frame: pd.DataFrame) -> pd.DataFrame:
    """A thousandth of the rows gone, of the others every hundredth value another, the rest upside down."""
    out = frame[frame.index % 1000 != 7].iloc[::-1].reset_index(drop=True)
    out.loc[::100, "LBSTRESN"] += 1
    return out


def work(what: str, rows: int) -> None:
    frame = results(rows)
    if what == "fingerprint":
        measured(lambda: fingerprint.fingerprint(frame))
    elif what == "compare":
        other = changed(frame)
        found = measured(lambda: compare.compare(frame, other))
        assert found.keys == ("USUBJID", "LBSEQ")
        assert found.rows_removed == rows // 1000
    elif what == "compare, by place":
        other = frame.rename(columns={"USUBJID": "ID"})
        measured(lambda: compare.compare(other, other.iloc[:-5]))
    else:
        kind = what.rpartition(" ")[2]
        data = writing.write(frame, kind)
        del frame
        measured(lambda: writing.subset(data, f"a.{kind}", columns=["USUBJID", "LBSTRESN"], rows="LBTESTCD == 'ALT'"))


WORK = ("fingerprint", "compare", "compare, by place", "part of csv", "part of xpt", "part of parquet")


def apart(*arguments: str) -> dict[str, float]:
    """What a process of its own measured."""
    told = subprocess.run([sys.executable, "-m", "tests.bench.tables", *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(told.stdout.splitlines()[-1]))


def load(megabytes: float, repeat: int, folder: Path) -> None:
    print(f"{'file':16}{'MB':>7}  {'':8}{'wall s':>8}{'cpu s':>8}{'MiB':>8}")
    for what, path in make(folder, megabytes).items():
        seen: dict[str, list[dict[str, float]]] = {"ours": [], "pandas": []}
        for turn in range(repeat):
            for who in (("ours", "pandas"), ("pandas", "ours"))[turn % 2]:
                seen[who].append(one := apart(who, str(path)))
                print(
                    f"{what:16}{path.stat().st_size / 1e6:7.0f}  {who:8}{one['wall_s']:8.2f}{one['cpu_s']:8.2f}{one['mib']:8.0f}"
                )
        for key in ("wall_s", "cpu_s", "mib"):
            for how in (statistics.median, min):
                mine, other = (how(one[key] for one in seen[who]) for who in ("ours", "pandas"))
                name = f"{'least' if how is min else 'median'} {key}"
                print(f"{'':16}  {name:16}{mine:9.2f} /{other:9.2f} ={mine / other:6.2f}", flush=True)
        path.unlink()


def grow(rows: list[int]) -> None:
    print(f"{'':20}{'rows':>12}{'wall s':>9}{'cpu s':>9}{'MiB':>9}")
    for what in WORK:
        for count in rows:
            one = apart("work", what, str(count))
            print(f"{what:20}{count:12,}{one['wall_s']:9.2f}{one['cpu_s']:9.2f}{one['mib']:9.0f}", flush=True)


def main() -> None:
    match sys.argv[1:]:
        case ["ours", path]:
            ours(Path(path))
        case ["pandas", path]:
            theirs(Path(path))
        case ["work", what, rows]:
            work(what, int(rows))
        case ["grow", *rows]:
            grow([int(count) for count in rows])
        case ["load", megabytes, *rest]:
            with tempfile.TemporaryDirectory(dir=rest[1] if rest[1:] else None) as folder:
                load(float(megabytes), int(rest[0]) if rest else 3, Path(folder))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
