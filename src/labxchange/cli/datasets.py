"""`labxchange dataset`: look at data on this computer, and verify it again any time later."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labxchange import times
from labxchange.cli import reach, screen
from labxchange.cli.exit_codes import ExitCode
from labxchange.cli.options import AsJson, example, group
from labxchange.cli.transfers import draw_report
from labxchange.errors import InputError

if TYPE_CHECKING:
    from labxchange.dataset.check import Report
    from labxchange.node.datasets import DatasetShown

app = group("Data on this computer: look at it, and verify it again any time later.")


def _draw(shown: DatasetShown) -> None:
    screen.fields(
        [
            ("files", f"{shown.files:,}"),
            ("size", f"{screen.size(shown.bytes)} ({shown.bytes:,} bytes)"),
            ("empty folders", f"{shown.folders_empty:,}" if shown.folders_empty else ""),
            ("newest", times.moment(shown.newest)),
            ("kinds", ", ".join(f"{kind}: {count:,}" for kind, count in shown.kinds)),
        ]
    )
    for path, why in shown.skipped:
        screen.line(f"would not be shared: {path}: {why}")
    if shown.listed:
        screen.table(["size", "file"], [(screen.size(file.size), file.path) for file in shown.listed], empty="")


def _draw_sums(shown: DatasetShown) -> None:
    """The form of ``sha256sum``, so that it can be kept and checked with either program."""
    for file in shown.listed:
        if file.sha256:
            screen.line(f"{file.sha256}  {file.path}")
        elif file.reason:
            screen.remark(f"not read: {file.path}: {file.reason}")
    for path, why in shown.skipped:
        screen.remark(f"would not be shared: {path}: {why}")
    screen.remark(f"{screen.number(shown.files, 'file')}, {screen.size(shown.bytes)}")


@contextmanager
def _reading(title: str, total: Callable[[], int], *, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    """A bar while bytes are read, when somebody watches."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as display:
        task = display.add_task(title, total=max(1, total()))
        yield lambda count: display.advance(task, count)


@app.command(epilog=example("labxchange dataset show data/sdtm", "labxchange dataset show data/sdtm --digests > SHA256SUMS"))
def show(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="A folder, or several files and folders.")],
    listed: Annotated[bool, typer.Option("--list", help="List every file.")] = False,
    digests: Annotated[bool, typer.Option("--digests", help="Read every file and print its SHA-256, as sha256sum does.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what sharing these files would share, and what it would leave out. No node is needed; nothing is sent."""
    from labxchange.node.datasets import show_dataset, total_bytes

    found = [Path(path) for path in paths]
    with _reading("reading", lambda: total_bytes(found), quiet=as_json or not digests) as advance:
        shown = show_dataset(found, listed=listed, digests=digests, advance=advance)
    screen.show(shown, _draw_sums if digests else _draw, as_json=as_json)
    if shown.unread:
        raise typer.Exit(ExitCode.INTEGRITY)


@app.command(
    epilog=example(
        "labxchange dataset verify data/sdtm",
        "labxchange dataset verify /archive/sdtm --transfer 8c01d2",
        "labxchange dataset verify data/sdtm --sums SHA256SUMS",
    )
)
def verify(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where the files are.")],
    transfer: Annotated[
        str, typer.Option("--transfer", metavar="ID", help="The transfer they came with, if they were moved.")
    ] = "",
    sums: Annotated[str, typer.Option("--sums", metavar="FILE", help="A list made by sha256sum, instead of a transfer.")] = "",
    as_json: AsJson = False,
) -> None:
    """Read received files again and compare them with the manifest that the sender signed.

    Every byte is read. The report names each file that differs, is missing or is not listed, and each check that did not run.
    With --sums the files are compared with a list of SHA-256 digests instead, and no node is needed. The exit code is 4 when a
    file is not as it should be.
    """
    if sums and transfer:
        raise InputError("options-exclusive", "Give --transfer or --sums, not both.")
    report = _against_sums(folder, sums, as_json=as_json) if sums else _against_manifest(folder, transfer, as_json=as_json)
    if report.verdict == "not-intact":
        raise typer.Exit(ExitCode.INTEGRITY)


def _against_sums(folder: str, sums: str, *, as_json: bool) -> Report:
    from labxchange.node.datasets import check_against_sums, total_bytes

    place = Path(folder)
    with _reading("verifying", lambda: total_bytes([place]), quiet=as_json) as advance:
        report = check_against_sums(place, Path(sums), advance=advance)
    screen.show(report, draw_report, as_json=as_json)
    return report


def _against_manifest(folder: str, transfer: str, *, as_json: bool) -> Report:
    from labxchange.node.verbs import Verbs

    place = reach.absolute(folder)
    received = reach.call(Verbs.dataset_verify, transfer=transfer or _transfer_into(place), folder=place)
    screen.show(received, lambda info: draw_report(info.report), as_json=as_json)
    return received.report


def _transfer_into(place: str) -> str:
    """The newest transfer whose files were put into this folder."""
    from labxchange.node.verbs import Verbs

    real = str(Path(place).resolve())
    found = [info for info in reach.call(Verbs.transfer_list) if info.direction == "in" and info.destination in (place, real)]
    if not found:
        raise InputError(
            "transfer-none",
            "No transfer was received into this folder.",
            hint="Name the transfer with --transfer (`labxchange transfer list` shows them), or give a list with --sums.",
        )
    return found[-1].transfer
