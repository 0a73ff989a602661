"""A transfer in a notebook: a decision waits until it is over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from labxchange.dataset.check import Finding, FindingKind, Findings, NotRun
from labxchange.errors import InputError
from labxchange.node.values import Me, Notice, ReceiptInfo, ReceiptPage, TransferInfo
from labxchange.notebook.handles import Transfer
from labxchange.notebook.shown import ShownMe, ShownReport, shown
from tests.unit.cli.fake import sample

ID = "8c01d2" + "0" * 26


class Client:
    """A node on which the transfer is over when it was asked three times."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    async def call(self, verb: Callable[..., Any], **given: Any) -> Any:
        self.calls.append((verb.__name__, given))
        if verb.__name__ == "receipt_page":
            return ReceiptPage(transfer=ID, page="<é>")
        if verb.__name__ != "transfer_show":
            return sample(ReceiptInfo, level="accepted", transfer=ID, title="T\x1b", findings="one\ntwo")
        return sample(TransferInfo, state="running" if len(self.calls) < 3 else "verified")

    async def notices(self) -> AsyncIterator[Notice]:
        while True:
            yield Notice(kind="transfer", id=ID)


def test_a_decision_waits_until_the_transfer_is_over() -> None:
    for decide, verb, findings in ((Transfer.accept, "transfer_accept", ""), (Transfer.reject, "transfer_reject", "why")):
        client = Client()
        handle = Transfer(client, sample(TransferInfo, transfer=ID))  # type: ignore[arg-type]
        assert decide(handle, findings) is handle
        assert [name for name, _ in client.calls] == ["transfer_show"] * 3 + [verb]
        assert client.calls[-1][1] == {"transfer": ID, "findings": findings}
        assert handle.receipt.level == "accepted"


def test_a_receipt_is_shown_in_few_words_and_saved_once(tmp_path: Path) -> None:
    receipt = Transfer(Client(), sample(TransferInfo, transfer=ID)).receipt  # type: ignore[arg-type]
    assert repr(receipt).split("\n") == ["receipt of “T\\u{1b}”: accepted, , signed", "  | one", "  | two"]
    saved = receipt.save(tmp_path / "receipt.html")
    assert saved.read_text(encoding="utf-8") == "<é>"
    with pytest.raises(InputError) as caught:
        receipt.save(str(saved))
    assert caught.value.code == "file-exists"


def test_an_identity_and_a_report_print_in_few_words() -> None:
    me = shown(
        sample(Me, name="Bo", organisation="Bo Ltd", fingerprint="YCLT", words=("jurist", "atonable"), locked=True), ShownMe
    )
    assert repr(me).split("\n") == [
        "Bo, Bo Ltd",
        "  fingerprint  YCLT",
        "  six words    jurist atonable",
        "  keys         sealed: `labxchange node unlock`",
    ]
    found = Findings()
    found.match(1_500_000)
    found.add(Finding(path="a\x1b.csv", kind=FindingKind.DIFFER))
    report = found.report(checks_run=("files: SHA-256",), checks_not_run=(NotRun("unexpected files", "not asked for"),))
    assert repr(shown(report, ShownReport)).split("\n") == [
        "not-intact: 1 file matched, 1.5 MB, 1 differ",
        "  differ       a\\u{1b}.csv",
        "  checked      files: SHA-256",
        "  not checked  unexpected files: not asked for",
    ]
