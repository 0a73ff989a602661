"""`labxchange inbox`, `receive` and `transfer`: what others offer, and what is on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from labxchange import times
from labxchange.cli import following, rates, reach, screen
from labxchange.cli.exit_codes import OF_TRANSFER, ExitCode
from labxchange.cli.options import AsJson, Lanes, Priority, Rate, Reason, Sender, example, group

if TYPE_CHECKING:
    from labxchange.dataset.check import Report
    from labxchange.node.values import InboxItem, ReceivedInfo, TransferInfo

app = group("What is on its way, in both directions.")

Transfer = Annotated[str, typer.Argument(metavar="TRANSFER", help="The transfer's id, or the first six letters or more of it.")]


def draw_report(report: Report) -> None:
    """A verification report: the verdict, every count, every check, every finding."""
    counts = {name: getattr(report, name) for name in ("matched", "differ", "missing", "unexpected", "error", "left_out")}
    screen.fields([("verdict", report.verdict)])
    screen.line(", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items()))
    there = f", {screen.size(report.reused_bytes)} of it were there already" if report.reused_bytes else ""
    screen.line(f"{screen.size(report.bytes)} matched{there}")
    for name in report.checks_run:
        screen.line(f"checked: {name}")
    for item in report.checks_not_run:
        screen.line(f"not checked: {item.name}: {item.why}")
    for finding in report.findings:
        place = f", first at byte {finding.offset:,}" if finding.offset >= 0 else ""
        told = f" Expected {finding.expected}, got {finding.got}." if finding.expected or finding.got else ""
        screen.line(f"{finding.kind}: {finding.path}{place}: {finding.text}{told}")
    if report.truncated:
        screen.line("There are more findings than are listed here; the counts are complete.")


def _draw_received(info: ReceivedInfo) -> None:
    screen.fields([("transfer", info.transfer[:12]), ("folder", info.destination)])
    draw_report(info.report)


def _draw_inbox(items: list[InboxItem]) -> None:
    screen.table(
        ["share", "title", "from", "state", "files", "size", "until"],
        [
            (
                f"{item.share[:12]}/{item.version}",
                item.title,
                item.sender + ("" if item.sender_state == "verified" else f" ({item.sender_state})"),
                item.state,
                f"{item.files:,}",
                screen.size(item.bytes),
                "revoked" if item.revoked else times.moment(item.not_after),
            )
            for item in items
        ],
        empty="Nobody offers you anything yet.",
    )
    for item in items:
        if item.note:
            screen.line(f"{item.title}: {item.note}")
        for left in item.withheld:
            screen.line(f"{item.title}: {screen.withheld(left.file, left.columns, left.rows)}")


def _draw_transfer(info: TransferInfo) -> None:
    screen.fields(
        [
            ("transfer", info.transfer[:12]),
            ("title", info.title),
            ("from" if info.direction == "in" else "to", info.peer),
            ("state", info.state),
            ("reason", info.reason),
            ("progress", following.progress(info)),
            ("limits", following.limits(info.limits)),
            ("path", following.way(info.path)),
            ("folder", info.destination),
            ("started", times.moment(info.started)),
            ("finished", times.moment(info.finished) if info.finished else ""),
        ]
    )


def _draw_transfers(infos: list[TransferInfo]) -> None:
    screen.table(
        ["transfer", "", "with", "title", "state", "progress", "receipt"],
        [
            (
                info.transfer[:12],
                "in" if info.direction == "in" else "out",
                info.peer,
                info.title,
                f"{info.state} ({info.reason})" if info.reason else info.state,
                following.progress(info),
                info.receipt,
            )
            for info in infos
        ],
        empty="There has been no transfer yet.",
    )


def inbox(as_json: AsJson = False) -> None:
    """List what others offer you."""
    from labxchange.node.verbs import Verbs

    screen.show(reach.call(Verbs.inbox_list), _draw_inbox, as_json=as_json)
    if not as_json:
        for contact in reach.call(Verbs.contact_list):
            if contact.offers:
                told = screen.number(contact.offers, "offer")
                screen.remark(f"{contact.name} has {told} for you, which can come once they have verified you by your six words.")


def receive(
    share: Annotated[str, typer.Argument(metavar="SHARE", help="The offer: its id, the beginning of it, or its title.")],
    sender: Sender = "",
    to: Annotated[str, typer.Option("--to", metavar="FOLDER", help="Where to put the files; without it, the inbox folder.")] = "",
    rate: Rate = None,
    priority: Priority = None,
    lanes: Lanes = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return at once; the node goes on by itself.")] = False,
    as_json: AsJson = False,
) -> None:
    """Receive what somebody offers, and verify it.

    Files appear under their names when every byte of them is verified. If the sender goes away, the node waits and goes on by
    itself. Ctrl-C pauses; nothing that is verified comes twice. Rate, priority and lanes can be changed while it runs, with
    `labxchange transfer set`.
    """
    from labxchange.node.verbs import Verbs

    info = reach.call(
        Verbs.receive,
        share=share,
        sender=sender,
        destination=reach.maybe_absolute(to),
        rate=rates.maybe_rate(rate) or 0,
        priority=priority or "normal",
        lanes=lanes or 0,
    )
    if detach:
        screen.show(info, _draw_transfer, as_json=as_json)
        return
    _to_the_end(info.transfer, as_json=as_json)


def _to_the_end(transfer: str, *, as_json: bool) -> None:
    from labxchange.node.verbs import Verbs

    if not as_json:
        screen.remark(f"Ctrl-C pauses this transfer, {transfer[:12]}; nothing that is verified comes twice.")
    info = following.follow(transfer, quiet=as_json)
    if as_json:
        screen.emit(info)
    elif info.state in ("verified", "completed", "failed") and info.direction == "in":
        _draw_end(info, reach.call(Verbs.transfer_report, transfer=info.transfer) if info.reason in ("", "not-intact") else None)
    else:
        _draw_transfer(info)
        screen.remark(f"This transfer is {following.situation(info)}.")
    if code := OF_TRANSFER.get(info.state, ExitCode.UNEXPECTED):
        raise typer.Exit(code)


def _draw_end(info: TransferInfo, received: ReceivedInfo | None) -> None:
    _draw_transfer(info)
    if received is not None:
        draw_report(received.report)
    if info.state == "completed":
        screen.remark(f"The sender has countersigned your receipt: `labxchange receipt show {info.transfer[:12]}`.")
    elif info.state == "verified":
        screen.remark("The sender has not countersigned your receipt yet; that happens by itself.")


def add_to(root: typer.Typer) -> None:
    """The two commands that belong to no group."""
    root.command(epilog=example("labxchange inbox"))(inbox)
    root.command(
        epilog=example(
            'labxchange receive "SDTM, transfer 3 of 5" --to data/sdtm', "labxchange receive 3f2a9c --rate 50M --detach"
        )
    )(receive)


@app.command("list", epilog=example("labxchange transfer list"))
def all_transfers(as_json: AsJson = False) -> None:
    """List all transfers, oldest first."""
    from labxchange.node.verbs import Verbs

    screen.show(reach.call(Verbs.transfer_list), _draw_transfers, as_json=as_json)


@app.command(epilog=example("labxchange transfer show 8c01d2", "labxchange transfer show 8c01d2 --watch"))
def show(
    transfer: Transfer,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew twice a second until it is over; Ctrl-C ends it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one transfer and its way: rate, round trip, loss, what was sent again, and what limits it.

    What limits is the network, the disk or the processor (cpu) of this machine, the other side (peer), or a rate or priority that
    somebody chose (cap). The sender knows best: the recipient sees the network only where it loses or delays something.
    """
    from labxchange.node.verbs import Verbs

    if watch and not as_json:
        following.look(transfer, _draw_transfer)
        return
    info = reach.call(Verbs.transfer_show, transfer=transfer)
    screen.show(info, _draw_transfer, as_json=as_json)
    while watch and info.state in following.LIVE:
        following.pause()
        info = reach.call(Verbs.transfer_show, transfer=transfer)
        screen.emit(info)


