"""Campaign row 15, the handshake gate: whatever is sent before m4, no application byte passes, either way.

Every case plays an attacker against the real session machines; both sides push application data the moment they believe the
session is open, so a case fails when either side opens at all or any message arrives. ``LABXCHANGE_HANDSHAKE_CASES`` sets how
often each case runs, ``LABXCHANGE_SEED`` (hexadecimal) the seed, which is printed; ``LABXCHANGE_EVERY_BIT=1`` flips every bit
of m1 to m4 instead of one in 41.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from labxchange.encoding import frame, unframe
from labxchange.errors import InputError
from labxchange.wire.control.handshake import Initiator, dial_tag
from labxchange.wire.control.session import Message, Output, PeerProven, Ready, Session, SessionClosed
from tests.unit.wire.party import Party, events_of, exchange, initiator, responder, session

CASES = int(os.environ.get("LABXCHANGE_HANDSHAKE_CASES", "1000"))
BIT_STRIDE = 1 if os.environ.get("LABXCHANGE_EVERY_BIT") else 41
SEED = int(os.environ.get("LABXCHANGE_SEED", "15"), 16)
A, B, EVIL = Party(1), Party(2), Party(3)

Tap = Callable[[Session, Output], Output | None]


def forward(_: Session, output: Output) -> Output:
    return output


class Gate:
    """Both sides, the attacker between them, and the verdict."""

    def __init__(self, a: Session | None = None, b: Session | None = None) -> None:
        self.a = a or session(initiator(A, B))
        self.b = b or session(responder(B))
        self.events: list[Any] = []

    def run(self, tap: Tap = forward, *, decide: Callable[[Session], None] = Session.accept) -> None:
        for events in exchange(self.a, self.b, tap=tap, decide=decide):
            self.events += events

    def push(self) -> None:
        """Each side that is open speaks."""
        for side, stream_id in ((self.a, 4), (self.b, 1)):
            if side.phase == "open":
                side.open_stream(stream_id)
                side.send(stream_id, b"application data")

    def assert_shut(self, *, opened: int = 0) -> None:
        self.push()
        self.run()
        assert sum(isinstance(event, Ready) for event in self.events) == opened
        assert not any(isinstance(event, Message) for event in self.events)


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def record() -> list[Output]:
    """What an attacker saw of a good session: m1, m2, m3, m4."""
    gate = Gate()
    seen: list[Output] = []

    def tap(_: Session, output: Output) -> Output:
        seen.append(output)
        return output

    gate.run(tap)
    assert sum(isinstance(event, Ready) for event in gate.events) == 2
    return seen[:4]


def no_m1(chance: random.Random) -> None:
    gate = Gate()
    gate.b.receive(0, chance.randbytes(chance.randrange(1, 4000)), end=chance.random() < 0.5)
    gate.b.receive(chance.choice([0, 4, 8, 1]), chance.randbytes(40), end=False)
    assert not gate.b.take_output()
    gate.assert_shut()


def wrong_tag(chance: random.Random) -> None:
    gate = Gate(session(initiator(A, EVIL)))
    gate.run()
    assert gate.b.take_output() == []
    closed = [event for event in gate.events if isinstance(event, SessionClosed)]
    assert [(event.code, event.silent) for event in closed] == [("wrong-tag", True)]
    gate.assert_shut()


def unwelcome(chance: random.Random) -> None:
    code = chance.choice(["unknown-peer", "contact-blocked", "invitation-reused"])
    gate = Gate()
    gate.run(decide=lambda side: side.refuse(code))
    assert [event.code for event in gate.events if isinstance(event, SessionClosed)] == [code, code]
    gate.assert_shut()


class Masked:
    """An attacker's identity that claims the dialled key."""

    def __init__(self, public: bytes, signer: Party) -> None:
        self.public = public
        self.sign = signer.identity.sign


