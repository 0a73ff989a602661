"""`labxchange audit`: look at one's own trail, export it, and check an exported one offline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from labxchange import times
from labxchange.cli import reach, screen
from labxchange.cli.options import AsJson, Trust, example, group
from labxchange.errors import InputError

if TYPE_CHECKING:
    from labxchange.audit.verifier import Comparison, Result
    from labxchange.node.values import EntryInfo, Exported

app = group("The audit trail: who did what, when; exported and checked by anyone.")

_SHOWN = ("person", "counterparty_name", "object_id", "study", "site", "reason_text", "old", "new")


def _draw(entries: list[EntryInfo]) -> None:
    screen.table(
        ["entry", "time", "event", "result", "about"],
        [
            (
                str(entry.seq),
                times.moment(entry.utc),
                entry.event,
                f"{entry.result} ({entry.result_code})" if entry.result_code else entry.result,
                _about(entry),
            )
            for entry in entries
        ],
        empty="No entry of the trail fits.",
    )


def _about(entry: EntryInfo) -> str:
    told = [(name, entry.fields[name]) for name in _SHOWN if entry.fields.get(name)]
    return ", ".join(value if len(value) <= 40 else f"{value[:39]}…" for _, value in told)


def _draw_exported(exported: Exported) -> None:
    screen.line(
        f"{screen.number(exported.entries, 'entry').replace('entrys', 'entries')} are in {exported.path} "
        f"({exported.form}, {screen.size(exported.size)})."
    )
    if exported.form == "bundle":
        confirmed = f"Checkpoints in it that others have confirmed: {exported.cosigned:,}."
        screen.remark(f"{confirmed} Check it: `labxchange audit verify {exported.path}`.")


@app.command("list", epilog=example("labxchange audit list", "labxchange audit list --event transfer --since 7d"))
def entries(
    event: Annotated[str, typer.Option("--event", help="Events that begin so, e.g. transfer or grant.revoked.")] = "",
    about: Annotated[str, typer.Option("--about", metavar="TEXT", help="Entries in which this text occurs.")] = "",
    since: Annotated[str, typer.Option("--since", metavar="WHEN", help="From: 7d ago, 2026-12-31, or a time with zone.")] = "",
    until: Annotated[str, typer.Option("--until", metavar="WHEN", help="Up to: the same forms.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show entries of your audit trail, newest first. Looking is itself an entry."""
    from labxchange.node.verbs import Verbs

    now = times.now_ms()
    found = reach.call(
        Verbs.audit_list,
        event=event,
        about=about,
        since=times.parse_moment(since, now=now, end_of_day=False, past=True) if since else 0,
        until=times.parse_moment(until, now=now, past=True) if until else 0,
        limit=limit,
    )
    screen.show(found, _draw, as_json=as_json)


@app.command(epilog=example("labxchange audit export trail.labxtrail", "labxchange audit export site4.labxtrail --site 004"))
def export(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A new file.")],
    form: Annotated[str, typer.Option("--form", help="bundle (can be verified), csv, or jsonl.")] = "bundle",
    study: Annotated[str, typer.Option("--study", help="Only entries of this study.")] = "",
    site: Annotated[str, typer.Option("--site", help="Only entries of this site.")] = "",
    category: Annotated[str, typer.Option("--category", help="Only entries of this category of data.")] = "",
    as_json: AsJson = False,
) -> None:
    """Write your audit trail to a file that anyone can check without labxchange's network or your node.

    An excerpt by study, site or category proves that it is complete and hides all other entries.
    """
    from labxchange.node.verbs import Verbs

    exported = reach.call(Verbs.audit_export, path=reach.absolute(file), form=form, study=study, site=site, category=category)
    screen.show(exported, _draw_exported, as_json=as_json)


@app.command(epilog=example("labxchange audit verify trail.labxtrail --trust OWNER-FINGERPRINT --trust OTHER-FINGERPRINT"))
def verify(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A .labxtrail file.")],
    trust: Trust = None,
    other: Annotated[str, typer.Option("--with", metavar="FILE", help="The other party's file, to compare with.")] = "",
    seen: Annotated[
        list[str] | None, typer.Option("--seen", metavar="FILE", help="A checkpoint of this trail that was seen elsewhere.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check an exported audit trail, offline and without a node.

    Give the fingerprints that you know from the people themselves: the owner's, and those of counterparties. The verdict is
    VALID, VALID-UNANCHORED, INCOMPLETE, DIVERGED or INVALID; the exit code is 0, 10, 11, 12 or 13.
    """
    from labxchange.audit import verifier

    try:
        if other:
            both = verifier.compare(file, other, trust=trust or [])
            screen.show(both, _draw_comparison, as_json=as_json)
            results, agree = [both.first, both.second], both.agree
        else:
            notes = tuple(verifier.read_note(path) for path in seen or [])
            result = verifier.verify(file, trust=trust or [], evidence=verifier.Evidence(notes=notes))
            screen.show(result, _draw_result, as_json=as_json)
            results, agree = [result], True
    except verifier.VerifierError as error:
        raise InputError("trail-unreadable", str(error), hint="Check the name of the file and the fingerprints.") from None
    codes = [verifier.EXIT_CODES[item.verdict] for item in results]
    code = max(codes) if agree else max(*codes, verifier.EXIT_CODES[verifier.Verdict.INCOMPLETE])
    if code:
        raise typer.Exit(code)


def _draw_result(result: Result) -> None:
    from labxchange.audit.verifier import report

    for text in report(result).splitlines():
        screen.line(text)


def _draw_comparison(both: Comparison) -> None:
    for result in (both.first, both.second):
        _draw_result(result)
        screen.line()
    for text in both.differences:
        screen.line(text)
    told = "both tell the same" if both.agree else "they do not tell the same"
    screen.line(f"{screen.number(both.transfers, 'transfer')} between the two: {told}.")
