"""Tables that the tests of content share: the real ones of the CDISC pilot, files that SAS wrote, and Dataset-JSON."""

from __future__ import annotations

import gzip
import hashlib
import json
import unicodedata
from pathlib import Path
from typing import Any

import pandas as pd

PILOT = Path(__file__).resolve().parents[3] / "notebooks" / "data" / "cdisc-pilot"
DATA = Path(__file__).resolve().parent / "data"


def pilot(name: str) -> bytes:
    return (PILOT / name).read_bytes()


def sas(name: str) -> bytes:
    """A file that SAS wrote, by its name without ``.gz``."""
    path = DATA / name
    return path.read_bytes() if path.exists() else gzip.decompress((DATA / f"{name}.gz").read_bytes())


def days(column: pd.Series) -> list[str]:
    return ["NaT" if pd.isna(cell) else str(cell.date()) for cell in column]


COLUMNS: list[dict[str, Any]] = [
    {"itemOID": "IT.ID", "name": "USUBJID", "label": "Unique Subject Identifier", "dataType": "string", "length": 11},
    {"itemOID": "IT.AGE", "name": "AGE", "label": "Age", "dataType": "integer"},
    {"itemOID": "IT.DOSE", "name": "DOSE", "label": "Dose", "dataType": "decimal", "targetDataType": "decimal"},
    {"itemOID": "IT.DAY", "name": "DAY", "dataType": "date", "targetDataType": "integer", "displayFormat": "DATE9."},
    {"itemOID": "IT.DTC", "name": "DTC", "label": "Start", "dataType": "date"},
]
ROWS: list[list[Any]] = [
    ["01-701-1015", 63, "1.50", "2014-07-02", "2014-07"],
    ["01-701-1023", 64, "2", "2014-07-03", "2014-07-03"],
    ["01-701-1028", 71, None, None, None],
]


def dataset_json(columns: list[dict[str, Any]] = COLUMNS, rows: list[list[Any]] = ROWS, **more: Any) -> bytes:
    """Version 1.1."""
    about = {"datasetJSONVersion": "1.1.0", "itemGroupOID": "IG.DM", "name": "DM", "label": "Demographics", "records": len(rows)}
    return json.dumps(about | {"columns": columns, "rows": rows} | more).encode()


def dataset_lines() -> bytes:
    about = {"datasetJSONVersion": "1.1.0", "name": "DM", "label": "Demographics", "records": len(ROWS), "columns": COLUMNS}
    return b"".join(json.dumps(line).encode() + b"\n" for line in (about, *ROWS))


def dataset_json_1_0() -> bytes:
    sequence = {"OID": "ITEMGROUPDATASEQ", "name": "ITEMGROUPDATASEQ", "label": "Record Identifier", "type": "integer"}
    items = [sequence, *({"OID": one["itemOID"], "type": one["dataType"], **one} for one in COLUMNS)]
    group = {"records": len(ROWS), "name": "DM", "label": "Demographics", "items": items}
    group["itemData"] = [[number + 1, *row] for number, row in enumerate(ROWS)]
    return json.dumps(
        {"datasetJSONVersion": "1.0.0", "clinicalData": {"studyOID": "S", "itemGroupData": {"IG.DM": group}}}
    ).encode()


# --- the fingerprint, from its page alone -----------------------------------------------------------------------------
def number_text(value: float) -> str:
    """docs/spec/fingerprint.md, from Python's own shortest decimal."""
    if value != value:
        return ""
    if value in (float("inf"), float("-inf")):
        return str(value)
    if abs(value) <= 2**53 and value == int(value):
        return str(int(value))
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = f"{abs(value)!r}e0".partition("e")
    whole, _, fraction = mantissa.partition(".")
    e = int(exponent.partition("e")[0])
    digits = (whole + fraction).lstrip("0")
    e += len(whole) - 1 if whole != "0" else -1 - (len(fraction) - len(fraction.lstrip("0")))
    digits = digits.rstrip("0")
    if not -6 <= e <= 9:
        return f"{sign}{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e{e:+}"
    if e < 0:
        return f"{sign}0.{'0' * (-e - 1)}{digits}"
    return f"{sign}{digits[: e + 1]}.{digits[e + 1 :]}"


def text_text(value: str) -> str:
    return unicodedata.normalize("NFC", value).rstrip(" ")


def framed(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def digest(table: dict[str, list[str]]) -> str:
    """The fingerprint of a table whose cells are canonical texts already."""
    columns = []
    for name, texts in table.items():
        out = hashlib.sha256(framed(b"labxchange column v0", name.encode()))
        for begin in range(0, len(texts), 65_536):
            block = [text.encode() for text in texts[begin : begin + 65_536]]
            out.update(b"".join(len(text).to_bytes(4, "big") for text in block) + b"".join(block))
        columns.append(out.digest())
    rows = len(next(iter(table.values()), []))
    whole = framed(b"labxchange table v0", rows.to_bytes(8, "big"), len(table).to_bytes(8, "big"), *columns)
    return hashlib.sha256(whole).hexdigest()
