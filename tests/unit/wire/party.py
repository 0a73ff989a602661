"""Two parties for tests: identities from fixed seeds, their cards, and both handshake machines."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from labxchange.identity.card import Card
from labxchange.identity.keys import Identity
from labxchange.identity.statement import sign
from labxchange.wire.control.handshake import Initiator, Responder, answer_rekey
from labxchange.wire.control.session import Output, PeerProven, Session

CERTIFICATE = sha256(b"certificate").digest()
KINDS = {"card": 1, "grant": 2}


class Party:
    """An identity and its card."""

    def __init__(self, number: int, *, addresses: list[str] | None = None) -> None:
        self.identity = Identity(bytes([number]) * 32)
        self.key = self.identity.public
        body = Card(
            issuer=self.key.hex(),
            issued=1_700_000_000_000,
            trail_key=self.identity.trail_public.hex(),
            cosign_key=self.identity.cosign_public.hex(),
            name=f"Party {number}",
            organisation="Example Hospital",
            role="",
            country="",
            addresses=addresses or ["data.example.org:4433"],
        )
        self.card = sign(body, self.identity).envelope


def initiator(me: Party, other: Party, **changes: Any) -> Initiator:
    """A dialler with fresh keys."""
    arguments: dict[str, Any] = {
        "card": me.card,
        "kinds": KINDS,
        "responder_key": other.key,
        "certificate_digest": CERTIFICATE,
        "nonce": bytes(32),
        "x25519": X25519PrivateKey.generate(),
        "mlkem": MLKEM768PrivateKey.generate(),
    } | changes
    return Initiator(me.identity, **arguments)


def encapsulate(key: bytes) -> tuple[bytes, bytes]:
    """ML-KEM-768 with the library's own random bits."""
    return MLKEM768PublicKey.from_public_bytes(key).encapsulate()


def responder(me: Party, **changes: Any) -> Responder:
    """A listener with fresh keys."""
    arguments: dict[str, Any] = {
        "card": me.card,
        "kinds": KINDS,
        "certificate_digest": CERTIFICATE,
        "nonce": bytes(32),
        "x25519": X25519PrivateKey.generate(),
        "encapsulate": encapsulate,
    } | changes
    return Responder(me.identity, **arguments)


def make_rekey_answer(lane: bytes, offer: bytes) -> tuple[bytes, bytes]:
    """``Session``'s argument, with fresh keys."""
    return answer_rekey(lane, offer, x25519=X25519PrivateKey.generate(), encapsulate=encapsulate)


def session(machine: Initiator | Responder, **changes: Any) -> Session:
    """A session at time 0."""
    return Session(machine, now=0.0, make_rekey_answer=make_rekey_answer, **changes)


def events_of(machine: Session) -> list[Any]:
    """All events that wait."""
    found = []
    while (event := machine.next_event()) is not None:
        found.append(event)
    return found


def exchange(
    a: Session,
    b: Session,
    *,
    tap: Callable[[Session, Output], Output | None] = lambda _sender, output: output,
    decide: Callable[[Session], None] = Session.accept,
) -> tuple[list[Any], list[Any]]:
    """Carry outputs both ways until nothing moves, deciding on proven peers; returns the events of both."""
    events: tuple[list[Any], list[Any]] = ([], [])
    moved = True
    while moved:
        moved = False
        for index, (sender, receiver) in enumerate(((a, b), (b, a))):
            for output in sender.take_output():
                moved = True
                carried = tap(sender, output)
                if carried is not None:
                    receiver.receive(carried.stream_id, carried.data, end=carried.end)
            for event in events_of(receiver):
                moved = True
                events[1 - index].append(event)
                if isinstance(event, PeerProven):
                    decide(receiver)
    return events
