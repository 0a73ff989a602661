"""Sealed records: whole or in pieces they give the messages back; anything else is our error, for good."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labxchange.errors import PeerError
from labxchange.wire.control.records import MESSAGE_MAX_BYTES, RECORD_MAX_BYTES, Opener, Sealer

KEY = bytes(range(44))
PIECE = RECORD_MAX_BYTES - 17


def stream(messages: list[bytes], *, end: str = "alone") -> bytes:
    sealer = Sealer(KEY)
    out = [sealer.message(m, last=end == "with" and i == len(messages) - 1) for i, m in enumerate(messages)]
    return b"".join(out) + (sealer.end() if end == "alone" else b"")


@given(
    messages=st.lists(st.binary(max_size=300), min_size=1, max_size=6),
    cuts=st.lists(st.integers(1, 200), min_size=1),
    end=st.sampled_from(["alone", "with", "none"]),
)
@settings(max_examples=150, deadline=None)
def test_messages_come_back_however_the_bytes_are_cut(messages: list[bytes], cuts: list[int], end: str) -> None:
    data, opener, got, position = stream(messages, end=end), Opener(KEY), [], 0
    while position < len(data):
        cut = cuts[position % len(cuts)]
        got += opener.receive(data[position : position + cut])
        position += cut
    assert [m.data for m in got if m.data is not None] == messages
    assert sum(m.wire_bytes for m in got) == len(data)
    assert opener.ended == (end != "none")
    if end == "none":
        with pytest.raises(PeerError) as caught:
            opener.finish()
        assert caught.value.code == "cut-short"
    else:
        opener.finish()


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, MESSAGE_MAX_BYTES])
def test_sizes_at_the_edges(size: int) -> None:
    (message, _) = Opener(KEY).receive(stream([b"\x5a" * size]))
    assert message.data == b"\x5a" * size


def test_too_long_is_refused_on_both_sides() -> None:
    with pytest.raises(ValueError, match="longer"):
        Sealer(KEY).message(bytes(MESSAGE_MAX_BYTES + 1))
    with pytest.raises(PeerError) as caught:
        Opener(KEY, message_max_bytes=100).receive(stream([bytes(101)]))
    assert caught.value.code == "message-too-long"


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_changed_bit_gives_no_message(data: st.DataObject) -> None:
    sealed = bytearray(stream([b"one", b"two"]))
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    first = 4 + 1 + 3 + 16
    opener = Opener(KEY)
    try:
        got = opener.receive(bytes(sealed))
    except PeerError:
        got = []
        with pytest.raises(PeerError):
            opener.receive(b"")
    assert [m.data for m in got] in ([], [b"one"] * (bit // 8 >= first), [b"one", b"two"][: 1 + (bit // 8 >= 2 * first)])
    with pytest.raises(PeerError):
        opener.finish()


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_garbage_is_an_error_or_waits_for_more(data: bytes) -> None:
    opener = Opener(KEY)
    try:
        got = opener.receive(data)
    except PeerError:
        got = []
    assert got == []


def raw(*plains: bytes) -> bytes:
    sealer = Sealer(KEY)
    out = b""
    for plain in plains:
        sealer.ended = False
        out += sealer._record(plain[0], memoryview(plain[1:]))
    return out


@pytest.mark.parametrize(
    "plains",
    [
        (b"\x00",),  # an empty piece
        (b"\x04x",),  # a kind that does not exist
        (b"\xffx",),
        (b"\x03x",),  # an end that says something
        (b"\x00x", b"\x03"),  # an end within a message
        (b"\x02x", b"\x01y"),  # something after the end
        (b"\x03", b"\x03"),
    ],
)
def test_rules_of_the_first_byte(plains: tuple[bytes, ...]) -> None:
    with pytest.raises(PeerError) as caught:
        Opener(KEY).receive(raw(*plains))
    assert caught.value.code == "bad-record"


def test_records_cannot_change_places_or_come_again() -> None:
    sealer = Sealer(KEY)
    one, two = sealer.message(b"one"), sealer.message(b"two")
    for data in (two, one + one, two + one):
        opener = Opener(KEY)
        with pytest.raises(PeerError):
            opener.receive(data)


def test_no_nonce_is_used_twice_and_the_numbers_end() -> None:
    sealer = Sealer(KEY)
    nonces = {sealer._nonce() for _ in range(1000)}
    assert len(nonces) == 1000
    sealer._number = 1 << 48
    with pytest.raises(RuntimeError, match="used up"):
        sealer.message(b"")
    sealer = Sealer(KEY)
    sealer.end()
    with pytest.raises(RuntimeError, match="ended"):
        sealer.message(b"")
