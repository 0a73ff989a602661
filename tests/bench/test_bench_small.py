"""The benchmark itself: its arithmetic is right, its text says what the numbers say, and it runs end to end on loopback."""

from __future__ import annotations

import asyncio
import math
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.bench import __main__ as bench
from tests.bench import measure, network, payload, peers, report, rows
from tests.bench.measure import Run, Use
from tests.bench.nodes import ROOT, rate_at_the_end
from tests.bench.processes import Side, sample
from tests.bench.rows import GIB, MIB, Bar, Row
from tests.bench.rows import Path as Wire
from tests.support.nodes import wait_for

LOSSY = rows.BY_NAME["loss1"]


def run_of(row: Row, **changes: Any) -> Run:
    use = Use(cpu_s_per_gib=1.5, all_mib=200, process_mib=120)
    made = Run(
        row=row.name,
        what="labxchange",
        control="",
        repeat=1,
        bytes=2 * GIB,
        files=1,
        seconds=18.0,
        complete=True,
        intact=True,
        goodput_mbit=954.0,
        sender=use,
        receiver=use,
        plane="lanes",
    )
    return msgspec.structs.replace(made, **changes)


def document(*runs: Run, chosen: tuple[Row, ...] = (LOSSY,)) -> report.Document:
    return report.Document(
        command="python -m tests.bench",
        started="2026-01-01 00:00 UTC",
        note="",
        machine={"processor": "one"},
        network="none",
        account="nobody",
        scale=1,
        repeat=3,
        window_s=60,
        missing={},
        rows=chosen,
        runs=runs,
    )


# --- arithmetic -------------------------------------------------------------------------------------------------------
def test_the_bound_is_the_one_of_the_design() -> None:
    """1 Gbit/s, MTU 1500, 1 %: 1436 of 1500 bytes are the file's, 99 of 100 arrive, 2 % and 12 round trips are for the rest."""
    ceiling = 1000 * 1436 / 1500 * 0.99
    assert math.isclose(LOSSY.path.ceiling_mbit, ceiling)
    assert math.isclose(rows.bound_s(LOSSY.path, 2 * GIB), 2 * GIB * 8 / (0.98 * ceiling * 1e6) + 1.2)
    assert rows.bound_s(Wire(), GIB) == math.inf


def test_every_row_has_its_own_name_and_can_be_made_smaller() -> None:
    assert len(rows.BY_NAME) == len(rows.ROWS)
    for row in rows.ROWS:
        small = rows.scaled(row, 0.01)
        assert small.files * small.largest_bytes < row.files * row.largest_bytes
        assert small.files <= row.files
        assert small.duration_s <= row.duration_s
        if row.kind == "flow":  # there is enough to send until the end, whoever else sends
            assert small.largest_bytes * 8 > small.path.rate_mbit * 1e6 * small.duration_s


@pytest.mark.parametrize(
    ("bar", "changes", "holds"),
    [
        (Bar(bound=True), {"seconds": 19.0}, True),
        (Bar(bound=True), {"seconds": 20.0}, False),
        (Bar(of_link=0.80), {"goodput_mbit": 800.0}, True),
        (Bar(of_link=0.80), {"goodput_mbit": 799.0}, False),
        (Bar(goodput_mbit=4000), {"goodput_mbit": 4000.0}, True),
        (Bar(seconds=300), {"seconds": 200.0, "listed_s": 101.0}, False),
        (Bar(cpu_s_per_gib=2.2), {}, True),
        (Bar(cpu_s_per_gib=1.4), {}, False),
        (Bar(process_mib=100), {}, False),
        (Bar(datagrams_per_call=8), {}, False),
        (Bar(datagrams_per_call=8), {"datagrams_per_call": 27.3}, True),
        (Bar(spread=0.2), {"spread": 0.21}, False),
        (Bar(bound=True), {"seconds": 19.0, "queue_drops": 10_000_000}, False),
        (Bar(share=1 / 3), {"share": 0.6, "other_share": 0.3}, False),
        (Bar(share=0.25), {"share": 0.6, "other_share": 0.3}, True),
    ],
)
def test_a_bar_is_judged_by_its_number(bar: Bar, changes: dict[str, Any], holds: bool) -> None:
    row = msgspec.structs.replace(LOSSY, bar=bar)
    found = measure.judge(row, run_of(row, **changes))
    assert found
    assert all(verdict.holds for verdict in found) is holds


