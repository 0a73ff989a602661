"""Where bytes come together: against a map of bytes, whatever comes twice, overlapping, unasked or in pieces."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from labxchange.wire.data import assembly as module
from labxchange.wire.data.assembly import UNIT_BYTES, Assembly, Unit

LINE = 6_000
UNIT_LENGTHS = st.lists(st.integers(1, 900), min_size=1, max_size=10)
PIECES = st.lists(st.tuples(st.integers(0, LINE), st.integers(0, 1_500), st.integers(1, 255)), max_size=40)


def laid_out(lengths: list[int], holes: list[int]) -> list[tuple[int, int, tuple[int, int]]]:
    """Units one after the other, with holes before some."""
    units, at = [], 0
    for number, length in enumerate(lengths):
        at += holes[number % len(holes)]
        units.append((at, length, (number, number)))
        at += length
    return units


@given(lengths=UNIT_LENGTHS, holes=st.lists(st.sampled_from([0, 0, 1, 300]), min_size=1), pieces=PIECES)
@settings(max_examples=120, deadline=None)
def test_like_a_map_of_bytes(lengths: list[int], holes: list[int], pieces: list[tuple[int, int, int]]) -> None:
    units = laid_out(lengths, holes)
    assembly, model, waiting = Assembly(), dict[int, int](), set[int]()
    assembly.expect(units)
    for start, length, _ in units:
        waiting |= set(range(start, start + length))
    given_bytes = taken = 0
    complete: dict[int, bytes] = {}
    for at, length, value in [*pieces, (0, LINE + 4_000, 77)]:
        new = {place: value for place in range(at, at + length) if place in waiting}
        model |= new
        waiting -= new.keys()
        given_bytes += length
        added = assembly.put(at, memoryview(bytes([value]) * length))
        assert added == len(new)
        taken += added
        while assembly.complete:
            unit = assembly.complete.popleft()
            assert unit.buffer is not None
            assert unit.start not in complete
            complete[unit.start] = bytes(unit.buffer[: unit.length])
            unit.buffer[:] = bytes(len(unit.buffer))  # whoever has it next may write what they like
            assembly.give_back(unit)
        assert taken + assembly.unasked_bytes + assembly.repeated_bytes == given_bytes
    assert complete == {start: bytes(model[place] for place in range(start, start + length)) for start, length, _ in units}


def test_a_unit_that_waits_is_left_as_it_is() -> None:
    assembly = Assembly()
    assembly.expect([(0, 10, (0, 0))])
    assert assembly.put(0, memoryview(b"aaaaa")) == 5
    assembly.expect([(0, 10, (0, 0))])
    assert assembly.put(0, memoryview(b"bbbbbbbbbb")) == 5
    unit = assembly.complete.popleft()
    assert unit.buffer is not None
    assert bytes(unit.buffer[:10]) == b"aaaaabbbbb"


def test_what_was_not_asked_for_takes_no_memory() -> None:
    assembly = Assembly()
    assembly.expect([(1 << 40, 10, (0, 0))])
    for offset in (0, 1 << 39, (1 << 40) + 10, 2**63, -5):
        assert assembly.put(offset, memoryview(bytes(1_000))) == (0)
    assert assembly.unasked_bytes == 5_000
    assert not assembly.complete


def test_memory_is_what_was_asked_for(monkeypatch: object) -> None:
    """Many small units that each got one byte: no megabyte for each."""
    made = []

    class Counting(bytearray):
        def __init__(self, size: int) -> None:
            made.append(size)
            super().__init__(size)

    module.__dict__["bytearray"] = Counting
    try:
        assembly = Assembly()
        assembly.expect([(start, 4_096, (0, 0)) for start in range(0, 400 * 8_192, 8_192)])
        for start in range(0, 400 * 8_192, 8_192):
            assembly.put(start, memoryview(b"x"))
        assert sum(made) == 400 * 4_096
    finally:
        del module.__dict__["bytearray"]


def test_large_units_lie_in_slots_and_use_them_again() -> None:
    slots = [memoryview(bytearray(UNIT_BYTES)) for _ in range(2)]
    assembly = Assembly(slots)
    large, small = UNIT_BYTES - 5, UNIT_BYTES // 2
    starts = [0, UNIT_BYTES, 2 * UNIT_BYTES, 3 * UNIT_BYTES]

    def come(start: int, length: int) -> Unit:
        assembly.expect([(start, length, (0, 0))])
        assembly.put(start, memoryview(bytes([1 + start // UNIT_BYTES]) * length))
        return assembly.complete.popleft()

    units = [come(start, large) for start in starts[:3]]
    assert sorted(unit.slot for unit in units if unit.slot is not None) == [0, 1]
    assert units[2].slot is None, "more than there are get memory of their own"
    for unit, value in zip(units, (1, 2, 3), strict=True):
        assert unit.buffer is not None
        assert bytes(unit.buffer[:large]) == bytes([value]) * large
        assert unit.slot is None or unit.buffer is slots[unit.slot]
    first = units[0].slot
    assembly.give_back(units[0])
    assert come(starts[3], small).slot is None, "a small unit takes no slot"
    assert come(starts[0], large).slot == first


def test_bytes_that_do_not_come_are_stood_in_for() -> None:
    chance = random.Random(2)
    data = chance.randbytes(300_000)
    assembly = Assembly()
    assembly.expect([(0, 300_000, (0, 0))])
    assembly.put(150_000, memoryview(data)[150_000:151_000])
    assembly.skip(100_000, 200_000)
    assembly.put(0, memoryview(data))
    unit = assembly.complete.popleft()
    assert unit.buffer is not None
    want = np.frombuffer(data, np.uint8).copy()
    want[100_000:150_000] = 0
    want[151_000:200_000] = 0
    assert bytes(unit.buffer[:300_000]) == want.tobytes()
    assembly.skip(0, 300_000)
    assert not assembly.complete