def wrong_key(chance: random.Random) -> None:
    """The one that answers is a known contact, but not the one that was dialled; with its own or the victim's card."""
    machine = responder(B)
    machine._identity = Masked(B.key, EVIL)  # type: ignore[assignment]
    machine._card = chance.choice([EVIL, B]).card
    gate = Gate(b=session(machine))
    gate.run()
    assert not any(isinstance(event, PeerProven) for event in gate.events)
    gate.assert_shut()


def stolen_card(chance: random.Random) -> None:
    """The dialler shows the card of someone else."""
    machine = initiator(A, B)
    machine._identity = EVIL.identity
    gate = Gate(session(machine))
    gate.run()
    assert not any(isinstance(event, PeerProven) for event in gate.events)
    gate.assert_shut()


def replayed(chance: random.Random) -> None:
    """Messages of an earlier session, in place of one or of several."""
    old = record()
    replaced = chance.sample(range(4), chance.randrange(1, 5))
    if replaced == [0]:
        replaced = [0, 2]  # a replayed m1 alone is only a call that its caller cannot finish
    gate = Gate()
    count = 0

    def tap(_: Session, output: Output) -> Output:
        nonlocal count
        count += 1
        return old[count - 1] if count - 1 in replaced else output

    gate.run(tap)
    opened = sum(isinstance(event, Ready) for event in gate.events)
    assert opened == 0 or (replaced == [3] and opened == 1)  # then R is ready, and I, that hears no m4, is not
    gate.assert_shut(opened=opened)


def reflected(chance: random.Random) -> None:
    """A side hears its own messages."""
    gate = Gate()
    which = chance.choice(["a", "b"])
    if which == "a":
        for _ in range(4):
            for output in gate.a.take_output():
                gate.a.receive(output.stream_id, output.data, end=output.end)
        assert gate.a.phase == "closed"
    else:
        for output in gate.a.take_output():
            gate.b.receive(0, output.data, end=False)
        for output in gate.b.take_output():
            gate.b.receive(0, output.data, end=False)
        assert gate.b.phase == "closed"
    gate.events += events_of(gate.a) + events_of(gate.b)
    gate.assert_shut()


def relayed(chance: random.Random) -> None:
    """Two TLS channels with a relay between them: each side saw another certificate."""
    gate = Gate(session(initiator(A, B, certificate_digest=chance.randbytes(32))))
    gate.run()
    assert not any(isinstance(event, PeerProven) for event in gate.events)
    gate.assert_shut()


def retagged(fields: list[bytes]) -> bytes:
    body = frame(*fields)
    return frame(body + frame(dial_tag(B.key, body)))


def stripped(chance: random.Random) -> None:
    """Someone who knows the dialled key changes what m1 offers and makes the tag anew."""
    offers = chance.choice(
        [
            {0: frame(1, 0)},
            {0: frame(0)},
            {0: b""},
            {1: frame("weak", "mlkem768-x25519-aes256gcm-sha384")},
            {1: frame("weak")},
            {1: b""},
            {2: chance.randbytes(32)},
            {3: chance.randbytes(32)},
            {3: bytes(32)},
            {4: chance.randbytes(1184)},
            {4: b""},
        ]
    )
    gate = Gate()

    def tap(sender: Session, output: Output) -> Output:
        if sender is gate.a and sender.phase == "handshake" and len(output.data) > 1200:
            *fields, _ = unframe(output.data[4:], 6)
            for index, value in offers.items():
                fields[index] = value
            return Output(0, retagged(fields), False)
        return output

    gate.run(tap)
    assert not any(isinstance(event, PeerProven) for event in gate.events)
    gate.assert_shut()


def flipped(target: int, bit: int) -> None:
    """One bit of one message."""
    count = 0
    gate = Gate()

    def tap(_: Session, output: Output) -> Output:
        nonlocal count
        count += 1
        if count - 1 != target:
            return output
        return Output(output.stream_id, flip(output.data, bit), output.end)

    gate.run(tap)
    opened = sum(isinstance(event, Ready) for event in gate.events)
    assert opened == (1 if target == 3 else 0)  # R has decided before its m4 was damaged; I stays shut
    gate.assert_shut(opened=opened)


