"""What was measured, for people: the table of a terminal, the page ``docs/performance.md``, and the plot.

Rules: nothing is shown that is not in the document of a run; where a row was run several times the run with the median time
stands for it, whole; a time that was extrapolated from a window is marked with ~; what the node does not tell is a dash.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.bench.measure import OURS, Run, judge
from tests.bench.rows import FLOOR, GIB, MIB, Row, Verdict, bound_s

_HEAD = (
    "path",
    "bytes",
    "s",
    "at most s",
    "Mbit/s",
    "of link",
    "CPU s/GiB a + b",
    "MiB a / b",
    "datagrams a call",
    "other load",
    "plane",
    "bars",
)


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the benchmark: on what, how, and everything that came out."""

    command: str
    started: str
    note: str
    machine: dict[str, str]
    network: str
    account: str
    scale: float
    repeat: int
    window_s: float
    missing: dict[str, str]
    rows: tuple[Row, ...]
    runs: tuple[Run, ...]


def load(path: Path) -> Document:
    return msgspec.json.decode(path.read_bytes(), type=Document)


def save(document: Document, path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")


def median(runs: Sequence[Run]) -> Run | None:
    """The run with the median time: of complete ones where there are some; none when nothing was measured."""
    good = [run for run in runs if run.seconds and not run.error]
    good = [run for run in good if run.complete] or good
    ordered = sorted(good, key=lambda run: run.seconds)
    return ordered[(len(ordered) - 1) // 2] if ordered else None


def of(document: Document, row: Row, what: str, control: str | None = None) -> list[Run]:
    return [
        run for run in document.runs if (run.row, run.what) == (row.name, what) and (control is None or run.control == control)
    ]


# --- cells ------------------------------------------------------------------------------------------------------------
def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _size(count: int) -> str:
    return f"{count / GIB:.3g} GiB" if count >= GIB else f"{count / MIB:.3g} MiB"


def _cpu(run: Run) -> str:
    return " + ".join("-" if use is None else f"{use.cpu_s_per_gib:.2f}" for use in (run.sender, run.receiver))


def _verdict(verdict: Verdict) -> str:
    got = "-" if verdict.got is None else _number(verdict.got)
    return f"{verdict.bar} {got} {'holds' if verdict.holds else 'MISSED'} ({_number(verdict.limit)})"


def cells(document: Document, row: Row) -> tuple[str, ...]:
    """The row of our own runs."""
    runs = of(document, row, OURS)
    run = median(runs)
    if run is None:
        return (row.title, *("-" for _ in _HEAD[2:]), next((run.error for run in runs if run.error), "not run"))
    assert run.sender is not None
    assert run.receiver is not None
    about = "" if run.complete else "~"
    bound = bound_s(row.path, run.bytes)
    listed = f" + {_number(run.listed_s)}" if row.bar.seconds else ""
    return (
        row.title,
        _size(run.bytes) if run.files == 1 else f"{run.files:,} files, {_size(run.bytes)}",
        f"{about}{_number(run.seconds)}{listed}",
        _number(bound) if row.bar.bound else "-",
        f"{about}{_number(run.goodput_mbit)}",
        _of_link(row, run),
        _cpu(run),
        f"{run.sender.process_mib:.0f} / {run.receiver.process_mib:.0f}",
        "-" if run.datagrams_per_call is None else f"{run.datagrams_per_call:.1f}",
        f"{run.other:.0%}",
        f"{run.plane or '-'}{f' ({run.plane_reason})' if run.plane_reason else ''}",
        "; ".join(_verdict(verdict) for verdict in judge(row, run)) or "-",
    )


def _of_link(row: Row, run: Run) -> str:
    """Of the link's rate; beside another flow what each had of what the link can carry."""
    if run.share is not None and run.other_share is not None:
        return f"{run.share:.0%}, {row.beside} {run.other_share:.0%}"
    return f"{run.goodput_mbit / row.path.rate_mbit:.1%}" if row.path.rate_mbit else "-"


def ahead(document: Document) -> list[str]:
    """For each row with peers: whom we are not ahead of."""
    found = []
    for row in document.rows:
        ours, others = median(of(document, row, OURS)), [(peer, median(of(document, row, *peer))) for peer in peers_of(document)]
        if ours is None or not any(run for _, run in others):
            continue
        faster = [" ".join(peer).strip() for peer, run in others if run is not None and run.goodput_mbit >= ours.goodput_mbit]
        found.append(f"{row.name}: {'not ahead of ' + ', '.join(faster) if faster else 'ahead of all'}")
    return found


def peers_of(document: Document) -> list[tuple[str, str]]:
    """Peers with their congestion control, in the order of their first run."""
    return list(dict.fromkeys((run.what, run.control) for run in document.runs if run.what not in (OURS, FLOOR)))


def _peer_cell(document: Document, row: Row, peer: tuple[str, str]) -> str:
    runs = of(document, row, *peer)
    run = median(runs)
    if run is None:
        return "failed" if runs else ""
    return f"{'' if run.complete else '~'}{_number(run.goodput_mbit)}"


def _peer_rows(document: Document) -> list[tuple[str, ...]]:
    peers = {what for what, _ in peers_of(document)}
    rows = [row for row in document.rows if any(run.what in peers for run in document.runs if run.row == row.name)]
    if not rows:
        return []
    ours = [median(of(document, row, OURS)) for row in rows]
    table = [("Mbit/s", *(row.name for row in rows))]
    table.append(
        (OURS, *("failed" if run is None else f"{'' if run.complete else '~'}{_number(run.goodput_mbit)}" for run in ours))
    )
    for peer in peers_of(document):
        table.append((" ".join(peer).strip(), *(_peer_cell(document, row, peer) for row in rows)))
    return table


def _floor_rows(document: Document) -> list[tuple[str, ...]]:
    """Where they were measured: the primitives beside ours and the bar."""
    table = [("path", "bar, Mbit/s", FLOOR, "CPU s/GiB a + b", "ours", "CPU s/GiB a + b", "of the primitives")]
    for row in document.rows:
        floor, ours = median(of(document, row, FLOOR)), median(of(document, row, OURS))
        if floor is not None and ours is not None:
            spent = [_cpu(run) for run in (floor, ours)]
            share = f"{ours.goodput_mbit / floor.goodput_mbit:.0%}"
            bar = _number(row.bar.goodput_mbit) if row.bar.goodput_mbit else "-"
            table.append((row.title, bar, _number(floor.goodput_mbit), spent[0], _number(ours.goodput_mbit), spent[1], share))
    return table if len(table) > 1 else []


# --- a terminal -------------------------------------------------------------------------------------------------------
def text(document: Document) -> str:
    """Both tables, with aligned columns."""
    parts = [_aligned([_HEAD, *(cells(document, row) for row in document.rows)])]
    peers = _peer_rows(document)
    if peers:
        parts += [_aligned(peers), "\n".join(ahead(document))]
    if floor := _floor_rows(document):
        parts.append(_aligned(floor))
    for name, why in document.missing.items():
        parts.append(f"{name}: {why}")
    return "\n\n".join(parts)


def _aligned(table: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table)


def line(run: Run) -> str:
    """One run, as it ends."""
    name = " ".join((run.what, run.control)).strip()
    if run.error:
        return f"  {run.row} {run.repeat}: {name}: {run.error}"
    about = "" if run.complete else "~"
    told = f"{about}{_number(run.seconds)} s, {about}{_number(run.goodput_mbit)} Mbit/s {run.plane}"
    return f"  {run.row} {run.repeat}: {name}: {told}".rstrip()


# --- the page ---------------------------------------------------------------------------------------------------------
def _table(table: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in table]
    return "\n".join([lines[0], "|---" * len(table[0]) + "|", *lines[1:]])


def _conditions(document: Document) -> str:
    machine = [("machine", f"{value} ({name})") for name, value in document.machine.items()]
    rows = [
        ("command", f"`{document.command}`"),
        ("when", document.started),
        *machine,
        ("network", document.network),
        ("nodes run as", document.account),
        ("scale", f"{document.scale:g} of the bytes, medians of {document.repeat}, window {document.window_s:g} s"),
        ("note", document.note or "-"),
    ]
    return _table([("what", ""), *rows])


_HOW = """Two nodes on two hosts (network namespaces of one machine) joined by an emulated path, new identities and an empty
destination for each run. The time runs from the recipient's first request to the last chunk verified and journalled,
both by its trail; encryption, digests and trail are on. Everything lies on a tmpfs, so no disk is measured; in large
pages where the path has no limit, for in pages of 4 KiB a tmpfs takes more of the processor than a disk's page cache
does (see [where the time goes](explain/speed.md)). `at most s` is B / (0.98 c) + 12 round trips, with c what the link
can carry of file bytes after headers and loss. CPU and memory are those of the node and its workers: seconds for each
GiB sent (a) and received (b), and the largest process. Peers ran in the same run with the same bytes, with the
machine's own socket buffers and with all privileges; every byte of what arrived was compared. `~` is extrapolated
from a window."""


_FLOOR = """On a path without a limit the machine is the limit, so its own is measured in the same run: `primitives`
(`tests/bench/primitives.py`) reads, hashes, seals, hands over, receives, opens, hashes and writes the same bytes with the same
calls of the same libraries, on two threads a side, and does nothing else: no loss recovery, no rate control, no journal, one
nonce. A bar above it cannot be met here; what lies between it and ours is ours to lessen."""


def page(document: Document, *, before: Document | None = None, plot: str = "", made_by: str = "report") -> str:
    """The whole page, from one document, or from two to compare; ``made_by`` are the words that make it again."""
    parts = ["# Performance", f"Generated by `python -m tests.bench {made_by}`; do not edit.", _HOW]
    if plot:
        parts.append(f"![Goodput of each path]({plot})")
    parts += ["## Ours", _table([_HEAD, *(cells(document, row) for row in document.rows)])]
    peers = _peer_rows(document)
    if peers:
        parts += ["## Against what else is there", _table(peers), "; ".join(ahead(document)) + "."]
    if floor := _floor_rows(document):
        parts += ["## What the machine allows", _FLOOR, _table(floor)]
    if document.missing:
        parts.append("Not here: " + "; ".join(f"{name} ({why})" for name, why in document.missing.items()) + ".")
    if before is not None:
        parts += ["## Before and after", _table(_compared(before, document))]
    parts += ["## How it was run", _conditions(document)]
    if before is not None:
        parts += ["Before:", _conditions(before)]
    return "\n\n".join(parts) + "\n"


def _compared(before: Document, after: Document) -> list[tuple[str, ...]]:
    table: list[tuple[str, ...]] = [("path", "before, Mbit/s", "after, Mbit/s", "times", "plane before", "plane after")]
    for row in after.rows:
        old, new = median(of(before, row, OURS)), median(of(after, row, OURS))
        if old is not None and new is not None:
            times = f"{new.goodput_mbit / old.goodput_mbit:.3g}"
            marks = ["" if run.complete else "~" for run in (old, new)]
            rates = [f"{mark}{_number(run.goodput_mbit)}" for mark, run in zip(marks, (old, new), strict=True)]
            table.append((row.title, *rates, times, old.plane or "-", new.plane or "-"))
    return table


# --- the plot ---------------------------------------------------------------------------------------------------------
def draw(document: Document, path: Path, *, before: Document | None = None) -> None:
    """A panel for each path with something to compare, one bar for each tool: Mbit/s, logarithmic; a line is the link."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    bars = {row.name: _bars(document, row, before) for row in document.rows if row.kind != "flow"}
    rows = [row for row in document.rows if len(bars.get(row.name, [])) > 1]
    across = 3
    down = max(-(-len(rows) // across), 1)
    figure, panels = pyplot.subplots(down, across, figsize=(15, 3.2 * down), squeeze=False)
    flat = [panel for line in panels for panel in line]
    for panel, row in zip(flat, rows, strict=False):
        _panel(panel, bars[row.name], row)
    for panel in flat[len(rows) :]:
        panel.set_axis_off()
    figure.tight_layout()
    figure.savefig(path, dpi=90, metadata={"Software": None})
    pyplot.close(figure)


def _bars(document: Document, row: Row, before: Document | None) -> list[tuple[str, float]]:
    names = [(OURS, ""), *peers_of(document), (FLOOR, "")]
    found = [(" ".join(name).strip(), median(of(document, row, name[0], None if name[0] == OURS else name[1]))) for name in names]
    if before is not None:
        found.insert(1, (f"{OURS}, before", median(of(before, row, OURS))))
    return [(name, run.goodput_mbit) for name, run in found if run is not None]


def _panel(panel: Any, bars: list[tuple[str, float]], row: Row) -> None:
    names, values = [name for name, _ in bars], [value for _, value in bars]
    colours = ["#c0392b" if name == OURS else "#e6a49c" if name.startswith(OURS) else "#7f8c8d" for name in names]
    panel.barh(names, values, color=colours)
    panel.invert_yaxis()
    panel.set_xscale("log")
    panel.set_xlim(left=min(values) / 2, right=max([*values, row.path.rate_mbit]) * 3)
    if row.path.rate_mbit:
        panel.axvline(row.path.rate_mbit, color="black", linewidth=1, linestyle=":")
    for place, value in enumerate(values):
        panel.text(value * 1.05, place, _number(value), va="center", fontsize=7)
    panel.set_title(row.title, fontsize=9)
    panel.set_xlabel("Mbit/s", fontsize=8)
    panel.tick_params(labelsize=7)
