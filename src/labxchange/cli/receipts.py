"""`labxchange receipt`: the proof of delivery, and checking one offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labxchange import times
from labxchange.cli import reach, screen
from labxchange.cli.options import AsJson, Trust, example, group
from labxchange.cli.transfers import Transfer

if TYPE_CHECKING:
    from labxchange.node.receipt_file import CheckedReceipt
    from labxchange.node.values import ReceiptInfo

app = group("Receipts: what arrived, signed by the recipient and countersigned by the sender.")

_MAX_BYTES = 4 << 20


def _draw(receipt: ReceiptInfo) -> None:
    screen.fields(
        [
            ("title", receipt.title),
            ("level", receipt.level),
            ("verdict", receipt.verdict),
            ("sender", receipt.sender),
            ("recipient", receipt.recipient),
            ("holds", f"{screen.number(receipt.files, 'file')}, {screen.size(receipt.bytes)}"),
            ("was there", f"{screen.size(receipt.reused_bytes)}, from earlier versions" if receipt.reused_bytes else ""),
            ("root", receipt.root),
            ("finished", times.moment(receipt.finished)),
            ("path", receipt.path),
            ("countersigned", "yes" if receipt.acknowledged else "not yet"),
            ("receipt", receipt.receipt),
            ("transfer", receipt.transfer),
        ]
    )
    screen.quoted("findings", receipt.findings)


def _draw_checked(checked: CheckedReceipt) -> None:
    screen.line("The signatures are right.")
    known = set(checked.trusted)
    screen.fields(
        [
            ("title", checked.title),
            ("level", checked.level),
            ("verdict", checked.verdict),
            ("sender", f"{checked.sender} ({checked.sender_fingerprint})"),
            ("recipient", f"{checked.recipient} ({checked.recipient_fingerprint})"),
            ("holds", f"{screen.number(checked.files, 'file')}, {screen.size(checked.bytes)}"),
            ("root", checked.root),
            ("finished", times.moment(checked.finished)),
            ("countersigned", "yes: it stands in the sender's trail" if checked.countersigned else "no"),
        ]
    )
    screen.quoted("findings", checked.findings)
    for name in (checked.sender, checked.recipient):
        if name not in known:
            screen.remark(
                f"Nothing here proves that this key belongs to {name}: compare the fingerprint, then give it as --trust."
            )


@app.command(epilog=example("labxchange receipt show 8c01d2", "labxchange receipt show 8c01d2 --save receipt.json"))
def show(
    transfer: Transfer,
    save: Annotated[
        str, typer.Option("--save", metavar="FILE", help="Write the receipt to a new file that anyone can verify.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Show the best receipt of a transfer, of either direction: delivered, intact, accepted or rejected."""
    from labxchange.node.verbs import Verbs

    receipt = reach.call(Verbs.receipt_show, transfer=transfer)
    if save:
        _write(reach.absolute(save), receipt.file.encode())
    screen.show(receipt, _draw, as_json=as_json)
    if save and not as_json:
        screen.remark(f"It is in {save}; anyone can check it: `labxchange receipt verify {save}`.")


@app.command(epilog=example("labxchange receipt save 8c01d2 receipt.html"))
def save(
    transfer: Transfer,
    file: Annotated[str, typer.Argument(metavar="FILE.html", help="The new file.")],
    as_json: AsJson = False,
) -> None:
    """Write the receipt of a transfer as a page to read, print and keep.

    The page carries the signed statements, so `labxchange receipt verify` checks it, and that it shows what they say.
    """
    from labxchange.node.verbs import Verbs

    receipt = reach.call(Verbs.receipt_show, transfer=transfer)
    _write(reach.absolute(file), reach.call(Verbs.receipt_page, transfer=receipt.transfer).page.encode())
    screen.show(receipt, _draw, as_json=as_json)
    if not as_json:
        screen.remark(f"It is in {file}; anyone can check it: `labxchange receipt verify {file}`.")


def _write(target: str, data: bytes) -> None:
    from labxchange.files.newfile import new_file

    with new_file(Path(target)) as file:
        file.write(data)


@app.command(epilog=example("labxchange receipt verify receipt.json --trust ABCDEFG-..."))
def verify(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What `labxchange receipt save` or `receipt show --save` wrote.")],
    trust: Trust = None,
    as_json: AsJson = False,
) -> None:
    """Check a receipt file, JSON or page, offline and without a node.

    Checked are the signatures of both parties, the proof from the sender's trail, and of a page that it shows what they say.
    """
    from labxchange.files.disk_errors import mapping
    from labxchange.node.receipt_file import check_file

    with mapping(file), Path(file).expanduser().open("rb") as stream:
        data = stream.read(_MAX_BYTES)
    screen.show(check_file(data, trust or []), _draw_checked, as_json=as_json)