def test_a_run_that_was_stopped_is_extrapolated_from_its_second_half() -> None:
    samples = [(0.0, 0), (5.0, 10), (10.0, 110)]
    assert rate_at_the_end(samples) == 20
    assert measure.extrapolated_s(10.0, samples=samples, wanted=310) == 20.0
    assert measure.extrapolated_s(10.0, samples=[(0.0, 0), (10.0, 0)], wanted=1) == math.inf


def test_the_median_stands_for_its_runs_and_complete_ones_go_first() -> None:
    runs = [run_of(LOSSY, seconds=seconds) for seconds in (30.0, 10.0, 20.0)]
    assert (found := report.median(runs)) is not None
    assert found.seconds == 20.0
    assert (found := report.median([*runs, run_of(LOSSY, seconds=1.0, complete=False)])) is not None
    assert found.seconds == 20.0
    assert report.median([run_of(LOSSY, error="broken")]) is None


def test_only_what_is_wrong_fails() -> None:
    slow, fell_back = run_of(LOSSY, seconds=1000.0), run_of(LOSSY, plane="quic-stream")
    peer = run_of(LOSSY, what="scp", error="no server")
    assert bench.failures(document(slow, peer), require_lanes=True) == []
    assert bench.failures(document(fell_back), require_lanes=False) == []
    assert "not over lanes" in bench.failures(document(fell_back), require_lanes=True)[0]
    assert "the bytes differ" in bench.failures(document(run_of(LOSSY, error="the bytes differ")), require_lanes=False)[0]
    joined = rows.BY_NAME["joined"]
    assert "datagrams" in bench.failures(document(run_of(joined, datagrams_per_call=1.0)), require_lanes=True)[0]


# --- what is measured with --------------------------------------------------------------------------------------------
def test_cpu_time_and_memory_are_those_of_the_whole_tree(tmp_path: Path) -> None:
    """A shell whose child works half a second of CPU time and holds 64 MiB: counted while it runs, and when it has ended."""
    worked, go_on = tmp_path / "worked", tmp_path / "go-on"
    for pipe in (worked, go_on):
        os.mkfifo(pipe)
    code = (
        "import sys, time; held = bytearray(64 << 20)\n"
        "while time.process_time() < 0.5: pass\n"
        "open(sys.argv[1], 'w').write('yes'); open(sys.argv[2]).read()"
    )
    side = Side()
    side.begin()
    words = ["sh", "-c", '"$@"; true', "sh", sys.executable, "-c", code, str(worked), str(go_on)]
    shell = side.start(words, log=tmp_path / "log")
    try:
        assert worked.read_text() == "yes"
        sample([side])
        assert 0.4 < side.cpu_s() < 5
        assert 64 * MIB < side.peak_process_bytes < side.peak_sum_bytes < 400 * MIB
        go_on.write_text("go on")
        shell.wait(20)
        assert shell.ended()
        assert 0.4 < side.cpu_s() < 5
    finally:
        side.stop()


def test_payloads_are_the_same_each_time_and_a_changed_byte_is_seen(tmp_path: Path) -> None:
    row = rows.scaled(rows.BY_NAME["tree"], 0.006)
    totals = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        totals.append(payload.make(row, tmp_path / name))
    assert totals[0] == totals[1]
    assert row.files * 4096 < totals[0] < row.files * 65_536
    one, two = tmp_path / "one" / "tree", tmp_path / "two" / "tree"
    assert payload.same(one, two)
    last = two.parent / payload.relative(row, row.files - 1)
    content = bytearray(last.read_bytes())
    content[-1] ^= 1
    last.write_bytes(content)
    assert not payload.same(one, two)
    last.unlink()
    assert not payload.same(one, two)


