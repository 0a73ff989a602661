"""CSV and JSON lines that are safe to open, and the plan of an excerpt against every tree of up to 40 entries."""

from __future__ import annotations

import csv
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labxchange.audit import export, leaf
from labxchange.audit.entry import Entry, Who
from labxchange.audit.events import Event
from tests.unit.audit.world import CRO, SPONSOR, Trail, sample


def rows_of(trail: Trail, *, opened: bool = True) -> list[dict[str, str]]:
    return [export.row(leaf.parse(built.data), built.openings if opened else ()) for built in trail.leaves]


def test_rows_hold_every_field_and_say_what_is_withheld() -> None:
    trail = sample(16)
    rows = rows_of(trail)
    assert list(rows[15]) == list(export.COLUMNS)
    assert rows[15]["study"] == "X"
    assert rows[15]["site"] == "7"
    assert rows[15]["person"] == "Ada Sponsor"
    assert rows[15]["old"] == ""
    withheld = rows_of(trail, opened=False)[15]
    assert withheld["study"] == withheld["person"] == export.WITHHELD
    assert withheld["old"] == ""
    assert withheld["event"] == "share.created"


def test_every_field_of_an_entry_has_a_column() -> None:
    who = Who(person="a", role="b", organisation="c", key="d", authenticated="keyring", actor="program")
    texts = ("object_type", "object_id", "object_digest", "study", "site", "category", "old", "new", "reason_code", "reason_text")
    more = ("purpose", "agreement", "counterparty", "counterparty_name", "country", "result_code")
    what = Entry(event=Event.CONFIG_CHANGED, who=who, details={"n": 1}, **dict.fromkeys((*texts, *more), "x"))
    assert {name for name, _, _ in what.committed(local="now")} < set(export.COLUMNS)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "|", "%", "＝", "＋", "－", "＠", " =", "\u00a0="])
def test_formulas_are_defused(start: str) -> None:
    cell = export.safe_cell(f"{start}cmd|' /C calc'!A0")
    assert cell.startswith("'")
    assert cell.isprintable()


def test_csv_is_read_back_by_a_strict_reader() -> None:
    trail = Trail(SPONSOR)
    nasty = ['=HYPERLINK("http://x")', 'a "quoted", cell', "line\nbreak\r\n", "\u202eexe.txt", "\x1b[31mred", "plain"]
    for text in nasty:
        trail.write(Entry(event=Event.CONFIG_CHANGED, new=text))
    text = "".join(export.csv_lines(rows_of(trail)))
    read = list(csv.DictReader(text.splitlines(keepends=True), strict=True))
    assert [row["new"] for row in read] == [
        '\'=HYPERLINK("http://x")', 'a "quoted", cell', "line\\u{a}break\\u{d}\\u{a}", "\\u{202e}exe.txt",
        "\\u{1b}[31mred", "plain",
    ]  # fmt: skip
    assert text.count("\r\n") == len(nasty) + 1


def test_jsonl_keeps_the_exact_text() -> None:
    trail = Trail(SPONSOR)
    trail.write(Entry(event=Event.CONFIG_CHANGED, new="=1\n\u202e", counterparty=CRO.key))
    (line,) = export.jsonl_lines(rows_of(trail))
    value = json.loads(line)
    assert value["new"] == "=1\n\u202e"
    assert "old" not in value
    assert line.count("\n") == 1


@given(st.text(max_size=30))
def test_no_cell_steers_a_screen(text: str) -> None:
    assert export.safe_cell(text).isprintable() or text == ""


@given(st.data())
def test_a_plan_covers_each_entry_once(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 40))
    shown = sorted(data.draw(st.sets(st.integers(0, size - 1))))
    breaks = sorted(data.draw(st.sets(st.integers(1, size))))
    at, seen = 0, []
    ends = set()
    for level, index, is_shown in export.plan(size, shown=shown, breaks=breaks):
        assert index << level == at
        assert not is_shown or level == 0
        if is_shown:
            seen.append(at)
        at += 1 << level
        ends.add(at)
    assert at == size
    assert seen == shown
    assert set(breaks) <= ends


def test_a_plan_is_short() -> None:
    assert len(list(export.plan(1_000_000, shown=[0, 500_000, 999_999]))) < 100


def test_the_index_must_tell_the_truth() -> None:
    trail = sample(6)
    index = export.Index(
        about="", origin=trail.origin, name="", organisation="", fingerprint="", entries=7, shown=7, exported_ms=0, exported="",
        software="",
    )  # fmt: skip
    lines = export.bundle(
        index, owner_cards=[SPONSOR.card], counterparty_cards=[], items=trail._items(range(6), [], lambda _: True), sign=bytes
    )
    with pytest.raises(ValueError):
        list(lines)
