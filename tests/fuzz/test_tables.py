"""Table files with bytes changed, cut, joined and repeated, and files that claim more than they hold.

Each is read as a table or refused with one of our errors, within bounded memory; what is read has a fingerprint or a refusal. The
mutations run in a process of their own with a limit on its memory, since part of the reading is C code of others: a crash there
would take the tests along, and is a failure here. ``LABXCHANGE_FUZZ`` sizes it.
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz.evil import FULL, FUZZ, SEED

ROOT = Path(__file__).resolve().parents[2]
MEMORY_BYTES = 4 << 30
"""Address space of the process; the libraries themselves map about 1.5 GiB of it."""


def mutated(chance: random.Random, data: bytes) -> bytes:
    """``data`` with something wrong; changes gather at the front, where headers are, and at the end, where Parquet's is."""
    out = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        if not out:
            break
        place = chance.choice(
            [chance.randrange(len(out)), chance.randrange(min(len(out), 1000)), max(0, len(out) - chance.randrange(1, 400))]
        )
        match chance.randrange(8):
            case 0:
                out[place] ^= 1 << chance.randrange(8)
            case 1:
                out[place] = chance.choice([0, 1, 0x20, 0x2E, 0x7F, 0x80, 0xFF, 0x39])
            case 2:
                out[place : place + 8] = chance.choice([b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\0" * 8, b"99999999"])
            case 3:
                del out[place:]
            case 4:
                del out[place : place + chance.randrange(1, 200)]
            case 5:
                out[place:place] = out[place : place + chance.randrange(1, 200)]
            case 6:
                other = chance.randrange(len(out))
                out[place : place + 8] = out[other : other + 8]
            case 7:
                out[place:place] = chance.choice(
                    [b'"', b"\n", b",", b"[", b"]", b"{", b"\\", b"1e999", b"null", b"\xff\xfe", b"\0"]
                )
    return bytes(out)


def attack(count: int) -> Counter[str]:
    """What became of ``count`` mutations, by kind of file and outcome; runs in the limited process.

    A kind is taken until one of its mutations has left a table and one has not, whatever the seed; then it is left to chance.
    """
    from labxchange.content import tables, writing
    from labxchange.content.fingerprint import fingerprint
    from labxchange.errors import LabxchangeError
    from tests.unit.content import samples

    chance = random.Random(SEED)
    adsl = samples.pilot("adsl.xpt")
    frame = tables.read(adsl, "adsl.xpt")
    few = frame.head(20)
    few.attrs = frame.attrs
    long = few.rename(columns={"AGE": "AGE_AT_FIRST_DOSE"})
    long.attrs = {"labels": {"SEX": "S" * 90, "ARM": "A" * 41}, "formats": {"TRTSDT": "DATE9.", "SEX": "$LONGNAMEDFORMAT8."}}
    files = {
        "a.xpt": [writing.write(few, "xpt"), writing.write(long, "xpt"), samples.sas("version8.xpt"), adsl],
        "a.parquet": [writing.write(few, "parquet")],
        "a.sas7bdat": [samples.sas("sample.sas7bdat"), samples.sas("sample_bincompressed.sas7bdat")],
        "a.json": [samples.dataset_json(), samples.dataset_json_1_0()],
        "a.ndjson": [samples.dataset_lines()],
        "a.csv": [writing.write(few, "csv")],
    }
    seen: Counter[str] = Counter()
    for number in range(count):
        one_sided = (name for name in files if not (seen[f"{name} read"] and seen[f"{name} table-damaged"]))
        name = next(one_sided, None) or chance.choice(list(files))
        data = mutated(chance, chance.choice(files[name]))
        try:
            named = tables.columns(io.BytesIO(data), name)
        except LabxchangeError as error:
            assert error.message
        except BaseException as error:
            raise AssertionError(
                f"the columns of mutation {number} of {name}, seed {SEED:x}: {error!r}; {data[:3000]!r}"
            ) from error
        else:
            assert all(isinstance(text, str) for pair in named.items() for text in pair)
        try:
            held = tables.read(data, name)
            fingerprint(held)
            if chance.random() < 0.3:
                writing.subset(data, name, columns=list(held.columns[:2]), rows=lambda table: table.index.to_numpy() % 2 == 0)
            seen[f"{name} read"] += 1
        except LabxchangeError as error:
            assert error.message
            seen[f"{name} {error.code}"] += 1
        except BaseException as error:
            raise AssertionError(f"mutation {number} of {name}, seed {SEED:x}: {error!r}; {data[:3000]!r}") from error
    return seen


def each_byte_of_a_footer() -> Counter[str]:
    """A small Parquet file with each byte of its footer changed in three ways; runs in the limited process.

    Some of them give statistics on sizes for which pyarrow 26 ends the process when a column's part of the footer is asked for.
    """
    import pandas as pd

    from labxchange.content import tables, writing
    from labxchange.errors import LabxchangeError

    data = writing.write(pd.DataFrame({"A": [1.5, 2.5], "B": ["x", None]}), "parquet")
    begin = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    seen: Counter[str] = Counter()
    for place in range(begin, len(data)):
        for change in (1, 2, 0x80):
            try:
                tables.read(data[:place] + bytes([data[place] ^ change]) + data[place + 1 :], "a.parquet")
                seen["read"] += 1
            except LabxchangeError as error:
                seen[error.code] += 1
    return seen


def run(call: str) -> Counter[str]:
    program = f"import json\nfrom tests.fuzz import test_tables\nprint(json.dumps(test_tables.{call}))"
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "ARROW_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES)),
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert told.returncode == 0, told.stderr[-6000:]
    return Counter(json.loads(told.stdout.splitlines()[-1]))


def judge(seen: Counter[str], count: int) -> None:
    assert sum(seen.values()) == count
    for ending in ("xpt", "parquet", "sas7bdat", "json", "ndjson", "csv"):
        assert seen[f"a.{ending} read"], "some mutations leave a table"
        assert ending == "csv" or seen[f"a.{ending} table-damaged"], "and some do not"


def test_damaged_tables() -> None:
    judge(run(f"attack({3 * FUZZ})"), 3 * FUZZ)


def test_each_byte_of_a_parquet_footer() -> None:
    seen = run("each_byte_of_a_footer()")
    assert seen["read"] > 100
    assert seen["table-damaged"] > 100


@pytest.mark.campaign
def test_all_damaged_tables() -> None:
    judge(run(f"attack({25 * FULL})"), 25 * FULL)
