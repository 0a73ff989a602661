"""How fast it is here: `python -m tests.bench` measures, `python -m tests.bench report RUN.json [BEFORE.json]` writes the page.

Measuring prints each run as it ends, then the table: every path of ``rows.py`` that the network can be, time against its bound,
goodput against the link, CPU and memory of each side, and in the same run the peers that are installed. The exit code is 1 when
one of our own runs failed, delivered other bytes, or fell back to the slow plane; a missed bar is shown, not an error.

Limited paths need two network namespaces (root) and an emulator: `--netlab PROGRAM` (or LABXCHANGE_NETLAB), else `tc netem`.
Without them only the loopback rows are run. Quick: `--scale 0.03 --rows lan,loss1 --repeat 1 --window 30 --peers none`.
"""

from __future__ import annotations

import argparse
import os
import platform
import pwd
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

import labxchange
from labxchange.settings import SOFTWARE
from tests.bench import network, peers, report, rows
from tests.bench.measure import OURS, Bench, Run, workspace
from tests.bench.nodes import ROOT
from tests.bench.processes import Account

LANES = "lanes"
_DATAGRAMS_MIN = 8


def account() -> Account:
    """Whom nodes run as: oneself, or for root an account without privileges that can run this Python, or root without them."""
    if os.geteuid() != 0:
        return Account(uid=os.getuid(), gid=os.getgid(), prefix=(), said=f"uid {os.getuid()}")
    drop = ("setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
    nobody = pwd.getpwnam("nobody")
    prefix = (*drop, f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups")
    code = "import sys, labxchange.node.daemon; print(sys.base_prefix)"
    told = subprocess.run([*prefix, sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=False)
    if told.stdout.strip() == sys.base_prefix:
        return Account(uid=nobody.pw_uid, gid=nobody.pw_gid, prefix=prefix, said="nobody, without capabilities")
    return Account(uid=0, gid=0, prefix=drop, said="root without any capability (nobody cannot run this Python)")


def machine() -> dict[str, str]:
    """What a reader has to know of the machine; not its name."""
    facts = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((text.partition(": ")[2] for text in facts.splitlines() if text.startswith("model name")), platform.machine())
    limit = network.socket_limit_bytes()
    return {
        "processor": f"{os.cpu_count()} x {model}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / rows.GIB:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "software": f"{SOFTWARE} {_revision()}".strip(),
        "load before": f"{os.getloadavg()[0]:.1f}",
        "net.core.rmem_max; ours on limited paths; all on others": f"{limit:,}, {rows.SOCKET_BYTES:,}, {rows.TUNED_BYTES:,}",
    }


def _revision() -> str:
    """The commit of the source that is measured, which PYTHONPATH may have chosen: an older one, to compare with."""
    place = Path(labxchange.__file__).parent
    told = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=place, capture_output=True, text=True, check=False)
    return told.stdout.strip()


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.partition("\n")[0] if __doc__ else "")
    add = made.add_argument
    add("--rows", default="", help=f"of {','.join(rows.BY_NAME)}; all that the network can be when not given")
    add("--peers", default="", help=f"of {','.join(peers.BY_NAME)}, or none; all that are installed when not given")
    add("--cc", default="cubic,bbr", help="TCP congestion controls of the peers")
    add("--repeat", type=int, default=3, help="runs of each; the median stands for them")
    add("--scale", type=float, default=1.0, help="share of each row's bytes or files")
    add(
        "--window",
        type=float,
        default=60.0,
        help="seconds after which a run is stopped and extrapolated; ours has twice its bound",
    )
    add("--netlab", default=os.environ.get("LABXCHANGE_NETLAB", ""), help="an emulator with `up`, `exec HOST` and `down`")
    add("--require-lanes", action=argparse.BooleanOptionalAction, default=True, help="a fallback is a failure")
    add("--note", default="", help="what a reader of the result has to know")
    add("--json", type=Path, help="write everything here")
    add("--plot", type=Path, help="write a PNG here")
    return made


def _chosen(given: str, known: dict[str, object]) -> list[str]:
    names = [name for name in given.split(",") if name]
    if wrong := [name for name in names if name not in known]:
        raise SystemExit(f"unknown: {', '.join(wrong)}; there are {', '.join(known)}")
    return names


def choose_rows(given: str, net: network.Network, *, scale: float) -> list[rows.Row]:
    """The rows asked for, or all that the network can be; the loopback row only where there is nothing better."""
    names = _chosen(given, dict(rows.BY_NAME))
    able = [row for row in rows.ROWS if net.carries(row.path) and (row.name == "loopback") == isinstance(net, network.Loopback)]
    found = [rows.BY_NAME[name] for name in names] or able
    if wrong := [row.name for row in found if row not in able]:
        raise SystemExit(f"{net.name} cannot be the path of {', '.join(wrong)}; give --netlab, or a kernel with netem")
    return [rows.scaled(row, scale) for row in found]


def choose_peers(given: str) -> tuple[list[peers.Peer], dict[str, str]]:
    """Peers to run, and those that cannot be with what they lack."""
    names = [] if given == "none" else _chosen(given, dict(peers.BY_NAME)) or list(peers.BY_NAME)
    lacking = {name: lack for name in names if (lack := peers.missing(peers.BY_NAME[name]))}
    missing = {name: f"{', '.join(lack)} not installed" for name, lack in lacking.items()}
    return [peers.BY_NAME[name] for name in names if name not in lacking], missing


def measure(given: argparse.Namespace, command: str) -> report.Document:
    net = network.Loopback() if given.rows == "loopback" else network.choose(given.netlab)
    chosen = choose_rows(given.rows, net, scale=given.scale)
    others, missing = choose_peers(given.peers)
    controls = [name for name in given.cc.split(",") if name in network.controls()]
    if isinstance(net, network.Loopback):
        others, controls = [], []
        missing["peers"] = "none on the loopback address: they need a host of their own"
    who, facts, started = account(), machine(), datetime.now(UTC)
    print(f"{net.name}; nodes run as {who.said}; rows {', '.join(row.name for row in chosen)}", flush=True)
    if isinstance(net, network.Loopback):
        print(
            "No network of our own here: only the loopback address. Limited paths need root, and --netlab or netem.", flush=True
        )
    document = report.Document(
        command=command,
        started=f"{started:%Y-%m-%d %H:%M} UTC",
        note=given.note,
        machine=facts,
        network=net.name,
        account=who.said,
        scale=given.scale,
        repeat=given.repeat,
        window_s=given.window,
        missing=missing,
        rows=(),
        runs=(),
    )
    for row in chosen:
        joined = [peer for peer in others if peer.joins(row)]
        with workspace(large_pages=not row.path.rate_mbit) as place:
            bench = Bench(net, account=who, place=place, window_s=given.window)
            runs = bench.row(row, peers=joined, controls=controls, repeat=given.repeat, told=_tell)
        document = msgspec.structs.replace(document, rows=(*document.rows, row), runs=(*document.runs, *runs))
        if given.json:
            report.save(document, given.json)  # a long run that is ended early keeps what it has
    return document


def _tell(run: Run) -> None:
    print(report.line(run), flush=True)


def failures(document: report.Document, *, require_lanes: bool) -> list[str]:
    """What makes the exit code 1: only what is wrong, not what is slow."""
    found = []
    for run in document.runs:
        if run.what != OURS:
            continue
        name = f"{run.row} {run.repeat}"
        if run.error:
            found.append(f"{name}: {run.error}")
        elif require_lanes and run.plane and run.plane != LANES:
            found.append(f"{name}: the bytes went over {run.plane}, not over lanes: {run.plane_reason or 'no reason told'}")
        elif run.row == "joined" and run.datagrams_per_call is not None and run.datagrams_per_call < _DATAGRAMS_MIN:
            found.append(f"{name}: {run.datagrams_per_call} datagrams a call on the listening side, at least {_DATAGRAMS_MIN}")
    return found


def spoken(words: Sequence[str]) -> str:
    """The command for the record: where things lie on this machine is left out."""
    short = []
    for word in words:
        option, equals, value = word.partition("=")
        short.append(f"{option}={Path(value).name}" if equals and "/" in value else Path(word).name if "/" in word else word)
    return shlex.join(["python", "-m", "tests.bench", *short])


def write_report(words: Sequence[str]) -> int:
    made = argparse.ArgumentParser(prog="python -m tests.bench report")
    made.add_argument("run", type=Path)
    made.add_argument("before", type=Path, nargs="?")
    made.add_argument("--out", type=Path, default=ROOT / "docs" / "performance.md")
    given = made.parse_args(words)
    document, before = report.load(given.run), report.load(given.before) if given.before else None
    plot = given.out.with_suffix(".png")
    report.draw(document, plot, before=before)
    inputs = [path.resolve().relative_to(ROOT) for path in (given.run, given.before) if path is not None]
    made_by = shlex.join(["report", *map(str, inputs)])
    given.out.write_text(report.page(document, before=before, plot=plot.name, made_by=made_by), encoding="utf-8")
    print(f"{given.out}, {plot}")
    return 0


def main(words: Sequence[str]) -> int:
    if words[:1] == ["report"]:
        return write_report(words[1:])
    given = parser().parse_args(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was changed on the machine is put back
    document = measure(given, spoken(words))
    print(f"\n{report.text(document)}")
    if given.plot:
        report.draw(document, given.plot)
    wrong = failures(document, require_lanes=given.require_lanes)
    for text in wrong:
        print(f"FAILED {text}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
