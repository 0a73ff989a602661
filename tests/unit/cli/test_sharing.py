"""Sharing, receiving and following a transfer to its end."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from labxchange.cli import following
from labxchange.errors import InputError, RefusedError
from tests.unit.cli.fake import FakeNode, Step, main, person, sample, values
from tests.unit.cli.test_screen import REPORT

ID = "8c01d2" + "0" * 26


def _transfer(state: str, **given: object) -> values.TransferInfo:
    numbers = {"bytes": 100, "files": 1} | given
    told: values.TransferInfo = sample(values.TransferInfo, transfer=ID, direction="in", peer="Ben", state=state, **numbers)
    return told


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_LOOK_S", 0.0)
    monkeypatch.setattr(following, "_COUNTERSIGN_S", 0.0)


def test_create_gives_the_node_what_it_needs(node: FakeNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    node.answers["share_create"] = sample(values.ShareInfo)
    monkeypatch.chdir(tmp_path)
    command = ["share", "create", "a", "/b", "--to", "Ana", "--to", "Ben", "--expires", "2d", "--study", "S", "--downloads", "1"]
    assert main([*command, "--new-version-of", "old"]) == 0
    given = node.asked("share_create")[0]
    assert given["paths"] == [str(tmp_path / "a"), "/b"]
    assert given["to"] == ["Ana", "Ben"]
    assert (given["share"], given["study"], given["downloads"], given["not_before"]) == ("old", "S", 1, 0)
    assert given["not_after"] > 1_767_225_600_000


def test_waiting_for_the_digests(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    node.answers["share_create"] = sample(values.ShareInfo, share="ab", version=2, state="hashing")
    node.answers["share_hashed"] = sample(values.ShareInfo, share="ab", version=2, state="failed", reason="The disk failed.")
    assert main(["share", "create", "/b", "--to", "Ana", "--wait"]) == 5
    assert "[hashing-failed]" in capsys.readouterr().err
    assert node.asked("share_hashed") == [{"share": "ab/2"}]


@pytest.mark.parametrize(
    ("state", "code"), [("completed", 0), ("verified", 0), ("failed", 4), ("cut", 3), ("cancelled", 3), ("paused", 5)]
)
def test_how_receiving_ends(state: str, code: int, node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    node.answers["receive"] = _transfer("waiting")
    node.answers["transfer_show"] = [
        Step(_transfer("waiting")),
        Step(_transfer("running", rate=50, eta=1)),
        Step(_transfer(state)),
    ]
    node.answers["transfer_report"] = values.ReceivedInfo(transfer=ID, destination="/d", report=REPORT)
    assert main(["receive", "x"]) == code
    shown = capsys.readouterr()
    assert "connecting to Ben" in shown.err
    assert "50 bytes/s, 1 s left" in shown.err
    assert main(["receive", "x", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["state"] == state


def test_detached(node: FakeNode) -> None:
    node.answers["receive"] = _transfer("waiting")
    assert main(["receive", "x", "--from", "Ben", "--to", "/d", "--detach"]) == 0
    chosen = {"rate": 0, "priority": "normal", "lanes": 0}
    assert node.calls == [("receive", {"share": "x", "sender": "Ben", "destination": "/d"} | chosen)]


def test_ctrl_c_pauses_and_says_how_to_go_on(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node.answers |= {
        "receive": _transfer("running"),
        "transfer_show": _transfer("running"),
        "transfer_pause": _transfer("paused"),
    }

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(following.time, "sleep", interrupt)
    assert main(["receive", "x"]) == 130
    assert node.asked("transfer_pause") == [{"transfer": ID}]
    assert "`labxchange transfer resume 8c01d2000000`" in capsys.readouterr().err
    assert main(["receive", "x", "--json"]) == 130
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "interrupted"


def test_ctrl_c_when_pausing_is_refused(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node.answers |= {"transfer_resume": _transfer("running"), "transfer_show": _transfer("running")}
    node.answers["transfer_pause"] = RefusedError("no", "Not now.")

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(following.time, "sleep", interrupt)
    assert main(["transfer", "resume", ID]) == 130
    assert "Not now. [no]" in capsys.readouterr().err


def test_the_bar(node: FakeNode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    node.answers["transfer_show"] = [Step(_transfer("running", done_bytes=50, rate=5, eta=10)), Step(_transfer("completed"))]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert following.follow(ID, quiet=False).state == "completed"
    shown = capsys.readouterr().err
    assert "100 bytes, 0 of 1 file" in shown
    assert "[progress" not in shown


def test_an_invitation_is_read_from_a_file_a_pipe_or_the_terminal(
    node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.answers["contact_accept"] = sample(values.ContactInfo)
    (tmp_path / "i.txt").write_text("from the file")
    assert main(["contact", "accept", str(tmp_path / "i.txt")]) == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO("from a pipe"))
    assert main(["contact", "accept"]) == 0
    person(present=True, monkeypatch=monkeypatch)
    monkeypatch.setattr(sys, "stdin", io.StringIO("from a\nterminal\n\nnot this"))
    assert main(["contact", "accept"]) == 0
    assert [given["text"] for given in node.asked("contact_accept")] == ["from the file", "from a pipe", "from a\nterminal\n"]
    assert main(["contact", "accept", "labxchange-invitation-secret"]) == 5  # a secret is no argument


def test_an_invitation_can_be_piped_on(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    node.answers["contact_invite"] = sample(values.InvitationMade, text="labxchange-invitation-abc", advice="Mind this.")
    assert main(["contact", "invite"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "labxchange-invitation-abc\n"
    assert "Mind this." in shown.err


def test_saving_a_receipt_never_replaces_a_file(node: FakeNode, tmp_path: Path) -> None:
    node.answers["receipt_show"] = sample(values.ReceiptInfo, file="{}")
    target = tmp_path / "r.json"
    assert main(["receipt", "show", ID, "--save", str(target)]) == 0
    assert target.read_text() == "{}"
    assert main(["receipt", "show", ID, "--save", str(target)]) == 2
    node.answers["receipt_page"] = values.ReceiptPage(transfer=ID, page="<page>")
    assert main(["receipt", "save", ID, str(tmp_path / "r.html")]) == 0
    assert (tmp_path / "r.html").read_text() == "<page>"
    assert main(["receipt", "save", ID, str(tmp_path / "r.html")]) == 2


@pytest.mark.parametrize("level", ["accepted", "rejected"])
def test_a_decision_is_told_with_its_findings(level: str, node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    verb = "accept" if level == "accepted" else "reject"
    said = sample(values.ReceiptInfo, level=level, title="T", sender="Ada", findings="one\nlevel  accepted", transfer=ID)
    node.answers[f"transfer_{verb}"] = said
    assert main(["transfer", verb, ID, "--findings", "one"]) == 0
    assert node.asked(f"transfer_{verb}") == [{"transfer": ID, "findings": "one"}]
    assert capsys.readouterr().out == f"You {level} “T” from Ada.\nfindings:\n  | one\n  | level  accepted\n"
    assert main(["transfer", verb, ID, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == "one\nlevel  accepted"


def test_a_decision_that_is_refused_is_a_failure(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    node.answers["transfer_reject"] = InputError("findings-missing", "A rejection says what was found.")
    assert main(["transfer", "reject", ID]) == 2
    assert "[findings-missing]" in capsys.readouterr().err


def test_the_sender_reads_the_findings_of_each_recipient(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    person = sample(values.RecipientStatus, name="Bo", state="rejected", findings="a\nb", receipt="ab", acknowledged=True)
    node.answers["share_status"] = sample(values.ShareInfo, recipients=(person,))
    assert main(["share", "status", "x"]) == 0
    assert "Bo rejected it:\n  | a\n  | b\n" in capsys.readouterr().out


def test_verifying_a_received_folder(node: FakeNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node.answers["transfer_list"] = [_transfer("completed", destination=str(tmp_path))]
    node.answers["dataset_verify"] = values.ReceivedInfo(transfer=ID, destination="/d", report=REPORT)
    assert main(["dataset", "verify", str(tmp_path)]) == 4
    assert node.asked("dataset_verify") == [{"transfer": ID, "folder": str(tmp_path)}]
    assert main(["dataset", "verify", "/elsewhere"]) == 2
    assert "[transfer-none]" in capsys.readouterr().err


def test_the_doctor_fails_when_something_is_a_problem(node: FakeNode) -> None:
    node.answers["doctor"] = [sample(values.Diagnosis, check="port", state="warning")]
    assert main(["doctor", "--contact", "Ana"]) == 0
    node.answers["doctor"] = [sample(values.Diagnosis, check="port", state="problem")]
    assert main(["doctor"]) == 5
    assert node.asked("doctor") == [{"contact": "Ana"}, {"contact": ""}]


def test_configure_needs_something(node: FakeNode) -> None:
    assert main(["node", "configure"]) == 2
    node.answers["node_configure"] = sample(values.NodeStatus)
    assert main(["node", "configure", "--port", "443", "--address", "a.example"]) == 0
    assert node.asked("node_configure") == [{"port": 443, "addresses": ["a.example"]}]
