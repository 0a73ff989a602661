"""`labxchange share`: give data to contacts, see what became of it, end or extend it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labxchange import times
from labxchange.cli import reach, screen
from labxchange.cli.options import AsJson, Reason, Sender, example, group
from labxchange.errors import UnavailableError

if TYPE_CHECKING:
    from labxchange.node.values import InboxItem, RecipientStatus, ShareInfo

app = group("Share data with contacts, see whether they got it, end or extend it.")

Share = Annotated[
    str, typer.Argument(metavar="SHARE", help="The share: its id, the beginning of it, or its title; ID/2 a version.")
]
Until = Annotated[
    str, typer.Option("--until", metavar="WHEN", help="The new end: 30d from now, 2026-12-31, or a time with zone.")
]
Only = Annotated[str, typer.Option("--contact", metavar="NAME", help="For this contact only; without it, for all.")]


def _reference(share: ShareInfo) -> str:
    return f"{share.share[:12]}/{share.version}"


def _draw(share: ShareInfo) -> None:
    screen.fields(
        [
            ("share", _reference(share)),
            ("title", share.title),
            ("state", share.state),
            ("reason", share.reason),
            ("holds", f"{screen.number(share.files, 'file')}, {screen.size(share.bytes)}"),
            ("read so far", screen.size(share.hashed_bytes) if share.state == "hashing" else ""),
            ("left out", screen.number(share.left_out, "file") if share.left_out else ""),
            ("root", share.root),
            ("created", times.moment(share.created)),
        ]
    )
    for path, why in share.skipped:
        screen.line(f"not shared: {path}: {why}")
    for left in share.withheld:
        screen.line(f"withheld: {screen.withheld(left.file, left.columns, left.rows)}")
    if share.recipients:
        screen.line()
        screen.table(
            ["recipient", "state", "received", "receipt", "downloads", "until"],
            [_recipient(share, person) for person in share.recipients],
            empty="",
        )
    for person in share.recipients:
        if person.findings:
            screen.quoted(f"{person.name} {person.state} it", person.findings)
        if person.asked_until:
            why = f": {person.asked_reason}" if person.asked_reason else "."
            screen.line(f"{person.name} asks for more time, until {times.moment(person.asked_until)}{why}")


def _recipient(share: ShareInfo, person: RecipientStatus) -> tuple[str, ...]:
    receipt = "" if not person.receipt else "signed, countersigned" if person.acknowledged else "signed"
    return (
        person.name,
        person.state,
        screen.size(person.done_bytes) if person.done_bytes < share.bytes else "all",
        receipt or "-",
        f"{person.used + person.reserved} of {person.downloads}",
        "revoked" if person.revoked else times.moment(person.not_after),
    )


def _draw_list(shares: list[ShareInfo]) -> None:
    screen.table(
        ["share", "title", "state", "files", "size", "recipients"],
        [
            (
                _reference(share),
                share.title,
                share.state,
                f"{share.files:,}",
                screen.size(share.bytes),
                ", ".join(f"{person.name} ({person.state})" for person in share.recipients),
            )
            for share in shares
        ],
        empty="Nothing is shared yet. Share something: `labxchange share create PATH --to NAME`.",
    )


def _draw_offer(item: InboxItem) -> None:
    screen.line(f"{item.sender} will be asked for more time for “{item.title}”; it now ends {times.moment(item.not_after)}.")


@app.command(
    epilog=example(
        'labxchange share create data/sdtm --to "Ana Silva" --title "SDTM, transfer 3 of 5" \\',
        "    --study ABC-101 --category demographics --purpose interim-analysis --expires 30d",
    )
)
def create(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="A folder, or several files and folders.")],
    to: Annotated[list[str], typer.Option("--to", metavar="NAME", help="A contact; can be repeated.")],
    title: Annotated[str, typer.Option("--title", help="What recipients see; without it, the name of the folder.")] = "",
    note: Annotated[str, typer.Option("--note", help="A few words to the recipients.")] = "",
    purpose: Annotated[str, typer.Option("--purpose", help="What the data may be used for.")] = "",
    study: Annotated[str, typer.Option("--study", help="The study it belongs to.")] = "",
    site: Annotated[str, typer.Option("--site", help="The site it belongs to.")] = "",
    category: Annotated[str, typer.Option("--category", help="The category of data.")] = "",
    not_before: Annotated[str, typer.Option("--not-before", metavar="WHEN", help="From when it can be had; now.")] = "",
    expires: Annotated[str, typer.Option("--expires", metavar="WHEN", help="Until when: 30d, 2026-12-31, or with zone.")] = "",
    downloads: Annotated[int, typer.Option("--downloads", min=1, help="How often each recipient may download it.")] = 3,
    new_version_of: Annotated[str, typer.Option("--new-version-of", metavar="SHARE", help="Your share that this replaces.")] = "",
    column: Annotated[
        list[str] | None, typer.Option("--column", metavar="NAME", help="Of one table file, share only this column; repeated.")
    ] = None,
    rows: Annotated[
        str, typer.Option("--rows", metavar="CONDITION", help="Of one table file, share only such rows: \"SITEID == '701'\".")
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Return when all files are hashed; fails if that fails.")] = False,
    as_json: AsJson = False,
) -> None:
    """Share a folder, or files, with contacts.

    Recipients see it at once and can begin; the files are read for their digests meanwhile. What they get never changes: a
    changed file is left out, and a new version is a new offer. With --column or --rows a part of one table file is shared, in its
    own format, and recipients are told what was left out: columns by name, rows by number.
    """
    from labxchange.node.exposing import exposed
    from labxchange.node.home import Home
    from labxchange.node.verbs import Verbs

    now = times.now_ms()
    given = [Path(reach.absolute(path)) for path in paths]
    with exposed(given, columns=column, rows=rows or None, home=Home()) as (files, withheld):
        share = reach.call(
            Verbs.share_create,
            paths=[str(file) for file in files],
            withheld=withheld,
            to=to,
            share=new_version_of,
            title=title,
            note=note,
            purpose=purpose,
            study=study,
            site=site,
            category=category,
            not_before=times.parse_moment(not_before, now=now, end_of_day=False) if not_before else 0,
            not_after=times.parse_moment(expires, now=now) if expires else 0,
            downloads=downloads,
        )
    if wait:
        share = reach.call(Verbs.share_hashed, share=f"{share.share}/{share.version}")
    if wait and share.state == "failed":
        raise UnavailableError(
            "hashing-failed", f"The files could not be read: {share.reason}", hint="Correct that, then share a new version."
        )
    screen.show(share, _draw, as_json=as_json)


@app.command(epilog=example("labxchange share status", 'labxchange share status "SDTM, transfer 3 of 5"'))
def status(
    share: Annotated[str, typer.Argument(metavar="[SHARE]", help="One share; without it, all.")] = "", as_json: AsJson = False
) -> None:
    """Show what you share and whether the recipients have it, with their receipts."""
    from labxchange.node.verbs import Verbs

    if share:
        screen.show(reach.call(Verbs.share_status, share=share), _draw, as_json=as_json)
    else:
        screen.show(reach.call(Verbs.share_list), _draw_list, as_json=as_json)


@app.command(epilog=example('labxchange share revoke 3f2a9c --contact "Ana Silva" --reason "left the project"'))
def revoke(share: Share, contact: Only = "", reason: Reason = "", as_json: AsJson = False) -> None:
    """End a share at once; what runs stops, and the trail says exactly what had arrived.

    What somebody has received already stays with them.
    """
    from labxchange.node.verbs import Verbs

    screen.show(reach.call(Verbs.share_revoke, share=share, contact=contact, reason=reason), _draw, as_json=as_json)


@app.command(epilog=example("labxchange share extend 3f2a9c --until 2026-12-31"))
def extend(share: Share, until: Until, contact: Only = "", reason: Reason = "", as_json: AsJson = False) -> None:
    """Give recipients more time."""
    from labxchange.node.verbs import Verbs

    end = times.parse_moment(until, now=times.now_ms())
    info = reach.call(Verbs.share_extend, share=share, until=end, contact=contact, reason=reason)
    screen.show(info, _draw, as_json=as_json)


@app.command(epilog=example('labxchange share request-extension 3f2a9c --until 14d --reason "the analyst is away"'))
def request_extension(share: Share, until: Until, sender: Sender = "", reason: Reason = "", as_json: AsJson = False) -> None:
    """Ask the sender of a share for more time."""
    from labxchange.node.verbs import Verbs

    end = times.parse_moment(until, now=times.now_ms())
    item = reach.call(Verbs.request_extension, share=share, sender=sender, until=end, reason=reason)
    screen.show(item, _draw_offer, as_json=as_json)
