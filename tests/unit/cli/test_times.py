"""Moments as people type and read them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from labxchange.errors import InputError
from labxchange.times import duration, moment, parse_moment

NOW = 1_767_225_600_000  # 2026-01-01 00:00 UTC
DAY = 86_400_000


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(("text", "span"), [("30d", 30 * DAY), ("12h", DAY // 2), ("2w", 14 * DAY), (" 90m ", 5_400_000)])
def test_from_now(text: str, span: int) -> None:
    assert parse_moment(text, now=NOW) == NOW + span
    assert parse_moment(text, now=NOW, past=True) == NOW - span


def test_a_day_is_the_whole_day_here() -> None:
    start = parse_moment("2026-07-01", now=NOW, end_of_day=False)
    end = parse_moment("2026-07-01", now=NOW)
    assert moment(start) == "2026-06-30 22:00 UTC (2026-07-01 00:00 CEST)"
    assert end - start == DAY - 1000


def test_the_day_the_clock_changes_ends_at_its_end() -> None:
    start = parse_moment("2026-10-25", now=NOW, end_of_day=False)
    assert parse_moment("2026-10-25", now=NOW) - start == 25 * 3_600_000 - 1000


def test_a_time_with_its_zone() -> None:
    assert parse_moment("2026-01-01T01:00:00+01:00", now=0) == NOW
    assert parse_moment("2026-01-01T00:00:00Z", now=0) == NOW


def test_a_time_without_zone_is_not_guessed() -> None:
    with pytest.raises(InputError, match="zone") as caught:
        parse_moment("2026-01-01T00:00:00", now=NOW)
    assert caught.value.code == "time-without-zone"


@pytest.mark.parametrize("text", ["", "d", "30", "-3d", "3y", "2026-13-01", "tomorrow", "9999999d", "2026-02-30", "\x1b[31m"])
def test_anything_else(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_moment(text, now=NOW)
    assert caught.value.code == "time-malformed"


def test_shown_in_both_times() -> None:
    assert moment(NOW) == "2026-01-01 00:00 UTC (01:00 CET)"
    assert moment(0) == "-"
    assert moment(2**53) == "a time that does not exist"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (250, "4 min 10 s"), (90_000, "1 d 1 h"), (86_401, "1 d 1 s"), (-1, "unknown")],
)
def test_durations(seconds: int, text: str) -> None:
    assert duration(seconds) == text
