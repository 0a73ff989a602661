"""A batch is what a short time of the rate holds, and more by what is late: in whole system calls, never above the window."""

from __future__ import annotations

import pytest

from labxchange.wire.data.datagram import BATCH_CALLS, SIZES, batch_rows
from labxchange.wire.data.pacing import BURST_S, datagrams_at_once

AMPLE = 1e9


def at_once(rate_bytes_s: float, *, late_s: float = 0.0, window_bytes: float = AMPLE, size: int = 1_472) -> int:
    return datagrams_at_once(rate_bytes_s, late_s=late_s, window_bytes=window_bytes, size=size)


@pytest.mark.parametrize(
    ("rate_bytes_s", "milliseconds", "datagrams"),
    [(1.25e6, 2, 1), (12.5e6, 2, 16), (30e6, 1, 20), (125e6, 0.5, 44), (200e6, 0.5, 44), (450e6, 1, 264)],
)
def test_a_punctual_batch_holds_so_much_of_the_rate(rate_bytes_s: float, milliseconds: float, datagrams: int) -> None:
    assert at_once(rate_bytes_s) == datagrams
    assert datagrams <= max(rate_bytes_s * milliseconds / 1e3 / 1_472, 44)


@pytest.mark.parametrize("late_s", [0.001, 0.002, BURST_S])
@pytest.mark.parametrize("rate_bytes_s", [5e6, 12.5e6, 40e6])
def test_a_late_batch_makes_up_for_what_was_due(rate_bytes_s: float, late_s: float) -> None:
    due, call = rate_bytes_s * late_s / 1_472, batch_rows(1_472) // BATCH_CALLS
    late, punctual = at_once(rate_bytes_s, late_s=late_s), at_once(rate_bytes_s)
    cut = call if late >= call else 1  # what does not fill a call more is left for the next batch
    assert due - cut <= late - punctual <= due + 1


def test_a_sleep_is_not_made_up_for() -> None:
    assert at_once(40e6, late_s=3600.0) == at_once(40e6, late_s=BURST_S)
    assert at_once(40e6, late_s=-0.0004) == at_once(40e6), "sent a little ahead"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("late_s", [0.0, 0.0013, 1.0])
@pytest.mark.parametrize("rate_bytes_s", [1e3, 2e6, 125e6, 700e6, 5e9])
def test_no_batch_is_above_window_or_memory_and_long_ones_are_whole_calls(rate_bytes_s: float, late_s: float, size: int) -> None:
    call = batch_rows(size) // BATCH_CALLS
    for window_bytes in (-5.0, 0.0, 3.5 * size, 50 * size, AMPLE):
        count = at_once(rate_bytes_s, late_s=late_s, window_bytes=window_bytes, size=size)
        assert 1 <= count <= min(batch_rows(size), max(window_bytes / size, 1))
        assert count <= call or count % call == 0
