"""Receipt files: what a receipt that was saved proves, checked offline by anybody, without a node.

Checked: every signature; that the receipt is one party's and the countersignature the other's, about this very receipt; that the
receipt stands in the sender's trail under a signed checkpoint. Who the parties are is known only where the caller gives their
fingerprints.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from labxchange.audit.checkpoint import parse_note, parse_origin, verify_note
from labxchange.audit.events import Event
from labxchange.audit.leaf import check_opening
from labxchange.audit.leaf import parse as parse_leaf
from labxchange.encoding import b64decode, dump_json
from labxchange.errors import InputError, IntegrityError
from labxchange.identity.card import Card, parse_card
from labxchange.identity.fingerprint import fingerprint, parse_fingerprint
from labxchange.identity.statement import Signed, parse
from labxchange.merkle import leaf_hash, verify_inclusion
from labxchange.sharing.exchange import Receipt, ReceiptAck


def check_ack(ack: Signed[ReceiptAck], sender: Card) -> None:
    """The sender's proof: the receipt's id stands in the leaf, the leaf in the tree, the tree's head is signed.

    Raises:
        IntegrityError: ``ack-wrong``.
    """
    body = ack.body
    try:
        leaf = b64decode(body.leaf)
        checkpoint = verify_note(parse_note(body.checkpoint), bytes.fromhex(sender.trail_key))
        parsed = parse_leaf(leaf)
        proof = [bytes.fromhex(item) for item in body.proof]
        good = (
            parse_origin(checkpoint.origin).fingerprint == fingerprint(bytes.fromhex(sender.issuer))
            and parsed.event == Event.TRANSFER_RECEIPT
            and parsed.seq == body.index
            and check_opening(parsed, "object_id", salt=b64decode(body.salt), value=body.value.encode())
            and json.loads(body.value) == body.receipt
            and verify_inclusion(leaf_hash(leaf), index=body.index, size=checkpoint.size, proof=proof, root=checkpoint.root)
        )
    except (IntegrityError, ValueError):
        good = False
    if not good:
        raise IntegrityError("ack-wrong", "The sender's countersignature does not prove that the receipt stands in its trail.")


class CheckedReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What a receipt file proves; ``trusted`` are the parties whose fingerprints the caller knows."""

    level: str
    verdict: str
    sender: str
    sender_fingerprint: str
    recipient: str
    recipient_fingerprint: str
    bytes: int
    files: int
    root: str
    finished: int
    countersigned: bool
    trusted: tuple[str, ...]


def check_file(data: bytes, trust: Sequence[str]) -> CheckedReceipt:
    """Verify a receipt file offline.

    Raises:
        InputError: ``receipt-unreadable``, ``fingerprint-mistyped``.
        IntegrityError: what does not verify.
    """
    known = {parse_fingerprint(item) for item in trust}
    try:
        named = json.loads(data)
        cards = [parse_card(dump_json(item)).body for item in named["cards"]]
        receipt = parse(dump_json(named["receipt"]), Receipt)
        ack = parse(dump_json(named["receipt-ack"]), ReceiptAck) if "receipt-ack" in named else None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError("receipt-unreadable", "This file is not a labxchange receipt, or it is damaged.") from None
    recipient = next((card for card in cards if card.issuer == receipt.body.issuer), None)
    sender = next((card for card in cards if card.issuer != receipt.body.issuer), None)
    if recipient is None or sender is None:
        raise IntegrityError("receipt-inconsistent", "The receipt is not signed by one of the two parties that the file names.")
    if ack is not None:
        if ack.body.issuer != sender.issuer or ack.body.receipt != receipt.id:
            raise IntegrityError("receipt-inconsistent", "The countersignature is about another receipt or by somebody else.")
        check_ack(ack, sender)
    prints = {card.name: fingerprint(bytes.fromhex(card.issuer)) for card in (sender, recipient)}
    return CheckedReceipt(
        level=receipt.body.level,
        verdict=receipt.body.verdict,
        sender=sender.name,
        sender_fingerprint=prints[sender.name],
        recipient=recipient.name,
        recipient_fingerprint=fingerprint(bytes.fromhex(recipient.issuer)),
        bytes=receipt.body.bytes,
        files=receipt.body.counts.matched,
        root=receipt.body.root,
        finished=receipt.body.finished,
        countersigned=ack is not None,
        trusted=tuple(card.name for card in (sender, recipient) if fingerprint(bytes.fromhex(card.issuer)) in known),
    )
