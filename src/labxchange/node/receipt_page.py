"""A receipt as a page: one HTML file to read, print and keep, which carries the receipt file that it was made from.

Rules: everything a reader sees is made from verified statements and nothing else, so the page can be made again from what it
carries and compared byte for byte; every text of a person is escaped; the page loads nothing, runs nothing, and says so to the
browser. ``LAYOUT`` numbers how a page looks: a page of another number is verified by the software that knows it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape as escape_html

from labxchange.dataset.names import escape
from labxchange.errors import InputError, IntegrityError
from labxchange.identity.card import Card
from labxchange.node.receipt_proof import Proven, prove
from labxchange.sharing.exchange import Receipt

LAYOUT = 1
_OPENS = '<script type="application/json" id="labxchange-receipt">'
_CLOSES = "</script>"
_LAYOUT = re.compile(rb'<meta name="labxchange-page" content="([0-9]{1,6})">')
_STYLE = """\
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #57606a; --line: #d0d7de; --paper: #fff; --good: #1a7f37;
  --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --dim: #9da7b1; --line: #3d444d; --paper: #0d1117; --good: #57ab5a; --bad: #ff7b72; }
}
@media print {
  :root { color-scheme: light; --ink: #000; --dim: #444; --line: #999; --paper: #fff; --good: #000; --bad: #000; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 52rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { font-weight: 600; color: var(--dim); } tbody th { width: 10rem; }
.findings { white-space: pre-wrap; } .good { color: var(--good); } .bad { color: var(--bad); } p { color: var(--dim); }
code { font: 13px ui-monospace, monospace; }
"""
_LEVELS = {
    "delivered": "every byte that could be had arrived",
    "intact": "the files were held against the sender's manifest",
    "accepted": "the recipient looked, and accepts",
    "rejected": "the recipient looked, and rejects",
}
_CHECKS = (
    "Every statement in this page is signed by the party whose word it is.",
    "Before it signed, the recipient's node compared each chunk (BLAKE3-256) and file (SHA-256) with what the sender signed.",
)


def render(document: object) -> bytes:
    """The page of a receipt file, given as its JSON value.

    Raises:
        InputError: ``receipt-unreadable``.
        IntegrityError: what does not verify.
    """
    return _page(document, prove(document))


def is_page(data: bytes) -> bool:
    """True for what is not JSON and looks like HTML."""
    return data.lstrip().startswith(b"<")


def embedded(data: bytes) -> bytes:
    """The JSON text that a page carries.

    Raises:
        InputError: ``receipt-unreadable``.
    """
    _, opened, rest = data.partition(_OPENS.encode())
    text, closed, _ = rest.partition(_CLOSES.encode())
    if not opened or not closed:
        raise InputError("receipt-unreadable", "This page carries no labxchange receipt.")
    return text


def check_page(data: bytes, document: object, proven: Proven) -> None:
    """A page shows what its statements say, and nothing else.

    Raises:
        IntegrityError: ``receipt-page-altered``, ``receipt-page-unknown``.
    """
    layout = _LAYOUT.search(data)
    if layout is not None and int(layout[1]) != LAYOUT:
        raise IntegrityError(
            "receipt-page-unknown",
            "The statements in this page verify, but another version of labxchange made it, so what it shows is not checked.",
            hint="Verify it with a newer version; do not go by what the page shows.",
        )
    if data != _page(document, proven):
        raise IntegrityError(
            "receipt-page-altered",
            "The statements in this page verify, but the page shows something else than they say.",
            hint="Somebody changed it. Ask for the receipt again; do not go by what this page shows.",
        )


def _page(document: object, proven: Proven) -> bytes:
    body = proven.receipt.body
    title = _text(proven.share.title) if proven.share else "a transfer"
    carried = json.dumps(document, indent=1).replace("<", "\\u003c")
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<meta name="labxchange-page" content="{LAYOUT}">
<title>Receipt: {title}</title>
<style>
{_STYLE}</style>
</head>
<body>
<h1>Receipt: {title}</h1>
<p class="{"bad" if body.verdict == "mismatch" or body.level == "rejected" else "good"}">{_headline(body)}</p>
<h2>Who, what, when</h2>
{_table(_facts(proven))}
<h2>What arrived</h2>
{_table(_counts(body))}
<h2>Levels</h2>
{_levels(proven)}
<h2>Checks</h2>
<ul>
{_checks(proven)}
</ul>
<p>This page carries the signed statements that it was made from. Anybody can check them, and that the page shows what they say:
<code>labxchange receipt verify FILE.html</code>. It tells of the moment at which it was saved. Who the parties are is proven only
by comparing the fingerprints with them.</p>
{_OPENS}{carried}{_CLOSES}
</body>
</html>
""".encode()


def _headline(body: Receipt) -> str:
    told = "matches" if body.verdict in ("match", "complete") else "does not match"
    return f"{body.level.capitalize()}. What arrived {told} what the sender signed."


def _facts(proven: Proven) -> Iterable[tuple[str, str]]:
    body, share, grant = proven.receipt.body, proven.share, proven.grant
    yield "sender", _party(proven.sender, proven.prints[0])
    yield "recipient", _party(proven.recipient, proven.prints[1])
    if share is not None:
        yield "share", f"{_text(share.title)}, version {share.version}, <code>{share.share}</code>"
        for name, value in (("note", share.note), ("study", share.study), ("site", share.site), ("category", share.category)):
            if value:
                yield name, _text(value)
        for one in share.withheld:
            left = [f"columns {', '.join(one.columns)}"] * bool(one.columns) + [f"{one.rows:,} rows"] * bool(one.rows)
            yield "withheld", _text(f"{one.file}: {'; '.join(left)}")
    if grant is not None:
        yield "grant", f"<code>{grant.grant}</code>, from {_moment(grant.not_before)} until {_moment(grant.not_after)}"
        if grant.purpose:
            yield "purpose", _text(grant.purpose)
    yield "transfer", f"<code>{body.transfer}</code>"
    yield "started", f"{_moment(body.started)} (the recipient's clock: {_text(body.started_local)})"
    yield "finished", f"{_moment(body.finished)} (the recipient's clock: {_text(body.finished_local)})"
    path = (body.path.route, body.path.relay, body.path.plane, body.path.plane_reason, body.path.cipher)
    yield "path", _text(", ".join(part for part in path if part))
    yield "software", _text(body.software)


def _counts(body: Receipt) -> Iterable[tuple[str, str]]:
    yield "verdict", _text(body.verdict)
    for name in ("matched", "differ", "missing", "unexpected", "error"):
        yield f"files, {name}", f"{getattr(body.counts, name):,}"
    yield "bytes", f"{body.bytes:,}"
    if body.reused:
        yield "were there", f"{body.reused:,} of them, from earlier versions"
    yield "root", f"<code>{body.root}</code>"


def _levels(proven: Proven) -> str:
    rows = []
    for item in (*proven.receipts, proven.receipt):
        level, signed = f"{item.body.level}<br>{_LEVELS[item.body.level]}", _moment(item.body.issued)
        rows.append(f"<tr><td>{level}</td><td>{signed}</td><td><code>{item.id}</code></td></tr>")
        if item.body.findings:
            rows.append(f'<tr><td class="findings" colspan="3">Findings: {_lines(item.body.findings)}</td></tr>')
    heads = "<thead><tr><th>level</th><th>signed</th><th>receipt</th></tr></thead>"
    return f"<table>{heads}\n<tbody>\n{chr(10).join(rows)}\n</tbody></table>"


def _checks(proven: Proven) -> str:
    ack = proven.ack
    countersigned = "The sender has not countersigned the last receipt yet."
    if ack is not None:
        place = f"it is entry {ack.body.index} of the sender's trail"
        countersigned = f"The sender countersigned the last receipt at {_moment(ack.body.issued)}; {place}."
    return "\n".join(f"<li>{text}</li>" for text in (*_CHECKS, countersigned))


def _party(card: Card, own: str) -> str:
    about = ", ".join(part for part in (card.name, card.role, card.organisation, card.country) if part)
    return f"{_text(about)}<br><code>{own}</code>"


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return (
        "<table><tbody>\n" + "".join(f"<tr><th>{name}</th><td>{value}</td></tr>\n" for name, value in rows) + "</tbody></table>"
    )


def _text(text: str) -> str:
    return escape_html(escape(text))


def _lines(text: str) -> str:
    return "\n".join(_text(line) for line in text.split("\n"))


def _moment(utc_ms: int) -> str:
    try:
        return f"{datetime.fromtimestamp(utc_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, OSError, ValueError):
        return "a time that does not exist"