@app.command("set", epilog=example("labxchange transfer set 8c01d2 --rate 50M --priority high --lanes 4"))
def set_limits(
    transfer: Transfer,
    rate: Rate = None,
    priority: Priority = None,
    lanes: Lanes = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Change rate, priority or lanes of a transfer, also while it runs; what is not given stays.

    The rate can be chosen on both sides, and the lower one holds. The number of lanes is the recipient's to choose.
    """
    from labxchange.errors import InputError
    from labxchange.node.verbs import Verbs

    if rate is None and priority is None and lanes is None:
        raise InputError("nothing-to-change", "Say what to change.", hint="Give --rate, --priority or --lanes.")
    bytes_s = rates.maybe_rate(rate)
    info = reach.call(Verbs.transfer_limit, transfer=transfer, rate=bytes_s, priority=priority, lanes=lanes, reason=reason)
    screen.show(info, _draw_transfer, as_json=as_json)


@app.command(epilog=example("labxchange transfer pause 8c01d2"))
def pause(transfer: Transfer, as_json: AsJson = False) -> None:
    """Stop fetching; nothing that is verified is lost."""
    from labxchange.node.verbs import Verbs

    screen.show(reach.call(Verbs.transfer_pause, transfer=transfer), _draw_transfer, as_json=as_json)


@app.command(epilog=example("labxchange transfer resume 8c01d2"))
def resume(
    transfer: Transfer,
    detach: Annotated[bool, typer.Option("--detach", help="Return at once; the node goes on by itself.")] = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a transfer that was paused, cut or failed."""
    from labxchange.node.verbs import Verbs

    info = reach.call(Verbs.transfer_resume, transfer=transfer)
    if detach:
        screen.show(info, _draw_transfer, as_json=as_json)
        return
    _to_the_end(info.transfer, as_json=as_json)


@app.command(epilog=example("labxchange transfer cancel 8c01d2"))
def cancel(transfer: Transfer, as_json: AsJson = False) -> None:
    """Give an incoming transfer up; what is not complete is removed, and the sender is told."""
    from labxchange.node.verbs import Verbs

    screen.show(reach.call(Verbs.transfer_cancel, transfer=transfer), _draw_transfer, as_json=as_json)


@app.command(epilog=example("labxchange transfer report 8c01d2"))
def report(transfer: Transfer, as_json: AsJson = False) -> None:
    """Show the verification report of an incoming transfer: every check that ran and every one that did not."""
    from labxchange.node.verbs import Verbs

    screen.show(reach.call(Verbs.transfer_report, transfer=transfer), _draw_received, as_json=as_json)