def test_an_emulator_is_told_the_path_and_its_counters_are_kept(tmp_path: Path) -> None:
    program, told = tmp_path / "lab", tmp_path / "told"
    program.write_text(f'#!/bin/sh\necho "$@" >> {told}\n[ $1 != down ] || echo \'{{"queue_drop": 3}}\'\n')
    program.chmod(0o755)
    net = network.choose(str(program))
    net.up(LOSSY.path, control="bbr", seed=2)
    assert net.command("b", ["true"]) == [str(program), "exec", "b", "true"]
    assert net.down() == [{"queue_drop": 3}]
    net.up(rows.BY_NAME["veth9000"].path)
    path = "--rtt 100 --rate 1000 --loss 0.010000 --queue-ms 50 --seed 2"
    assert told.read_text().splitlines() == [f"up --cc bbr {path}", "down", "up --plain --mtu 9000"]
    with pytest.raises(OSError, match="not a program"):
        network.choose(str(tmp_path / "nothing"))


def test_the_commands_of_peers_can_be_filled_in() -> None:
    words = dict.fromkeys(("a", "b", "src", "dst", "etc", "rate", "python", "files", "bytes", "mtu", "known"), "x")
    for peer in peers.PEERS:
        for command in (peer.file, peer.tree, *(server.command for server in peer.servers)):
            assert "{" not in command.format(**words)
    assert peers.missing(msgspec.structs.replace(peers.PEERS[0], needs=("no-such-program",))) == ["no-such-program"]


