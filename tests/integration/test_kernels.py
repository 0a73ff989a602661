"""Kernels that are real processes, over real nodes: interrupted, killed, two at a time; the node stopped, locked, absent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labxchange.node.client import run
from labxchange.node.values import TransferInfo
from labxchange.node.verbs import Verbs
from tests.integration.conftest import homes
from tests.integration.kernel import Failed, Kernel
from tests.integration.test_two_nodes import ended, leave, offered, pair, state
from tests.support.world import write_files

MEGABYTE = 1_000_000


class Stage:
    """Ada, who shares, and Bo, who receives in two kernels."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.ada, self.bo = run(pair(place))
        self.first, self.second = Kernel(self.bo), Kernel(self.bo)

    def share(self, title: str) -> None:
        """Enough for a minute at a megabyte a second, and next to nothing without a limit."""
        folder = self.place / title
        write_files(folder, {"adsl.csv": b"USUBJID,AGE\n" + b"01-701-1015,63\n" * 1000, "images.bin": bytes(60 * MEGABYTE)})
        made = run(self.ada.client.call(Verbs.share_create, paths=[str(folder)], to=["Bo"], title=title))
        run(offered(self.bo, made))

    def received(self, title: str) -> list[TransferInfo]:
        return [info for info in run(self.bo.client.call(Verbs.transfer_list)) if info.title == title]

    def reaches(self, title: str, reached: Callable[[TransferInfo], bool]) -> TransferInfo:
        return run(state(self.bo, self.received(title)[0].transfer, reached))

    def close(self) -> None:
        for kernel in (self.first, self.second):
            kernel.close()
        run(leave(self.ada, self.bo))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with homes(tmp_path_factory.mktemp("kernels")) as place:
        made = Stage(place)
        yield made
        made.close()


@pytest.fixture(autouse=True)
def looks_away(stage: Stage) -> None:
    stage.first.clear()
    stage.second.clear()


def test_an_interrupt_stops_the_wait_and_not_the_transfer(stage: Stage) -> None:
    stage.share("Waiting")
    kernel = stage.first
    kernel.run(f"received = lx.receive('Waiting', rate={MEGABYTE})")
    for wait in ("received.load('adsl.csv')", "await received", "received.wait()"):
        cell = kernel.begin(f"print('begun', flush=True)\n{wait}")
        kernel.until(lambda cell=cell: "begun" in kernel.printed(cell), what="the cell to begin")  # type: ignore[misc]
        before = stage.reaches("Waiting", lambda info: info.state == "running" and info.done_bytes > 0).done_bytes
        kernel.interrupt()
        with pytest.raises(Failed) as stopped:
            kernel.finish(cell)
        assert stopped.value.name in ("KeyboardInterrupt", "CancelledError"), wait
        assert stage.reaches("Waiting", lambda info, before=before: info.done_bytes > before).state == "running"  # type: ignore[misc]
    assert "running" in kernel.run("print(received)")
    kernel.run("received.limit(rate=0)")
    assert kernel.run("received.load('adsl.csv').shape") == "(1000, 2)"


def test_two_kernels_show_one_transfer(stage: Stage) -> None:
    stage.share("Both")
    first, second = stage.first, stage.second
    first.run(f"both = lx.receive('Both', rate={MEGABYTE})")
    second.run("lx.transfers()[-1]")
    for kernel in (first, second):
        kernel.until(lambda kernel=kernel: "running" in kernel.shown() and "Both" in kernel.shown(), what="the transfer")  # type: ignore[misc]
    first.press("Pause")
    second.until(lambda: "paused" in second.shown(), what="the pause of the other")
    second.press("Resume")
    first.until(lambda: "running" in first.shown() and "Pause" in first.buttons(), what="the other's resuming")
    second.run("unlimited = lx.transfers()[-1].limit(rate=0)")
    for kernel in (first, second):
        kernel.until(lambda kernel=kernel: "signed by both" in kernel.shown(), what="the end")  # type: ignore[misc]
        assert "Both" not in kernel.shown()
        assert not kernel.buttons()

    stage.share("Given up")
    first.clear()
    first.run(f"given = lx.receive('Given up', rate={MEGABYTE})")
    second.clear()
    second.run("lx.transfers()[-1]")
    second.press("Cancel")
    second.press("Really cancel")
    for kernel in (first, second):
        kernel.until(lambda kernel=kernel: "cancelled" in kernel.shown() and not kernel.buttons(), what="the cancelling")  # type: ignore[misc]
    assert "cancelled" in first.run("print(given)")


def test_two_kernels_receive_one_share_at_once(stage: Stage) -> None:
    stage.share("Twice")
    cells = [(kernel, kernel.begin("twice = lx.receive('Twice')")) for kernel in (stage.first, stage.second)]
    for kernel, cell in cells:
        kernel.finish(cell)
    assert stage.first.run("print(twice.id)") == stage.second.run("print(twice.id)")
    for kernel in (stage.first, stage.second):
        assert "intact" in kernel.run("print(twice.wait().report.verdict)")
    assert len(stage.received("Twice")) == 1


def test_a_killed_kernel_leaves_its_transfer_running(stage: Stage) -> None:
    stage.share("Orphan")
    stage.second.run(f"lx.receive('Orphan', rate={MEGABYTE})")
    stage.reaches("Orphan", lambda info: info.done_bytes > 0)
    stage.second.kill()
    before = stage.received("Orphan")[0]
    assert before.state == "running"
    assert stage.reaches("Orphan", lambda info: info.done_bytes > before.done_bytes).state == "running"
    stage.second.close()
    stage.second = Kernel(stage.bo)
    stage.second.run("found = [one for one in lx.transfers() if one.status.title == 'Orphan'][0].limit(rate=0)")
    assert "01-701-1015" in stage.second.run("print(found.load('adsl.csv').head(1))")


def test_a_display_says_that_the_node_stopped_or_is_locked_and_comes_alive_again(stage: Stage) -> None:
    stage.share("Through it all")
    kernel = stage.first
    kernel.run(f"through = lx.receive('Through it all', rate={MEGABYTE})")
    kernel.until(lambda: "running" in kernel.shown(), what="the transfer")
    run(stage.bo.stop())
    kernel.until(lambda: "The node is not running." in kernel.shown(), what="the display to say that it stopped")

    # The credential is out of reach when the node comes back: it stays locked, and nothing asks for a passphrase.
    away = stage.bo.credential.rename(stage.place / "away")
    assert run(stage.bo.client.call(Verbs.key_show)).locked
    kernel.until(lambda: "The node is locked" in kernel.shown(), what="the display to say that it is locked")
    for call in ("lx.receive('Through it all')", "through.load('adsl.csv')", "lx.share('.', to='Ada')", "lx.audit()"):
        with pytest.raises(Failed) as locked:
            kernel.run(call)
        assert locked.value.name == "NodeLocked", call
        assert "labxchange node unlock" in str(locked.value), "what to do next is shown"
    assert not kernel.asked

    away.rename(stage.bo.credential)
    run(stage.bo.client.call(Verbs.unlock, credential_file=str(stage.bo.credential)))
    kernel.run("through.limit(rate=0)")
    kernel.until(lambda: "signed by both" in kernel.shown(), what="the display to come alive, and the end")
    run(ended(stage.bo, stage.received("Through it all")[0].transfer))


def test_a_node_that_is_absent_is_started(stage: Stage) -> None:
    run(stage.bo.stop())
    assert "Through it all" in stage.first.run("print(lx.inbox())")
    assert stage.bo.pid
