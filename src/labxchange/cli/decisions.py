"""`labxchange transfer accept` and `reject`: what a person says of what they received, signed for the sender."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from labxchange.cli import reach, screen
from labxchange.cli.options import AsJson, example
from labxchange.cli.transfers import Transfer

if TYPE_CHECKING:
    from labxchange.node.values import ReceiptInfo

Findings = Annotated[str, typer.Option("--findings", metavar="TEXT", help="What you found, for the sender; 4,000 characters.")]


def _draw_decision(receipt: ReceiptInfo) -> None:
    screen.line(f"You {receipt.level} “{receipt.title}” from {receipt.sender}.")
    screen.quoted("findings", receipt.findings)
    screen.remark(f"{receipt.sender} gets your signed word by itself: `labxchange receipt show {receipt.transfer[:12]}`.")


def accept(transfer: Transfer, findings: Findings = "", as_json: AsJson = False) -> None:
    """Accept what you received and have looked at; the sender gets your signed word.

    It needs an intact transfer. A later decision replaces an earlier one; both are kept, on both sides.
    """
    from labxchange.node.verbs import Verbs

    screen.show(reach.call(Verbs.transfer_accept, transfer=transfer, findings=findings), _draw_decision, as_json=as_json)


def reject(transfer: Transfer, findings: Findings = "", as_json: AsJson = False) -> None:
    """Reject what you received and say why; the sender gets your signed word.

    A later decision replaces an earlier one; both are kept, on both sides.
    """
    from labxchange.node.verbs import Verbs

    screen.show(reach.call(Verbs.transfer_reject, transfer=transfer, findings=findings), _draw_decision, as_json=as_json)


def add_to(transfers: typer.Typer) -> None:
    """The two commands of the group of transfers."""
    transfers.command(epilog=example("labxchange transfer accept 8c01d2"))(accept)
    transfers.command(epilog=example('labxchange transfer reject 8c01d2 --findings "AGE is empty in 12 rows"'))(reject)
