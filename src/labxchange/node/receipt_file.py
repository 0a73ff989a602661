"""Receipt files: what a receipt that was saved, as JSON or as a page, proves; checked offline by anybody, without a node.

What the statements prove is ``receipt_proof``'s. Of a page it is also checked that a reader sees what the statements say. Who the
parties are is known only where the caller gives their fingerprints.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from labxchange.errors import InputError
from labxchange.identity.fingerprint import parse_fingerprint
from labxchange.node.receipt_page import check_page, embedded, is_page
from labxchange.node.receipt_proof import prove


class CheckedReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What a receipt file proves; ``trusted`` are the parties whose fingerprints the caller knows."""

    level: str
    verdict: str
    findings: str
    title: str
    sender: str
    sender_fingerprint: str
    recipient: str
    recipient_fingerprint: str
    bytes: int
    files: int
    root: str
    finished: int
    signed: int
    countersigned: bool
    trusted: tuple[str, ...]


def check_file(data: bytes, trust: Sequence[str]) -> CheckedReceipt:
    """Verify a receipt file, JSON or page, offline.

    Raises:
        InputError: ``receipt-unreadable``, ``fingerprint-mistyped``.
        IntegrityError: what does not verify; ``receipt-page-altered``: the page shows something else than its statements say.
    """
    known = {parse_fingerprint(item) for item in trust}
    page = is_page(data)
    try:
        document = json.loads(embedded(data) if page else data)
    except (ValueError, RecursionError):
        raise InputError("receipt-unreadable", "This file is not a labxchange receipt, or it is damaged.") from None
    proven = prove(document)
    if page:
        check_page(data, document, proven)
    body, parties = proven.receipt.body, (proven.sender, proven.recipient)
    return CheckedReceipt(
        level=body.level,
        verdict=body.verdict,
        findings=body.findings,
        title=proven.share.title if proven.share else "",
        sender=proven.sender.name,
        sender_fingerprint=proven.prints[0],
        recipient=proven.recipient.name,
        recipient_fingerprint=proven.prints[1],
        bytes=body.bytes,
        files=body.counts.matched,
        root=body.root,
        finished=body.finished,
        signed=body.issued,
        countersigned=proven.ack is not None,
        trusted=tuple(card.name for card, own in zip(parties, proven.prints, strict=True) if own in known),
    )
