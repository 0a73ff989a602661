"""What each value looks like: a transfer, a share, a report, a receipt, an identity. Pure: values in, HTML out.

Two forms of a transfer and of a share. The card, shown while something happens, names what and who. The *kept* form is what a
saved notebook holds afterwards: counts, sizes, verdict, receipt id and root, and nothing that names a person, a dataset, a file
or a folder, because notebooks travel further than data may.
"""

from __future__ import annotations

from collections.abc import Sequence

from labxchange.dataset.check import Report
from labxchange.node.values import Me, ReceiptInfo, ShareInfo, TransferInfo, WithheldInfo
from labxchange.notebook import html
from labxchange.notebook.text import amount, duration, size, when

_STATES = {
    "running": ("running", "busy"),
    "waiting": ("waiting", "warn"),
    "paused": ("paused", "idle"),
    "verified": ("verified", "good"),
    "completed": ("completed", "good"),
    "failed": ("failed", "bad"),
    "cut": ("cut short", "bad"),
    "cancelled": ("cancelled", "idle"),
}
_HOLDS = {
    "network": "the network",
    "disk": "the disk",
    "cpu": "this computer's processor",
    "peer": "the other side",
    "cap": "a chosen limit",
}
_RUN_DOWN = 30
"""Findings shown of a report; the counts are always of all."""
_COLUMNS_DOWN = 60

OVER = ("verified", "completed", "failed", "cut", "cancelled")
"""States in which a transfer moves no more by itself."""

Samples = Sequence[tuple[float, int]]


def _state(word: str) -> str:
    return html.mark(*_STATES.get(word, (word, "idle")))


def transfer_card(info: TransferInfo, *, samples: Samples = (), remark: str = "", known: bool = True) -> str:
    """A transfer now. ``samples``: (seconds, bytes a second); ``remark``: what hinders the display itself, or an answer;
    ``known`` is false while the node cannot be asked: then this is what it last said."""
    into = info.direction == "in"
    who = f"from {html.text(info.peer)}" if into else f"to {html.text(info.peer)}"
    word, tone = _STATES.get(info.state, (info.state, "idle")) if known else (f"last known: {info.state}", "idle")
    moves = known and info.state == "running"
    label = "received" if into else "sent"
    return html.card(
        "Transfer",
        f"{html.mark(word, tone)} · <strong>{html.text(info.title)}</strong> {who}",
        html.bar(info.done_bytes, info.bytes, tone=tone, label=f"bytes {label}"),
        _progress(info, moves=moves),
        _rates(samples) if moves else "",
        html.faint(_way(info)) if known else "",
        html.faint(_situation(info)) if known else "",
        html.faint(f"into {html.text(info.destination)}") if into and info.destination else "",
        html.mark(remark, "warn") if remark else "",
    )


def _progress(info: TransferInfo, *, moves: bool) -> str:
    parts = [f"{size(info.done_bytes)} of {size(info.bytes)}", f"{info.done_files:,} of {amount(info.files, 'file')}"]
    if info.reused_bytes:
        parts.append(f"{size(info.reused_bytes)} were here already")
    if moves:
        parts += [f"{size(info.rate)}/s"] if info.rate else []
        parts += [f"{duration(info.eta)} left"] if info.eta >= 0 else []
    return f'<span style="font-variant-numeric: tabular-nums">{html.text(" · ".join(parts))}</span>'


def _rates(samples: Samples) -> str:
    if not samples:
        return ""
    seconds = int(samples[-1][0] - samples[0][0])
    told = f"up to {size(max(rate for _, rate in samples))}/s in the last {duration(seconds)}"
    return html.graph(samples, title=f"rate: {told}", beside=told)


def _way(info: TransferInfo) -> str:
    """How the data travels, in a few words; nothing while it does not."""
    path, parts = info.path, []
    if path.plane == "lanes":
        parts.append(f"over {amount(path.lanes, 'lane')}" if path.lanes else "over lanes")
    elif path.plane:
        parts.append("over QUIC")
    parts += [path.cipher] if path.cipher else []
    parts += [f"round trip {path.rtt_ms:.3g} ms"] if path.rtt_ms else []
    parts += [f"{100 * path.loss:.2g} % lost"] if path.loss >= 0.0005 else []
    parts += [f"held back by {_HOLDS[path.limit]}"] if path.limit in _HOLDS and info.state == "running" else []
    limits = info.limits
    parts += [f"at most {size(limits.rate)}/s"] if limits.rate else []
    parts += [f"{limits.priority} priority"] if limits.priority != "normal" else []
    return html.text(" · ".join(parts)) if parts else ""


