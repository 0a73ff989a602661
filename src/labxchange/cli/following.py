"""Watching a transfer until it ends: a bar on a terminal, a line now and then elsewhere.

It only looks. Ctrl-C pauses the transfer, which goes on where it stopped; whoever wants it to run on uses `--detach`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from labxchange import times
from labxchange.cli import reach, screen

if TYPE_CHECKING:
    from labxchange.node.values import LimitsInfo, PathInfo, TransferInfo

_LOOK_S = 0.4
_AGAIN_S = 0.5
_TELL_S = 15.0
_CLEAR = "\x1b[H\x1b[J"
_LOSS_SHOWN = 0.0005
_COUNTERSIGN_S = 4.0
LIVE = ("waiting", "running")

Watch = Callable[["TransferInfo"], None]


def follow(transfer: str, *, quiet: bool) -> TransferInfo:
    """The transfer at its end: verified, completed, failed, cut, cancelled or paused. ``quiet`` shows nothing meanwhile.

    Raises:
        KeyboardInterrupt: after the transfer was paused.
    """
    from labxchange.node.verbs import Verbs

    waited = 0.0
    with _watching(quiet) as watch:
        try:
            while True:
                info = reach.call(Verbs.transfer_show, transfer=transfer)
                watch(info)
                if info.state not in LIVE and (info.state != "verified" or waited >= _COUNTERSIGN_S):
                    return info
                waited += _LOOK_S if info.state == "verified" else 0.0
                time.sleep(_LOOK_S)
        except KeyboardInterrupt:
            pass
    _pause(transfer, quiet=quiet)
    raise KeyboardInterrupt


def _pause(transfer: str, *, quiet: bool) -> None:
    """Stopped by the person: nothing that is verified is lost."""
    from labxchange.errors import LabxchangeError
    from labxchange.node.verbs import Verbs

    told = f"Paused; what has arrived is kept. Go on with `labxchange transfer resume {transfer[:12]}`."
    try:
        reach.call(Verbs.transfer_pause, transfer=transfer)
    except LabxchangeError as error:
        told = f"{error.message} [{error.code}]"
    if not quiet:
        screen.remark(told)


def progress(info: TransferInfo) -> str:
    """``12.0 GB of 50.0 GB, 340 of 1,200 files, 98.2 MB/s, 6 min 20 s left``."""
    parts = [
        f"{screen.size(info.done_bytes)} of {screen.size(info.bytes)}",
        f"{info.done_files:,} of {screen.number(info.files, 'file')}",
    ]
    if info.reused_bytes:
        parts.append(f"{screen.size(info.reused_bytes)} were there already")
    if info.state == "running" and info.rate:
        parts.append(f"{screen.size(info.rate)}/s")
        if info.eta >= 0:
            parts.append(f"{times.duration(info.eta)} left")
        parts += _pulse(info.path)
    return ", ".join(parts)


def _pulse(path: PathInfo) -> list[str]:
    """How the way does, in a few words: ``20 ms, 0.5 % lost, 2 lanes, limit network``."""
    parts = [f"{path.rtt_ms:.3g} ms"] if path.rtt_ms else []
    if path.loss >= _LOSS_SHOWN:
        parts.append(f"{100 * path.loss:.2g} % lost")
    if path.plane == "lanes":
        parts += [screen.number(path.lanes, "lane")] if path.lanes else []
    elif path.plane:
        parts.append("over QUIC")
    return parts + ([f"limit {path.limit}"] if path.limit else [])


def way(path: PathInfo) -> str:
    """All that is known of the way."""
    if not path.plane:
        return ""
    parts = [f"{path.plane} ({path.reason})" if path.reason else path.plane, path.cipher]
    if path.rate:
        parts.append(f"{screen.size(path.rate)}/s on the wire")
    parts += [part for part in _pulse(path) if part != "over QUIC"]
    if path.resent_bytes:
        parts.append(f"{screen.size(path.resent_bytes)} sent again")
    if path.datagram_bytes:
        parts.append(f"datagrams of {path.datagram_bytes:,} bytes, {path.datagrams_per_call:.1f} a call")
    if path.dropped_here:
        parts.append(f"{path.dropped_here:,} dropped by this machine")
    return ", ".join(part for part in parts if part)


def limits(chosen: LimitsInfo) -> str:
    """What a person chose; nothing where nobody did."""
    parts = [f"at most {screen.size(chosen.rate)}/s"] if chosen.rate else []
    if chosen.priority != "normal":
        parts.append(f"{chosen.priority} priority")
    return ", ".join(parts + ([screen.number(chosen.lanes, "lane")] if chosen.lanes else []))


def look(transfer: str, draw: Callable[[TransferInfo], None]) -> None:
    """Show the transfer anew until it is over, in one place on a terminal; it is left alone."""
    from labxchange.node.verbs import Verbs

    while True:
        info = reach.call(Verbs.transfer_show, transfer=transfer)
        if sys.stdout.isatty():
            sys.stdout.write(_CLEAR)
        draw(info)
        if info.state not in LIVE:
            return
        pause()


def pause() -> None:
    """Between two looks."""
    sys.stdout.flush()
    time.sleep(_AGAIN_S)


def situation(info: TransferInfo) -> str:
    """What a person should know of a transfer that is not running."""
    if info.state == "waiting" and not info.reason:
        return f"connecting to {info.peer}"
    reason = f" ({info.reason})" if info.reason else ""
    return {
        "waiting": f"waiting for {info.peer}{reason}; it goes on by itself",
        "paused": f"paused{reason}",
        "cut": f"ended by the sender's rules{reason}; it goes on if they allow it again",
        "failed": f"failed{reason}",
    }.get(info.state, info.state)


@contextmanager
def _watching(quiet: bool) -> Iterator[Watch]:
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar() as watch:
            yield watch
    else:
        yield _lines()


@contextmanager
def _bar() -> Iterator[Watch]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    # Narrow, so that size, files, rate and time left fit beside it on 80 columns.
    columns = (BarColumn(bar_width=10), TextColumn("{task.percentage:>3.0f} % {task.fields[told]}", markup=False))
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    with Progress(*columns, console=console) as display:
        task = display.add_task("", total=None, told="")

        def watch(info: TransferInfo) -> None:
            text = progress(info) if info.state in ("running", "verified", "completed") else situation(info)
            display.update(
                task,
                total=max(info.bytes, 1),
                completed=info.done_bytes if info.bytes else 1,
                told=screen.printable(text),
            )

        yield watch


def _lines() -> Watch:
    last: list[tuple[str, float]] = []

    def watch(info: TransferInfo) -> None:
        state, now = f"{info.state}{info.reason}", time.monotonic()
        if not last or last[0][0] != state or now - last[0][1] >= _TELL_S:
            last[:] = [(state, now)]
            screen.remark(progress(info) if info.state == "running" else situation(info))

    return watch
