"""Moments and durations as people type and read them. UTC milliseconds inside; a moment is shown in UTC and in local time."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

from labxchange.errors import InputError

_UNITS_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION = re.compile(r"([0-9]{1,6})([mhdw])")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def parse_moment(text: str, *, now: int, end_of_day: bool = True, past: bool = False) -> int:
    """The moment that ``text`` names.

    ``30d``, ``12h``, ``2w``, ``90m`` count from ``now`` (forwards, or backwards with ``past``); ``2026-12-31`` is the last
    second of that day here, or its first with ``end_of_day`` false; ``2026-12-31T18:00:00+01:00`` is what it says.

    Raises:
        InputError: ``time-malformed``, ``time-without-zone``.
    """
    typed = text.strip()
    if found := _DURATION.fullmatch(typed):
        span = int(found[1]) * _UNITS_MS[found[2]]
        return now - span if past else now + span
    try:
        if _DAY.fullmatch(typed):
            day = datetime.fromisoformat(typed)
            if end_of_day:
                day = day + timedelta(days=1) - timedelta(seconds=1)
            return int(day.astimezone().timestamp() * 1000)
        moment = datetime.fromisoformat(typed)
        if moment.tzinfo is None:
            raise InputError(
                "time-without-zone", f"The time {text!r} does not say its zone.", hint="Add Z for UTC, or an offset like +01:00."
            )
        return int(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise InputError(
            "time-malformed",
            f"{text!r} is not a time.",
            hint="Give 30d, 12h or 2w from now, a day like 2026-12-31, or a time like 2026-12-31T18:00:00+01:00.",
        ) from None


def moment(utc_ms: int) -> str:
    """``2026-12-31 22:59 UTC (23:59 CET)``; a dash where there is none."""
    if not utc_ms:
        return "-"
    try:
        at = datetime.fromtimestamp(utc_ms / 1000, UTC)
        local = at.astimezone()
    except (OverflowError, OSError, ValueError):
        return "a time that does not exist"
    if local.utcoffset() == timedelta(0):
        return f"{at:%Y-%m-%d %H:%M} UTC"
    day = "" if local.date() == at.date() else f"{local:%Y-%m-%d} "
    return f"{at:%Y-%m-%d %H:%M} UTC ({day}{local:%H:%M} {local.tzname()})"


def duration(seconds: int) -> str:
    """``2 d 3 h``, ``4 min 10 s``: the two largest units."""
    if seconds < 0:
        return "unknown"
    parts = []
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        value, seconds = divmod(seconds, length)
        if value:
            parts.append(f"{value} {unit}")
    return " ".join(parts[:2]) or "0 s"
