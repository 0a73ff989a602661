"""Every failure becomes a sentence, a hint, a code in brackets and an exit code."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from labxchange.cli import reach
from labxchange.errors import (
    InputError,
    IntegrityError,
    LabxchangeError,
    NodeLocked,
    PeerError,
    RefusedError,
    UnavailableError,
)
from tests.unit.cli.fake import HOSTILE, FakeNode, main

ERRORS: list[tuple[LabxchangeError, int]] = [
    (InputError("a-code", "A sentence.", hint="Do this."), 2),
    (RefusedError("a-code", "A sentence.", hint="Do this."), 3),
    (IntegrityError("a-code", "A sentence.", hint="Do this."), 4),
    (UnavailableError("a-code", "A sentence.", hint="Do this."), 5),
    (PeerError("a-code", "A sentence.", hint="Do this."), 7),
    (LabxchangeError("a-code", "A sentence.", hint="Do this."), 1),
]


@pytest.mark.parametrize(("error", "code"), ERRORS, ids=lambda item: type(item).__name__)
def test_text(error: LabxchangeError, code: int, node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    node.answers["inbox_list"] = error
    assert main(["inbox"]) == code
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "A sentence. [a-code]\nDo this.\n")


@pytest.mark.parametrize(("error", "code"), ERRORS, ids=lambda item: type(item).__name__)
def test_json(error: LabxchangeError, code: int, node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    node.answers["inbox_list"] = error
    assert main(["inbox", "--json"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert json.loads(shown.err) == {"error": {"code": "a-code", "message": "A sentence.", "hint": "Do this.", "exit": code}}


def test_a_locked_node_without_a_person(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    node.answers["inbox_list"] = NodeLocked()
    assert main(["inbox"]) == 6
    assert "labxchange node unlock" in capsys.readouterr().err


def test_a_fault_of_our_own(node: FakeNode, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    node.answers["inbox_list"] = KeyError(HOSTILE)
    assert main(["inbox"]) == 1
    shown = capsys.readouterr().err
    assert "[unexpected]" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    monkeypatch.setenv("LABXCHANGE_TRACEBACK", "1")
    with pytest.raises(KeyError):
        main(["inbox"])


def test_what_an_error_quotes_is_printable(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    node.answers["inbox_list"] = RefusedError("a-code", f"They said {HOSTILE}", hint=HOSTILE)
    assert main(["inbox"]) == 3
    shown = capsys.readouterr().err
    assert shown.count("\n") == 2
    assert "[red]\\u{1b}[31m\\u{202e}gnp\\u{9b}[/red]\\u{a}" in shown


def test_a_command_line_that_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["share", "status", "--nonsense"]) == 2
    assert "[usage]" in capsys.readouterr().err
    assert main(["share", "revoke", "--json"]) == 2
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "usage"
    assert main(["nonsense"]) == 2
    assert "No such command" in capsys.readouterr().err


def test_a_group_alone_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["share"]) == 2
    assert "request-extension" in capsys.readouterr().err


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reach, "call", interrupted)
    assert main(["inbox"]) == 130
    assert main(["inbox", "--json"]) == 130
    assert '"interrupted"' in capsys.readouterr().err


def test_bytes_that_are_not_text(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    node.answers["share_create"] = UnicodeEncodeError("utf-8", "\udc80", 0, 1, "surrogates not allowed")
    assert main(["share", "create", "x", "--to", "\udc80"]) == 2
    assert main(["share", "create", "\udc80", "--to", "Ana"]) == 2
    shown = capsys.readouterr().err
    assert "[text-malformed]" in shown
    assert "[path-not-text]" in shown


def test_a_reader_that_has_seen_enough() -> None:
    code = "import sys; from labxchange.cli.main import main; sys.exit(main(['--help']))"
    done = subprocess.run(["sh", "-c", f'"{sys.executable}" -c "{code}" | true'], capture_output=True, check=False)
    assert done.stderr == b""
