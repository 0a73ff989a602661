"""Passphrases: typed unseen, twice where they are new, and only where somebody is there."""

from __future__ import annotations

import pytest

from labxchange.errors import InputError, NodeLocked
from labxchange.identity.sealing import PASSPHRASE_MIN_LENGTH
from tests.unit.cli.fake import FakeNode, Step, main, person, sample, values

CREATE = ["key", "create", "--name", "Ana", "--organisation", "CRO"]
ME = sample(values.Me, name="Ana")


def test_create_asks_twice(node: FakeNode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    node.answers["key_create"] = ME
    prompts = person(present=True, monkeypatch=monkeypatch, typed=["one secret", "another", "one secret", "one secret"])
    assert main(CREATE) == 0
    assert len(prompts) == 4
    assert f"({PASSPHRASE_MIN_LENGTH} characters or more)" in prompts[0]
    assert node.asked("key_create")[0]["passphrase"] == "one secret"
    shown = capsys.readouterr()
    assert "secret" not in shown.out + shown.err


def test_create_gives_up_after_three(node: FakeNode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    person(present=True, monkeypatch=monkeypatch, typed=["a", "b", "", "c", "d"])
    assert main(CREATE) == 2
    assert "[passphrases-differ]" in capsys.readouterr().err
    assert not node.calls


def test_create_with_nobody_there(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(CREATE) == 2
    assert "[terminal-needed]" in capsys.readouterr().err
    assert main(["key", "create", "--credential-file", "x"]) == 2
    assert "[option-missing]" in capsys.readouterr().err
    assert not node.calls


def test_create_with_a_credential_file_asks_nothing(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node.answers["key_create"] = ME
    monkeypatch.chdir("/tmp")
    assert main([*CREATE, "--credential-file", "c.key"]) == 0
    given = node.asked("key_create")[0]
    assert (given["passphrase"], given["credential_file"]) == ("", "/tmp/c.key")


def test_a_locked_node_is_unlocked_by_who_is_there(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = InputError("passphrase-wrong", "The passphrase does not open this identity.")
    node.answers["inbox_list"] = [Step(NodeLocked()), Step([])]
    node.answers["unlock"] = [Step(wrong), Step(ME)]
    person(present=True, monkeypatch=monkeypatch, typed=["no", "yes"])
    assert main(["inbox"]) == 0
    assert node.asked("unlock") == [{"passphrase": "no"}, {"passphrase": "yes"}]


def test_three_wrong_passphrases(node: FakeNode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    node.answers["inbox_list"] = NodeLocked()
    node.answers["unlock"] = InputError("passphrase-wrong", "The passphrase does not open this identity.")
    person(present=True, monkeypatch=monkeypatch, typed=["a", "b", "c"])
    assert main(["inbox"]) == 2
    assert "[passphrase-wrong]" in capsys.readouterr().err


def test_a_fresh_unlock_is_asked_only_where_the_node_needs_one(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    def reset(*, reason: str, passphrase: str) -> object:
        return sample(values.NodeStatus) if passphrase == "mine" else InputError("no-unlock-method", "It needs the passphrase.")

    node.answers["clock_reset"] = reset
    assert main(["clock", "reset", "--reason", "ntp"]) == 2  # nobody is there
    person(present=True, monkeypatch=monkeypatch, typed=["mine"])
    assert main(["clock", "reset", "--reason", "ntp"]) == 0
    node.answers["clock_reset"] = sample(values.NodeStatus)
    assert main(["clock", "reset", "--reason", "ntp"]) == 0


def test_key_restore(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node.answers["key_restore"] = ME
    person(present=True, monkeypatch=monkeypatch, typed=["of the backup", "new one", "new one"])
    assert main(["key", "restore", "/b"]) == 0
    given = node.asked("key_restore")[0]
    assert (given["backup_passphrase"], given["passphrase"], given["path"]) == ("of the backup", "new one", "/b")
