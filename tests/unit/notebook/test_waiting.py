"""Who waits at a terminal sees how far it is; who does not have one has nothing written to."""

from __future__ import annotations

import io

from labxchange.node.values import TransferInfo
from labxchange.notebook.waiting import Line, told
from tests.unit.cli.fake import sample


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def half(**changed: object) -> TransferInfo:
    given = {"title": "Trial", "state": "running", "bytes": 6_000_000, "done_bytes": 2_700_000, "rate": 2_000_000, "eta": 2}
    info: TransferInfo = sample(TransferInfo, **(given | changed))
    return info


def test_the_line_says_how_far_it_is_and_goes_again() -> None:
    out = Terminal()
    line = Line(out)
    line.show(half())
    line.show(half(done_bytes=2_800_000))
    assert out.getvalue() == "\r“Trial”: 45 %, 2.7 MB of 6.0 MB, 2.0 MB/s, 2 s left", "not for every notice"
    width = len(out.getvalue()) - 1
    line.close()
    assert out.getvalue().endswith("\r" + " " * width + "\r")


def test_nothing_is_written_where_no_terminal_is() -> None:
    out = io.StringIO()
    line = Line(out)
    line.show(half())
    line.close()
    assert out.getvalue() == ""


def test_what_does_not_move_says_so() -> None:
    waits = half(state="waiting", reason="peer-offline", rate=0, eta=-1, title="\x1b[2JTrial")
    assert told(waits).endswith(": 45 %, 2.7 MB of 6.0 MB, waiting (peer-offline)")
    assert "\x1b" not in told(waits)
