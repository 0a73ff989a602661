"""The session machine: its phases, its streams, and that nothing comes out of a closed one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

import labxchange.wire
from labxchange.wire.control.handshake import Keys, RekeyOffer
from labxchange.wire.control.session import (
    LaneKeyChanged,
    Message,
    Session,
    SessionClosed,
    StreamEnded,
    StreamOpened,
    StreamReset,
)
from tests.unit.wire.party import Party, events_of, exchange, initiator, responder, session

A, B = Party(1), Party(2)


def pair() -> tuple[Session, Session]:
    a, b = session(initiator(A, B)), session(responder(B))
    exchange(a, b)
    assert (a.phase, b.phase) == ("open", "open")
    return a, b


def offer() -> RekeyOffer:
    return RekeyOffer(x25519=X25519PrivateKey.generate(), mlkem=MLKEM768PrivateKey.generate())


def closed(side: Session) -> SessionClosed:
    return next(event for event in events_of(side) if isinstance(event, SessionClosed))


def test_streams_of_both_sides() -> None:
    a, b = pair()
    a.open_stream(4)
    a.send(4, b"question", last=True)
    (_, heard) = exchange(a, b)
    assert [type(event) for event in heard] == [StreamOpened, Message, StreamEnded]
    b.send(4, b"answer")
    b.send(4, None, last=True)
    b.open_stream(1)
    b.send(1, b"")
    (heard, _) = exchange(a, b)
    assert [event.data for event in heard if isinstance(event, Message)] == [b"answer", b""]
    with pytest.raises(RuntimeError):
        a.open_stream(1)
    with pytest.raises(RuntimeError):
        a.open_stream(4)


def test_a_forgotten_stream_is_never_used_again() -> None:
    a, b = pair()
    for stream_id in (8, 4, 12):
        a.open_stream(stream_id)
        a.send(stream_id, b"x", last=True)
        exchange(a, b)
        for side in (a, b):
            side.forget(stream_id)
            assert side.is_forgotten(stream_id)
        with pytest.raises(RuntimeError):
            a.open_stream(stream_id)
        b.receive(stream_id, b"late", end=True)
        b.receive_reset(stream_id, 0)
        assert events_of(b) == []
    assert not a._forgotten._above
    assert not a.is_forgotten(0)


def test_a_reset_stream_is_told() -> None:
    _, b = pair()
    b.receive_reset(4, 7)
    assert events_of(b) == [StreamOpened(4), StreamReset(4, 7)]
    b.receive_reset(5, 7)  # one of its own that it never opened
    assert events_of(b) == []


def test_rekey_changes_the_lane_key_on_both_sides() -> None:
    a, b = pair()
    keys = {a.k_lane}
    for generation in (1, 2, 3):
        a.rekey(offer())
        events = exchange(a, b)
        assert events == ([LaneKeyChanged(generation)], [LaneKeyChanged(generation)])
        assert a.k_lane == b.k_lane
        keys.add(a.k_lane)
    assert len(keys) == 4
    with pytest.raises(RuntimeError):
        b.rekey(offer())
    a.rekey(offer())
    with pytest.raises(RuntimeError):
        a.rekey(offer())


@pytest.mark.parametrize("message", [b"", b"\x00\x00\x00\x05rekey", b"x" * 40])
def test_malformed_session_messages_close_with_a_code(message: bytes) -> None:
    a, b = pair()
    a.send(0, message)
    exchange(a, b)
    assert b.phase == "closed"


@pytest.mark.parametrize("stream_id", [0, 4])
def test_a_stream_cut_short_closes_with_a_code(stream_id: int) -> None:
    a, b = pair()
    if stream_id:
        a.open_stream(stream_id)
        a.send(stream_id, b"whole")
        exchange(a, b)
    b.receive(stream_id, b"", end=True)
    event = closed(b)
    assert (event.code, event.whose, event.silent) == ("cut-short", "peer", False)


def test_a_closed_session_says_and_hears_nothing() -> None:
    a, _ = pair()
    a.open_stream(4)
    a.send(4, b"x")
    a.close("done")
    assert a.take_output() == []
    assert closed(a) == SessionClosed("done", "us", False)
    a.receive(4, b"x", end=True)
    a.close("again")
    a.on_timer(1e9)
    assert events_of(a) == []
    assert a.next_timer() is None


def test_keys_of_writers_and_streams_differ() -> None:
    keys = Keys(bytes(48))
    found = {keys.control(writer, stream_id) for writer in "IR" for stream_id in range(100)}
    assert len(found) == 200
    assert "0" not in repr(keys)


@given(data=st.binary(max_size=400), stream_id=st.integers(0, 12), end=st.booleans(), opened=st.booleans())
@settings(max_examples=150, deadline=None)
def test_garbage_ends_the_session_or_waits(data: bytes, stream_id: int, end: bool, opened: bool) -> None:
    side = pair()[1] if opened else session(responder(B))
    side.receive(stream_id, data, end=end)
    assert not any(isinstance(event, Message) for event in events_of(side))


FORBIDDEN = {"socket", "asyncio", "threading", "ssl", "time", "random", "secrets", "os", "logging", "datetime", "pathlib"}


def test_wire_is_pure() -> None:
    root = Path(next(iter(labxchange.wire.__path__)))
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not FORBIDDEN & {name.partition(".")[0] for name in names}, path
