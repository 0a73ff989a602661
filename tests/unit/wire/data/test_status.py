"""The status report: it comes back, and any other bytes are our error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labxchange.errors import PeerError
from labxchange.wire.data.datagram import OVERHEAD_BYTES, SIZES
from labxchange.wire.data.status import MAP_BYTES_MAX, Status, decode, encode

VECTOR = json.loads((Path(__file__).parents[3] / "vectors" / "lanes.json").read_text())["status"]
U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)


def numbers(status: Status) -> list[int]:
    """Those that arrived, ascending."""
    return [int(number) for number in status.first + np.flatnonzero(status.came)]


@given(
    newest=U32,
    held=st.integers(0, 2**40),
    clock=U64,
    total=U64,
    dropped=st.integers(0, 2**40),
    forged=st.integers(0, 2**40),
    came=st.lists(st.booleans(), max_size=300),
)
def test_a_report_comes_back(newest: int, held: int, clock: int, total: int, dropped: int, forged: int, came: list[bool]) -> None:
    came = [True, *came][: newest + 1]
    payload = encode(
        newest=newest, held_us=held, clock_us=clock, total_bytes=total, dropped=dropped, forged=forged, arrived=np.array(came)
    )
    status = decode(memoryview(payload))
    most = 2**32 - 1
    assert (status.newest, status.held_us, status.clock_us) == (newest, min(held, most), clock)
    assert (status.bytes, status.dropped, status.forged) == (total, min(dropped, most), min(forged, most))
    assert numbers(status) == sorted(newest - place for place, arrived in enumerate(came) if arrived)
    assert len(came) <= len(status.came) < len(came) + 8


def test_the_longest_report_fits_into_the_smallest_datagram() -> None:
    most = np.ones(8 * MAP_BYTES_MAX, np.bool_)
    payload = encode(newest=1 << 20, held_us=0, clock_us=0, total_bytes=0, dropped=0, forged=0, arrived=most)
    assert len(payload) + OVERHEAD_BYTES == SIZES[0]
    assert len(numbers(decode(memoryview(payload)))) == 8 * MAP_BYTES_MAX == 9_040


@given(st.binary(max_size=1_300))
@settings(max_examples=400)
def test_any_bytes_parse_or_are_our_error(data: bytes) -> None:
    try:
        status = decode(memoryview(data))
    except PeerError as error:
        assert error.code == "malformed-status"
    else:
        assert 0 <= numbers(status)[0] <= numbers(status)[-1] == status.newest < 2**32


@given(place=st.integers(0, 200), byte=st.integers(0, 255), cut=st.integers(0, 200))
@settings(max_examples=400)
def test_a_report_that_was_changed_parses_or_is_our_error(place: int, byte: int, cut: int) -> None:
    payload = bytearray.fromhex(VECTOR["payload"])
    payload[place % len(payload)] = byte
    for data in (payload, payload[:cut], payload + bytes(cut + 1)):
        try:
            assert numbers(decode(memoryview(data)))[0] >= 0
        except PeerError as error:
            assert error.code == "malformed-status"


@pytest.mark.parametrize("end", range(len(bytes.fromhex(VECTOR["payload"]))))
def test_a_report_that_is_cut_anywhere_is_refused(end: int) -> None:
    with pytest.raises(PeerError):
        decode(memoryview(bytes.fromhex(VECTOR["payload"])[:end]))


def test_numbers_below_zero_are_refused() -> None:
    payload = bytearray.fromhex(VECTOR["payload"])
    payload[:4] = (1).to_bytes(4, "big")
    with pytest.raises(PeerError):
        decode(memoryview(payload))
