"""Rates as people type and read them; bytes a second inside. Powers of 1000, as disks and networks are sold."""

from __future__ import annotations

import re

from labxchange.errors import InputError

_RATE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([kKMGT]?)(B|bit|bps)?(?:/s)?")
_POWERS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_OFF = ("0", "off", "none")
_HINT = "Give 100M or 12.5 MB/s (bytes), 800 Mbit/s or 1Gbit (bits), or off for no limit."


def parse_rate(text: str) -> int:
    """Bytes a second; 0 is no limit.

    ``100M`` and ``12.5 MB/s`` are bytes, ``800 Mbit/s`` and ``800Mbps`` bits, ``0`` and ``off`` no limit.

    Raises:
        InputError: ``rate-malformed``.
    """
    typed = text.strip()
    if typed.lower() in _OFF:
        return 0
    found = _RATE.fullmatch(typed)
    if found is None:
        raise InputError("rate-malformed", f"{text!r} is not a rate.", hint=_HINT)
    bits = found[3] in ("bit", "bps")
    return max(int(float(found[1]) * _POWERS[found[2]] / (8 if bits else 1)), 1)


def maybe_rate(text: str | None) -> int | None:
    """The same, where nothing may be given."""
    return None if text is None else parse_rate(text)
