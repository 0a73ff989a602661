"""Decisions: the person who received something says, signed, that it is accepted or rejected, and what they found.

A decision needs the ``intact`` receipt of a transfer that is over; what does not match the manifest can only be rejected, and a
rejection has findings. The same decision again changes nothing. Another one is a new receipt that names the one it replaces; both
stay, the newest holds, and there are at most a few. The sender countersigns in ``receipts``, as for the other levels.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from msgspec.structs import replace

from labxchange.audit.events import Event
from labxchange.errors import InputError
from labxchange.identity.statement import Signed, sign
from labxchange.node.core import Core
from labxchange.node.receipts import Receipts
from labxchange.node.values import ReceiptInfo
from labxchange.sharing.exchange import DECISIONS_MAX, FINDINGS_MAX, Receipt, best
from labxchange.store import statements
from labxchange.store.transfers import TransferRow

Decision = Literal["accepted", "rejected"]
_UNDER_WAY = ("running", "waiting", "paused")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class Decisions:
    """Signs what a person decides about a transfer.

    Args:
        wake: called with the sender's key when a decision was posted for them.
    """

    def __init__(self, core: Core, receipts: Receipts, *, wake: Callable[[str], None]) -> None:
        self._core = core
        self._receipts = receipts
        self._wake = wake

    def decide(self, row: TransferRow, level: Decision, findings: str) -> ReceiptInfo:
        """Accept or reject an incoming transfer.

        Raises:
            InputError: ``transfer-foreign``, ``not-received``, ``findings-missing``, ``findings-malformed``,
                ``accept-not-intact``, ``decided-too-often``; nothing was signed.
        """
        identity = self._core.require()
        text = _text(findings)
        if row.direction != "in":
            raise InputError("transfer-foreign", "Only the recipient of a transfer can accept or reject it.")
        if level == "rejected" and not text:
            raise InputError("findings-missing", "A rejection says what was found.", hint="Give the findings as a text.")
        with self._core.database.begin() as tx:
            receipts = statements.about(tx, row.transfer, Receipt)
        holds = best(receipts)
        if holds is None or holds.body.level == "delivered" or row.state in _UNDER_WAY:
            raise InputError(
                "not-received",
                "This transfer is not received and verified yet, so it cannot be accepted or rejected.",
                hint=f"`labxchange transfer show {row.transfer[:12]}` says how far it is.",
            )
        if (holds.body.level, holds.body.findings) != (level, text):
            self._allow(level, receipts, holds)
            now = self._core.clock.now()
            body = replace(holds.body, level=level, findings=text, follows=holds.id, issued=now)
            self._keep(row, sign(body, identity), receipts, now=now)
        return self._receipts.show(row.transfer)

    def _allow(self, level: Decision, receipts: list[Signed[Receipt]], holds: Signed[Receipt]) -> None:
        if level == "accepted" and holds.body.verdict != "match":
            raise InputError(
                "accept-not-intact",
                "What arrived does not match the sender's manifest, so it cannot be accepted.",
                hint="Fetch it again with `labxchange transfer resume`, or reject it.",
            )
        if sum(item.body.decided for item in receipts) >= DECISIONS_MAX:
            raise InputError("decided-too-often", f"A transfer is decided on at most {DECISIONS_MAX} times; the last one stands.")

    def _keep(self, row: TransferRow, signed: Signed[Receipt], receipts: list[Signed[Receipt]], *, now: int) -> None:
        entry = self._receipts.entry(
            Event.TRANSFER_RECEIPT,
            row,
            object_type="receipt",
            object_id=signed.id,
            who=self._core.who(),
            reason_text=signed.body.findings,
            details={"level": signed.body.level},
        )
        with self._core.act(entry) as tx:
            statements.put(tx, signed, about=row.transfer, now=now)
            # What it follows goes along: a sender who was restored from a backup may have lost it.
            for item in (*receipts, signed):
                if not statements.is_posted(tx, row.peer, item.id):
                    statements.post(tx, row.peer, item.id)
        self._core.notices.publish("transfer", row.transfer)
        self._wake(row.peer)


def _text(findings: str) -> str:
    """The findings as they are signed: lines as one finds them everywhere, nothing around them."""
    text = "\n".join(findings.splitlines()).strip()
    if len(text) > FINDINGS_MAX or _CONTROL.search(text):
        raise InputError(
            "findings-malformed", f"Findings have at most {FINDINGS_MAX:,} characters, and no control characters among them."
        )
    return text
