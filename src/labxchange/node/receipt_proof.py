"""What a receipt proves, with the statements that it names, for anybody and without a node.

Checked: every signature; that the receipt is one party's and the countersignature the other's, about this very receipt; that the
receipt stands in the sender's trail under a signed checkpoint; that offer, grant, accept, share, listing, manifest and other
receipts are those of this transfer. Who the parties are is left to callers, who know fingerprints, or do not.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

from labxchange.audit.checkpoint import parse_note, parse_origin, verify_note
from labxchange.audit.events import Event
from labxchange.audit.leaf import check_opening
from labxchange.audit.leaf import parse as parse_leaf
from labxchange.dataset.listing import Listing
from labxchange.dataset.manifest import Manifest
from labxchange.encoding import b64decode, dump_json
from labxchange.errors import InputError, IntegrityError
from labxchange.identity.card import Card, parse_card
from labxchange.identity.fingerprint import fingerprint
from labxchange.identity.statement import Signed, parse, peek_kind
from labxchange.merkle import leaf_hash, verify_inclusion
from labxchange.sharing.exchange import Accept, Receipt, ReceiptAck
from labxchange.sharing.grant import Grant
from labxchange.sharing.share import Offer, Share


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


class Proven(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt and what belongs to it, all verified. ``receipts``: those of the transfer that came before it, oldest first."""

    sender: Card
    recipient: Card
    receipt: Signed[Receipt]
    ack: Signed[ReceiptAck] | None
    receipts: tuple[Signed[Receipt], ...]
    share: Share | None
    grant: Grant | None

    @property
    def prints(self) -> tuple[str, str]:
        """The fingerprints of sender and recipient."""
        return fingerprint(bytes.fromhex(self.sender.issuer)), fingerprint(bytes.fromhex(self.recipient.issuer))


def prove(document: object) -> Proven:
    """Verify the JSON value of a receipt file.

    Raises:
        InputError: ``receipt-unreadable``.
        IntegrityError: ``receipt-inconsistent``, ``ack-wrong``, and what of a statement does not verify.
    """
    try:
        named: dict[str, Any] = document  # type: ignore[assignment]
        cards = [parse_card(dump_json(item)).body for item in named["cards"]]
        receipt = parse(dump_json(named["receipt"]), Receipt)
        ack = parse(dump_json(named["receipt-ack"]), ReceiptAck) if "receipt-ack" in named else None
        others = [dump_json(item) for item in named["statements"]]
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
    found = [_belonging(envelope, receipt.body, sender=sender.issuer) for envelope in others]
    return Proven(
        sender=sender,
        recipient=recipient,
        receipt=receipt,
        ack=ack,
        receipts=tuple(item for item in found if isinstance(item.body, Receipt)),
        share=next((item.body for item in found if isinstance(item.body, Share)), None),
        grant=next((item.body for item in found if isinstance(item.body, Grant)), None),
    )


def _belonging(envelope: bytes, receipt: Receipt, *, sender: str) -> Signed[Any]:
    """A statement of the file, verified, by the party whose word it is, and one that the receipt is about."""
    of_sender: dict[str, tuple[type[Any], Callable[[Signed[Any]], bool]]] = {
        "share": (Share, lambda item: item.body.listing == receipt.listing),
        "listing": (Listing, lambda item: item.id == receipt.listing),
        "manifest": (Manifest, lambda item: item.id == receipt.manifest and item.body.root == receipt.root),
        "offer": (Offer, lambda item: item.id == receipt.offer and item.body.recipient == receipt.issuer),
        "grant": (Grant, lambda item: item.id == receipt.grant and receipt.issuer in item.body.recipients),
    }
    of_recipient: dict[str, tuple[type[Any], Callable[[Signed[Any]], bool]]] = {
        "accept": (Accept, lambda item: item.id == receipt.accept),
        "receipt": (Receipt, lambda item: item.body.transfer == receipt.transfer),
    }
    kind = peek_kind(envelope)
    if kind not in {*of_sender, *of_recipient}:
        raise IntegrityError("receipt-inconsistent", "The file holds a statement that does not belong to a receipt.")
    form, belongs = {**of_sender, **of_recipient}[kind]
    item = parse(envelope, form)
    if item.body.issuer != (sender if kind in of_sender else receipt.issuer) or not belongs(item):
        raise IntegrityError("receipt-inconsistent", f"The file holds a {kind} of another transfer, or by somebody else.")
    return item