def _situation(info: TransferInfo) -> str:
    """What a person should know of a transfer that does not move."""
    why = f" ({info.reason})" if info.reason else ""
    told = {
        "waiting": f"Waiting for the other node{why}; it goes on by itself.",
        "paused": f"Paused{why}; what has arrived is kept.",
        "cut": f"Ended by the sender's rules{why}; it can go on if they allow it again.",
        "failed": f"It did not work{why}.",
        "cancelled": "Given up; what had arrived unverified was removed.",
        "verified": "Every file was checked; the sender has still to countersign the receipt.",
    }.get(info.state, "")
    return html.text(told) if told else ""


def transfer_kept(info: TransferInfo, *, receipt: ReceiptInfo | None = None) -> str:
    """A transfer as a saved notebook keeps it: no person, title, file, folder. One that still moves is as it was here."""
    verb = "received" if info.direction == "in" else "sent"
    parts = [f"{info.done_files:,} of {amount(info.files, 'file')}", f"{size(info.done_bytes)} of {size(info.bytes)} {verb}"]
    if info.reused_bytes:
        parts.append(f"{size(info.reused_bytes)} were here already")
    if info.finished > info.started > 0:
        parts.append(f"in {duration(-(-(info.finished - info.started) // 1000))}")
    pairs = [("transfer", html.code(info.transfer)), ("ended", html.text(when(info.finished)) if info.finished else "")]
    if receipt is not None:
        signed = "signed by both" if receipt.acknowledged else "signed, not yet countersigned"
        pairs += [
            ("verdict", html.text(f"{receipt.level}, {receipt.verdict}")),
            ("receipt", f"{html.code(receipt.receipt)} {html.faint(f'({signed})')}"),
            ("root", html.code(receipt.root)),
        ]
    moves = "" if info.state in OVER else html.faint("This is how it began; lx.transfers() shows how it is now.")
    return html.card("Transfer", f"{_state(info.state)} · {html.text(' · '.join(parts))}", html.fields(pairs), moves)


def transfer_line(info: TransferInfo) -> str:
    """``transfer_kept`` as one line of plain text."""
    files = f"{info.done_files:,} of {amount(info.files, 'file')}"
    return f"transfer {info.transfer[:12]}: {info.state}, {files}, {size(info.done_bytes)}"


def share_card(info: ShareInfo, *, as_of: str, remark: str = "") -> str:
    """A share, with what became of it at each recipient ``as_of`` a time of day."""
    heads = ("recipient", "state", "received", "downloads", "until", "receipt")
    rows = [
        (
            one.name,
            one.state,
            "all" if one.done_bytes >= info.bytes else size(one.done_bytes),
            f"{one.used + one.reserved} of {one.downloads}",
            "revoked" if one.revoked else when(one.not_after),
            "" if not one.receipt else "signed by both" if one.acknowledged else "signed",
        )
        for one in info.recipients
    ]
    asked = [
        html.mark(f"{one.name} asks for more time, until {when(one.asked_until)}.", "warn")
        for one in info.recipients
        if one.asked_until
    ]
    return html.card(
        "Share",
        f"{_share_state(info, reason=info.reason)} · <strong>{html.text(info.title)}</strong> version {info.version}",
        html.text(f"{amount(info.files, 'file')}, {size(info.bytes)}") + html.text(_left(info)),
        withheld(info.withheld),
        html.bar(info.hashed_bytes, info.bytes, tone="busy", label="bytes read and hashed") if info.state == "hashing" else "",
        html.table(heads, rows, caption=f"share {info.share}, as of {as_of}", empty="No recipients."),
        *asked,
        html.mark(remark, "warn") if remark else "",
    )


def withheld(left: Sequence[WithheldInfo]) -> str:
    """What of tables was not shared, as the share says it. Every column has its name; where they are many, they scroll."""
    parts = []
    for one in left:
        names = f"{amount(len(one.columns), 'column')} ({', '.join(map(html.text, one.columns))})" if one.columns else ""
        rows = amount(one.rows, "row") if one.rows else ""
        parts.append(f"{html.text(one.file)}: {' and '.join(part for part in (names, rows) if part)}")
    told = f"<strong>Withheld</strong> from {'; '.join(parts)}." if parts else ""
    many = sum(len(one.columns) for one in left) > _COLUMNS_DOWN
    return f'<div style="max-height: 9em; overflow: auto">{told}</div>' if many else told


def _left(info: ShareInfo) -> str:
    left = info.left_out + len(info.skipped)
    return f"; {amount(left, 'file')} could not be shared" if left else ""


