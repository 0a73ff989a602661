"""Pieces of HTML that every display is made of: text, tables, a bar, a rate graph. Pure: values in, a string out.

- Every text goes through ``text``: characters that act (control, direction, invisible) are shown as what they are, then HTML is
  escaped; ``bdi`` keeps a right-to-left name from moving what stands beside it.
- Styles are inline, because a ``<style>`` would reach the whole page and is removed by viewers. Text has the colour of the page
  and greys are half transparent, as front ends outside JupyterLab set its variables for a light page on dark ones too; marks have
  the theme's colours, with fallbacks that can be seen on both.
- Colour never says anything alone: each mark has its word beside it, a bar its per cent, a graph its title.

What a transfer or a share looks like is left to ``cards``.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from labxchange.dataset.names import escape

FAINT = "opacity: 0.75"
LINE = "rgba(128, 128, 128, 0.4)"
TRACK = "rgba(128, 128, 128, 0.3)"
TONES: Mapping[str, str] = {
    "good": "var(--jp-success-color1, #2e9e44)",
    "busy": "var(--jp-brand-color1, #2196f3)",
    "warn": "var(--jp-warn-color1, #ef8c00)",
    "bad": "var(--jp-error-color1, #e0433a)",
    "idle": "rgb(128, 128, 128)",
}
"""What a mark means -> its colour."""

TEXT_MAX = 300
_GRAPH = (260, 44)
_FONT = "font-family: var(--jp-ui-font-family, system-ui, sans-serif); font-size: var(--jp-ui-font-size1, 13px); line-height: 1.5"
_CELL = "padding: 3px 14px 3px 0; border: none; vertical-align: top; font-variant-numeric: tabular-nums"


def text(content: object) -> str:
    """``content`` as inert text, isolated from the direction of what stands beside it."""
    shown = html.escape(escape(str(content), limit=TEXT_MAX))
    return shown if shown.isascii() else f"<bdi>{shown}</bdi>"


def attribute(content: object) -> str:
    """``content`` for use between double quotes."""
    return html.escape(escape(str(content), limit=TEXT_MAX))


def faint(markup: str) -> str:
    return f'<span style="{FAINT}">{markup}</span>'


def hint(sentence: str) -> str:
    """A small line under a field."""
    style = f"{FAINT}; font-size: var(--jp-ui-font-size0, 11px); line-height: 1.4"
    return f'<div style="{style}">{text(sentence)}</div>'


def code(content: object) -> str:
    """An id or a digest, in full, so that it can be copied; it breaks anywhere."""
    style = "font-family: var(--jp-code-font-family, monospace); font-size: 0.92em; overflow-wrap: anywhere"
    return f'<span style="{style}">{text(content)}</span>'


def mark(word: str, tone: str) -> str:
    """A word with a coloured dot before it."""
    return f'<span aria-hidden="true" style="color: {TONES[tone]}">●</span> <strong>{text(word)}</strong>'


def card(label: str, *parts: str) -> str:
    """The frame of a display; empty parts are left out."""
    body = "".join(f'<div style="margin-top: 3px">{part}</div>' for part in parts if part)
    style = f"{_FONT}; border-left: 3px solid {LINE}; padding: 2px 0 4px 12px; margin: 4px 0; max-width: 60em; text-align: left"
    return f'<section aria-label="{attribute(label)}" style="{style}">{body}</section>'


def fields(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and their values (markup), a pair a line; pairs without a value are left out."""
    rows = "".join(
        f'<tr style="background: none"><th scope="row" style="{_CELL}; text-align: left; font-weight: normal; {FAINT}; '
        f'white-space: nowrap">{text(name)}</th><td style="{_CELL}; text-align: left">{value}</td></tr>'
        for name, value in pairs
        if value
    )
    return f'<table style="{_FONT}; border-collapse: collapse; border: none; margin: 0"><tbody>{rows}</tbody></table>'


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str, empty: str) -> str:
    """A table of texts; ``empty`` when there is no row. Numbers stand to the right."""
    if not rows:
        return f'<p style="{_FONT}; margin: 4px 0">{text(empty)}</p>'
    sides = ["right" if all(isinstance(row[column], int | float) for row in rows) else "left" for column in range(len(heads))]
    head = "".join(
        f'<th scope="col" style="{_CELL}; text-align: {side}; border-bottom: 1px solid {LINE}; white-space: nowrap">'
        f"{text(name)}</th>"
        for name, side in zip(heads, sides, strict=True)
    )
    body = "".join(
        '<tr style="background: none">'
        + "".join(
            f'<td style="{_CELL}; text-align: {side}; overflow-wrap: anywhere">{_cell(value)}</td>'
            for value, side in zip(row, sides, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    under = f'<caption style="caption-side: bottom; text-align: left; padding-top: 4px; {FAINT}">{text(caption)}</caption>'
    style = f"{_FONT}; border-collapse: collapse; border: none; margin: 4px 0; table-layout: auto"
    return f'<table style="{style}">{under}<thead><tr style="background: none">{head}</tr></thead><tbody>{body}</tbody></table>'


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else text(value)


def bar(done: int, whole: int, *, tone: str, label: str) -> str:
    """A progress bar with its per cent beside it; full where there is nothing to do."""
    part = 100.0 * min(done, whole) / whole if whole > 0 else 100.0
    # 100 % is said only when nothing is missing.
    percent = 100 if done >= whole else min(99, int(part))
    track = f"display: inline-block; width: 260px; max-width: 70%; height: 10px; border-radius: 5px; background: {TRACK}"
    fill = f"width: {part:.1f}%; height: 10px; border-radius: 5px; background: {TONES[tone]}"
    return (
        f'<span role="progressbar" aria-label="{attribute(label)}" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{percent}" style="{track}; overflow: hidden; vertical-align: middle">'
        f'<span style="display: block; {fill}"></span></span> '
        f'<span style="font-variant-numeric: tabular-nums">{percent} %</span>'
    )


def graph(samples: Sequence[tuple[float, int]], *, title: str, beside: str) -> str:
    """Rates over time as an SVG; ``samples`` are (seconds, value). Nothing with fewer than three.

    ``title`` says in words what is drawn, ``beside`` stands to the right of it.
    """
    if len(samples) < 3 or samples[-1][0] <= samples[0][0]:
        return ""
    width, height = _GRAPH
    first, last = samples[0][0], samples[-1][0]
    top = max(value for _, value in samples) or 1
    across, up = width / (last - first), (height - 6) / top
    points = " ".join(f"{(moment - first) * across:.1f},{height - 2 - value * up:.1f}" for moment, value in samples)
    tone = TONES["busy"]
    return (
        f'<svg role="img" aria-label="{attribute(title)}" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'style="max-width: 100%; vertical-align: bottom"><title>{text(title)}</title>'
        f'<polygon points="0,{height} {points} {width},{height}" style="fill: {tone}; opacity: 0.18"></polygon>'
        f'<polyline points="{points}" style="fill: none; stroke: {tone}; stroke-width: 1.5; stroke-linejoin: round"></polyline>'
        f'<line x1="0" y1="{height - 0.5}" x2="{width}" y2="{height - 0.5}" style="stroke: {LINE}"></line></svg> '
        f"{faint(text(beside))}"
    )