@pytest.mark.parametrize("mtu", [1500, 9000])
def test_the_primitives_move_a_file(tmp_path: Path, mtu: int) -> None:
    source, target = tmp_path / "file.bin", tmp_path / "received"
    source.write_bytes(random.Random(7).randbytes(9_000_123))
    address = f"127.0.{os.getpid() % 250 + 1}.9"
    words = [sys.executable, "-m", "tests.bench.primitives"]

    def start(side: str, path: Path) -> subprocess.Popen[bytes]:
        given = [side, address, str(path), str(source.stat().st_size), str(mtu), str(tmp_path)]
        return subprocess.Popen([*words, *given], cwd=ROOT)

    started = [start("receive", target)]
    try:
        asyncio.run(wait_for((tmp_path / "receiving").exists, what="the receiver"))
        started.append(start("send", source))
        asyncio.run(wait_for((tmp_path / "sending").exists, what="the sender"))
        subprocess.run(["sh", "-c", "echo > go; cat done"], cwd=tmp_path, check=True, timeout=60)
        assert [process.wait(60) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert target.read_bytes() == source.read_bytes()


def test_the_primitives_stand_beside_ours_and_are_no_peer() -> None:
    row = rows.BY_NAME["veth1500"]
    assert [peer.name for peer in peers.PEERS if peer.joins(row) and not peer.joins(LOSSY)] == [rows.FLOOR]
    floor = run_of(row, what=rows.FLOOR, goodput_mbit=4000.0)
    text = report.page(document(run_of(row, goodput_mbit=3000.0), floor, chosen=(row,)))
    assert "| no limit, MTU 1500 | 4,000 | 4,000 | 1.50 + 1.50 | 3,000 | 1.50 + 1.50 | 75% |" in text
    assert "ahead of" not in text


def test_the_record_of_a_command_names_no_place() -> None:
    assert (
        bench.spoken(["--netlab", "/opt/lab/netlab", "--json=/tmp/x.json"])
        == "python -m tests.bench --netlab netlab --json=x.json"
    )


# --- what is shown ----------------------------------------------------------------------------------------------------
def test_the_page_shows_what_was_measured() -> None:
    slow = run_of(LOSSY, plane="quic-stream", seconds=400.0, goodput_mbit=42.9)
    peer = run_of(LOSSY, what="aria2-16", control="bbr", goodput_mbit=837.0, complete=False)
    before, after = document(slow), document(run_of(LOSSY), peer)
    text = report.page(after, before=before)
    assert "| 1 Gbit/s, 100 ms, 1 % | 2 GiB | 18 | 19.7 | 954 | 95.4% | 1.50 + 1.50 | 120 / 120 | - |" in text
    assert "| aria2-16 bbr | ~837 |" in text
    assert "| 1 Gbit/s, 100 ms, 1 % | 42.9 | 954 | 22.2 | quic-stream | lanes |" in text
    assert "loss1: ahead of all" in text
    assert "loss1: not ahead of scp" in report.page(document(slow, msgspec.structs.replace(peer, what="scp", control="")))
    assert "seconds 400 MISSED" in report.page(before)
    assert "aria2-16 bbr" in report.text(after)


def test_the_committed_page_is_made_from_the_committed_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page names the words that make it; said again they make the same one."""
    page = ROOT / "docs" / "performance.md"
    text = page.read_text(encoding="utf-8")
    words = re.findall(r"`python -m tests[.]bench report ([^`]+)`", text)[0].split()
    monkeypatch.setattr(report, "draw", lambda *_, **__: None)
    assert bench.write_report([*(str(ROOT / word) for word in words), "--out", str(tmp_path / page.name)]) == 0
    assert (tmp_path / page.name).read_text(encoding="utf-8") == text


def test_a_document_survives_its_file(tmp_path: Path) -> None:
    made = document(run_of(LOSSY), run_of(rows.BY_NAME["ten"], spread=0.1), chosen=(LOSSY, rows.BY_NAME["ten"]))
    report.save(made, tmp_path / "run.json")
    assert report.load(tmp_path / "run.json") == made


# --- end to end -------------------------------------------------------------------------------------------------------
@pytest.fixture
def place() -> Iterator[Path]:
    with measure.workspace(large_pages=True) as folder:
        yield folder


@pytest.mark.parametrize(("name", "files", "size"), [("tree", 40, 5000), ("ten", 3, MIB)])
def test_two_nodes_on_the_loopback_address_are_measured(place: Path, name: str, files: int, size: int) -> None:
    row = msgspec.structs.replace(
        rows.BY_NAME[name],
        path=Wire(),
        bar=Bar(seconds=300, process_mib=1024),
        files=files,
        smallest_bytes=size,
        largest_bytes=size,
    )
    made = measure.Bench(network.Loopback(), account=bench.account(), place=place, window_s=60)
    told: list[Run] = []
    runs = made.row(row, peers=[], controls=[], repeat=1, told=told.append)
    assert runs == told
    run = runs[0]
    assert (run.error, run.complete, run.intact) == ("", True, True)
    assert run.bytes == files * size
    assert run.seconds > 0
    assert math.isclose(run.goodput_mbit, run.bytes * 8 / run.seconds / 1e6, abs_tol=0.01)
    assert (run.plane, run.plane_reason) == ("lanes", "")
    assert run.sender is not None
    assert run.receiver is not None
    for use in (run.sender, run.receiver):
        assert use.cpu_s_per_gib > 0
        assert 20 < use.process_mib <= use.all_mib < 2000
    assert all(verdict.holds for verdict in measure.judge(row, run))
    assert not list(place.iterdir()), "something was left behind"


def test_other_bytes_are_not_passed_as_a_good_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "same", lambda source, destination: False)
    row = rows.scaled(rows.BY_NAME["loopback"], 0)
    made = measure.Bench(network.Loopback(), account=bench.account(), place=place, window_s=60)
    (run,) = made.row(row, peers=[], controls=[], repeat=1, told=lambda run: None)
    assert (run.intact, run.error) == (False, "the bytes differ")