def _share_state(info: ShareInfo, *, reason: str = "") -> str:
    tone = {"hashing": "busy", "available": "good", "failed": "bad"}.get(info.state, "idle")
    words = {"hashing": "being read and hashed"}.get(info.state, info.state)
    return html.mark(words + (f" ({reason})" if reason else ""), tone)


def share_kept(info: ShareInfo, *, remark: str = "") -> str:
    """A share as a saved notebook keeps it."""
    counts: dict[str, int] = {}
    for one in info.recipients:
        counts[one.state] = counts.get(one.state, 0) + 1
    told = ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items()))
    pairs = [
        ("share", html.code(f"{info.share}/{info.version}")),
        ("recipients", html.text(told)),
        ("root", html.code(info.root) if info.root else ""),
    ]
    head = f"{amount(info.files, 'file')}, {size(info.bytes)}{_left(info)}"
    return html.card(
        "Share",
        f"{_share_state(info)} · {html.text(head)}",
        html.bar(info.hashed_bytes, info.bytes, tone="busy", label="bytes read and hashed") if info.state == "hashing" else "",
        html.fields(pairs),
        html.mark(remark, "warn") if remark else "",
    )


def share_line(info: ShareInfo) -> str:
    """``share_kept`` as one line of plain text."""
    return f"share {info.share[:12]}/{info.version}: {info.state}, {amount(info.files, 'file')}, {size(info.bytes)}"


def report_card(report: Report) -> str:
    """A verification report: the verdict, every check that ran and that did not, the files that are not as they should be."""
    verdicts = {"intact": ("intact", "good"), "intact-with-extra": ("intact, other files are there too", "warn")}
    word, tone = verdicts.get(report.verdict, ("not intact", "bad"))
    bad = [
        f"{count:,} {name}"
        for name, count in (
            ("differ", report.differ),
            ("missing", report.missing),
            ("unexpected", report.unexpected),
            ("unreadable", report.error),
            ("left out by the sender", report.left_out),
        )
        if count
    ]
    checks = [(name, "ran", "") for name in report.checks_run]
    checks += [(item.name, "not run", item.why) for item in report.checks_not_run]
    rows = [(one.path, str(one.kind), one.text) for one in report.findings[:_RUN_DOWN]]
    total = report.differ + report.missing + report.unexpected + report.error
    matched = f"{amount(report.matched, 'file')} matched, {size(report.bytes)}"
    shown = f"{len(rows):,} of {amount(total, 'finding')}"
    files = html.table(("file", "finding", "what"), rows, caption=shown, empty="") if rows else ""
    return html.card(
        "Verification report",
        f"{html.mark(word, tone)} · {html.text(matched)}",
        html.text("; ".join(bad)) if bad else "",
        html.table(("check", "", "why not"), checks, caption=f"{len(report.checks_run)} checks ran", empty="No check ran."),
        files,
    )


def receipt_card(receipt: ReceiptInfo) -> str:
    """A signed receipt."""
    good = receipt.verdict in ("match", "complete") and receipt.level != "rejected"
    signed = "signed by both" if receipt.acknowledged else "signed by the recipient; the sender has still to countersign"
    reused = f", of which {size(receipt.reused_bytes)} were there already" if receipt.reused_bytes else ""
    pairs = [
        ("dataset", html.text(receipt.title)),
        ("from", html.text(receipt.sender)),
        ("to", html.text(receipt.recipient)),
        ("holds", html.text(f"{amount(receipt.files, 'file')}, {size(receipt.bytes)}{reused}")),
        ("findings", html.text(receipt.findings)),
        ("finished", html.text(when(receipt.finished))),
        ("path", html.text(receipt.path)),
        ("receipt", html.code(receipt.receipt)),
        ("root", html.code(receipt.root)),
    ]
    return html.card(
        "Receipt", f"{html.mark(f'{receipt.level}, {receipt.verdict}', 'good' if good else 'bad')} · {signed}", html.fields(pairs)
    )


def me_card(me: Me) -> str:
    """One's own identity."""
    words = "&ensp;".join(html.text(word) for word in me.words)
    pairs = [
        ("organisation", html.text(me.organisation)),
        ("role", html.text(me.role) if me.role else ""),
        ("fingerprint", html.code(me.fingerprint)),
        ("six words", f"<strong>{words}</strong>"),
        ("addresses", html.text(", ".join(me.addresses)) if me.addresses else ""),
    ]
    state = html.mark("locked", "warn") if me.locked else html.mark("unlocked", "good")
    return html.card("Your identity", f"{state} · <strong>{html.text(me.name)}</strong>", html.fields(pairs))
