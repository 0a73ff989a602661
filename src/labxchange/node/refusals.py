"""Refusals, said and heard: a rule's answer as a signed statement, and a peer's signed statement as an error for a person."""

from __future__ import annotations

from typing import NoReturn

from labxchange.errors import LabxchangeError, PeerError, RefusedError
from labxchange.identity.statement import Signed, parse, peek_kind
from labxchange.net.channel import Channel
from labxchange.node.core import Core
from labxchange.sharing.exchange import Cut, Refusal
from labxchange.store.damage import DAMAGED


class Stated(RefusedError):
    """The peer's own signed and verified word; a code of the connection alone is none, for anybody on the way can make one."""


def refusal_of(core: Core, error: LabxchangeError, *, to: str, request: str) -> Signed[Refusal]:
    """Sign why a request is not met."""
    sentence, hint = error.message, error.hint
    if error.code == DAMAGED:  # what there is to do is to be done here
        sentence, hint = "The other node cannot read its own database.", "Tell them; it goes on when they have restored it."
    return core.sign(Refusal, to=to, request=request, code=error.code, sentence=sentence[:1000], hint=hint[:1000])


def refused(envelope: bytes, channel: Channel) -> Stated:
    """What the peer's refusal or cut says.

    Raises:
        PeerError: ``foreign-statement``: it is not the peer's.
        IntegrityError: it does not verify.
    """
    body: Cut | Refusal = parse(envelope, Cut).body if peek_kind(envelope) == "cut" else parse(envelope, Refusal).body
    if body.issuer != channel.peer_key.hex():
        raise PeerError("foreign-statement", "The other node showed a statement of somebody else as its own.")
    if isinstance(body, Cut):
        return Stated(body.code, f"The sender ended the transfer: {body.code}.", hint="`labxchange transfer list`.")
    return Stated(body.code, body.sentence, hint=body.hint)


def raise_refused(envelope: bytes, channel: Channel) -> NoReturn:
    """Raise it."""
    raise refused(envelope, channel)
