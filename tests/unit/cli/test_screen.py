"""What others named is shown, never obeyed: not by the terminal, not by Rich, not in JSON."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from labxchange.cli import screen
from labxchange.dataset.check import Finding, FindingKind, NotRun, Report, Verdict
from tests.unit.cli.fake import HOSTILE, FakeNode, main, sample, values

REPORT = Report(
    verdict=Verdict.NOT_INTACT,
    matched=1,
    differ=1,
    missing=0,
    unexpected=0,
    error=0,
    left_out=0,
    bytes=12,
    findings=(Finding(path=HOSTILE, kind=FindingKind.DIFFER, offset=1 << 20, expected="aa", got="bb", text=HOSTILE),),
    truncated=True,
    checks_run=("sizes",),
    checks_not_run=(NotRun("times", "they are no part of it"),),
)

EVIDENCE = values.EvidenceInfo(kind="diverged", utc=1, first=HOSTILE, second="note\n\n— key sig\n")
PERSON = sample(values.RecipientStatus, name=HOSTILE, state=HOSTILE, asked_until=1, asked_reason=HOSTILE, findings=HOSTILE)
VALUES: dict[str, tuple[list[str], Any]] = {
    "key_show": (["key", "show"], sample(values.Me, name=HOSTILE, words=(HOSTILE,))),
    "contact_list": (["contact", "list"], [sample(values.ContactInfo, name=HOSTILE, organisation=HOSTILE, alert=HOSTILE)]),
    "contact_block": (["contact", "block", "x"], sample(values.ContactInfo, name=HOSTILE, role=HOSTILE, trail=HOSTILE)),
    "contact_show": (["contact", "show", "x"], sample(values.ContactInfo, name=HOSTILE, evidence=(EVIDENCE,))),
    "contact_invitations": (["contact", "invitations"], [sample(values.InvitationInfo, used_by=HOSTILE, reused=2)]),
    "share_list": (["share", "status"], [sample(values.ShareInfo, title=HOSTILE, recipients=(PERSON,))]),
    "share_status": (["share", "status", "x"], sample(values.ShareInfo, skipped=((HOSTILE, HOSTILE),), recipients=(PERSON,))),
    "request_extension": (["share", "request-extension", "x", "--until", "3d"], sample(values.InboxItem, sender=HOSTILE)),
    "inbox_list": (["inbox"], [sample(values.InboxItem, title=HOSTILE, note=HOSTILE, sender=HOSTILE)]),
    "transfer_list": (["transfer", "list"], [sample(values.TransferInfo, title=HOSTILE, peer=HOSTILE, reason=HOSTILE)]),
    "transfer_report": (["transfer", "report", "x"], values.ReceivedInfo(transfer="ab", destination=HOSTILE, report=REPORT)),
    "receipt_show": (["receipt", "show", "x"], sample(values.ReceiptInfo, title=HOSTILE, path=HOSTILE, findings=HOSTILE)),
    "transfer_accept": (["transfer", "accept", "x"], sample(values.ReceiptInfo, title=HOSTILE, sender=HOSTILE)),
    "transfer_reject": (["transfer", "reject", "x", "--findings", "y"], sample(values.ReceiptInfo, findings=HOSTILE)),
    "audit_list": (["audit", "list"], [sample(values.EntryInfo, event=HOSTILE, fields={"counterparty_name": HOSTILE})]),
    "status": (["node", "status"], sample(values.NodeStatus, alerts=(HOSTILE,))),
    "doctor": (["doctor"], [sample(values.Diagnosis, check=HOSTILE, state="ok", sentence=HOSTILE, hint=HOSTILE)]),
}


@pytest.mark.parametrize("verb", sorted(VALUES))
@pytest.mark.parametrize("form", ["text", "json"])
def test_hostile_names(verb: str, form: str, node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    command, value = VALUES[verb]
    node.answers[verb] = value
    assert main([*command, "--json"] if form == "json" else command) == 0
    shown = capsys.readouterr()
    for character in "\x1b\u202e\u009b":
        assert character not in shown.out + shown.err
    assert "[red]" in shown.out + shown.err
    if form == "json":
        assert shown.out.isascii()
        assert json.loads(shown.out) == json.loads(json.dumps(screen.plain(value)))


def test_a_report_names_every_check_and_every_finding(capsys: pytest.CaptureFixture[str], node: FakeNode) -> None:
    node.answers["transfer_report"] = values.ReceivedInfo(transfer="ab", destination="/d", report=REPORT)
    assert main(["transfer", "report", "x"]) == 0
    shown = capsys.readouterr().out
    assert "matched 1, differ 1, missing 0, unexpected 0, error 0, left out 0" in shown
    assert "checked: sizes" in shown
    assert "not checked: times: they are no part of it" in shown
    assert "first at byte 1,048,576" in shown
    assert "Expected aa, got bb." in shown
    assert "more findings" in shown


def test_what_is_kept_of_a_contacts_trail(capsys: pytest.CaptureFixture[str], node: FakeNode) -> None:
    accepted = values.EvidenceInfo(kind="accepted", utc=2, first="old\n", second="")
    kept = (msgspec.structs.replace(EVIDENCE, first="first\n"), accepted)
    node.answers["contact_show"] = sample(values.ContactInfo, name="Ben", evidence=kept)
    assert main(["contact", "show", "Ben"]) == 0
    shown = capsys.readouterr().out
    assert "evidence" in shown
    assert "2 records kept" in shown
    assert "told two histories\n\n--- seen before\nfirst\n\n--- shown then\nnote\n\n— key sig\n" in shown
    assert "you went on with them" in shown
    assert shown.endswith("--- seen before\nold\n")
    assert node.asked("contact_show") == [{"contact": "Ben"}]


def test_invitations_say_when_they_were_tried_again(capsys: pytest.CaptureFixture[str], node: FakeNode) -> None:
    used = sample(values.InvitationInfo, id="ab" * 16, state="used", used_by="Ben", reused=1)
    node.answers["contact_invitations"] = [used, sample(values.InvitationInfo, id="cd" * 16, state="open", made_for="AB12")]
    assert main(["contact", "invitations"]) == 0
    first, second = capsys.readouterr().out.splitlines()[1:]
    assert "anybody" in first
    assert "tried again 1 time by other keys" in first
    assert "AB12" in second
    assert "tried again" not in second
    node.answers["contact_invitations"] = []
    assert main(["contact", "invitations"]) == 0
    assert "`labxchange contact invite`" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (75 * 10**12, "75.0 TB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert screen.size(count) == text


def test_numbers() -> None:
    assert screen.number(1, "file") == "1 file"
    assert screen.number(1_000_000, "file") == "1,000,000 files"