def early_data(chance: random.Random) -> None:
    """Data before m4: on another stream, after m1 or m3 on stream 0, or from R's side."""
    gate = Gate()
    kind = chance.randrange(4)
    junk = chance.randbytes(chance.randrange(1, 200))

    def decide(side: Session) -> None:
        if kind == 0:
            side.receive(4, junk, end=False)
        elif kind == 1:
            side.receive(0, junk, end=False)
        elif kind == 2:
            side.receive_reset(chance.choice([0, 4]), 0)
        if kind < 3:
            assert side.phase == "closed"

    if kind == 3:
        gate.a.receive(1, junk, end=False)
        assert gate.a.phase == "closed"
        gate.a.take_output()
    gate.run(decide=decide)
    gate.assert_shut()


def truncated(chance: random.Random) -> None:
    """One message cut short or made longer, and the stream ended or not."""
    target, count = chance.randrange(3), 0
    gate = Gate()

    def tap(_: Session, output: Output) -> Output:
        nonlocal count
        count += 1
        if count - 1 != target:
            return output
        body = output.data[4:]
        body = body[: chance.randrange(len(body))] if chance.random() < 0.5 else body + chance.randbytes(8)
        return Output(output.stream_id, frame(body), chance.random() < 0.3)

    gate.run(tap)
    gate.assert_shut()


def oversized(chance: random.Random) -> None:
    """A length field that asks for memory."""
    gate = Gate()
    side = chance.choice([gate.a, gate.b])
    side.take_output()
    side.receive(0, chance.randrange(16_385, 2**32).to_bytes(4, "big") + bytes(100), end=False)
    assert side.phase == "closed"
    gate.assert_shut()


def slow(chance: random.Random) -> None:
    """Whoever has not finished after ten seconds is out."""
    gate = Gate()
    gate.run(decide=lambda side: None)
    gate.b.on_timer(9.9)
    assert gate.b.phase == "deciding"
    gate.b.on_timer(10.0)
    gate.a.on_timer(10.0)
    assert (gate.a.phase, gate.b.phase) == ("closed", "closed")
    gate.assert_shut()


ATTACKS = [
    no_m1, wrong_tag, unwelcome, wrong_key, stolen_card, replayed, reflected, relayed, stripped, early_data, truncated, oversized,
    slow,
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(ATTACKS)), ids=lambda number: f"{ATTACKS[number].__name__}-{number}")
def test_nothing_passes_the_gate(number: int) -> None:
    seed = f"{SEED}-{number}"
    print(f"seed {seed}, {CASES} cases")
    chance = random.Random(seed)
    for _ in range(CASES):
        ATTACKS[number](chance)


@pytest.mark.parametrize("target", range(4), ids=["m1", "m2", "m3", "m4"])
def test_a_flipped_bit_passes_nothing(target: int) -> None:
    bits = range(SEED % BIT_STRIDE, 8 * len(record()[target].data), BIT_STRIDE)
    print(f"first bit {bits.start}, each {bits.step}")
    for bit in bits:
        flipped(target, bit)


def test_the_gate_opens_for_the_right_key() -> None:
    gate = Gate()
    gate.run()
    gate.push()
    gate.run()
    assert sum(isinstance(event, Message) for event in gate.events) == 2


def test_nobody_dials_itself() -> None:
    with pytest.raises(InputError, match="own node"):
        initiator(A, A)
    machine: Initiator = initiator(A, B)
    machine._identity, machine._card = B.identity, B.card
    gate = Gate(session(machine))
    gate.run()
    assert not any(isinstance(event, PeerProven) for event in gate.events)
    gate.assert_shut()
