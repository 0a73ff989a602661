"""What a display says, and that nothing a peer wrote acts in it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from labxchange.dataset.check import Finding, FindingKind, NotRun, Report, Verdict
from labxchange.node.values import (
    ContactInfo,
    EntryInfo,
    InboxItem,
    LimitsInfo,
    Me,
    PathInfo,
    ReceiptInfo,
    RecipientStatus,
    ShareInfo,
    TransferInfo,
    WithheldInfo,
)
from labxchange.notebook import cards, html
from labxchange.notebook.lists import Contacts, Listed, inbox_row, trail_row
from tests.unit.cli.fake import sample

HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m\u202egnp.exe\u2066\u0000<img src=x onerror=alert(1)>"
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
TAGS = {
    *("section", "div", "span", "strong", "bdi", "p"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td"),
    *("svg", "title", "polygon", "polyline", "line"),
}


class Reader(HTMLParser):
    """Keeps which tags and attributes there are, and that they close in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def close(self) -> None:
        super().close()
        assert not self._open


def read(markup: str) -> Reader:
    reader = Reader()
    reader.feed(markup)
    reader.close()
    return reader


def transfer(**given: Any) -> TransferInfo:
    base: dict[str, Any] = {
        "transfer": "ab" * 16,
        "direction": "in",
        "peer": HOSTILE,
        "title": HOSTILE,
        "state": "running",
        "files": 12,
        "bytes": 1000,
        "done_files": 5,
        "done_bytes": 999,
        "rate": 10,
        "eta": 75,
        "destination": f"/home/{HOSTILE}",
        "limits": LimitsInfo(rate=2000, priority="low"),
        "path": PathInfo(plane="lanes", lanes=2, cipher=HOSTILE, rtt_ms=20, loss=0.01, limit="cap"),
    }
    return sample(TransferInfo, **(base | given))


def receipt() -> ReceiptInfo:
    return sample(ReceiptInfo, verdict="match", title=HOSTILE, sender=HOSTILE, recipient=HOSTILE, root="r" * 64, receipt="e" * 64)


def share(**given: Any) -> ShareInfo:
    one = sample(RecipientStatus, name=HOSTILE, state="verified", asked_until=1, asked_reason=HOSTILE)
    left = WithheldInfo(file=HOSTILE, columns=(HOSTILE,), rows=3)
    base = {
        "share": "cd" * 16,
        "title": HOSTILE,
        "reason": HOSTILE,
        "state": "available",
        "recipients": (one,),
        "withheld": (left,),
    }
    return sample(ShareInfo, **(base | given))


def report() -> Report:
    return Report(
        verdict=Verdict.NOT_INTACT,
        matched=3,
        differ=1,
        missing=1,
        unexpected=0,
        error=0,
        left_out=0,
        bytes=10,
        findings=(Finding(path=HOSTILE, kind=FindingKind.DIFFER, text=HOSTILE),),
        truncated=True,
        checks_run=("SHA-256 of each file",),
        checks_not_run=(NotRun("unexpected files", HOSTILE),),
    )


EVERY = {
    "transfer": lambda: cards.transfer_card(transfer(), samples=[(0.0, 1), (1.0, 5), (2.0, 3)], remark=HOSTILE),
    "waiting": lambda: cards.transfer_card(transfer(state="waiting", reason=HOSTILE)),
    "kept": lambda: cards.transfer_kept(transfer(state="completed", receipt="yes"), receipt=receipt()),
    "share": lambda: cards.share_card(share(), as_of=HOSTILE, remark=HOSTILE),
    "share-kept": lambda: cards.share_kept(share(state="hashing", bytes=10, hashed_bytes=3), remark="The node is not running."),
    "report": lambda: cards.report_card(report()),
    "receipt": lambda: cards.receipt_card(receipt()),
    "me": lambda: cards.me_card(sample(Me, name=HOSTILE, organisation=HOSTILE, words=(HOSTILE,), addresses=(HOSTILE,))),
    "contacts": lambda: Contacts([sample(ContactInfo, name=HOSTILE, organisation=HOSTILE, alert=HOSTILE)])._repr_html_(),
    "inbox": lambda: html.table(
        ("a",) * 7, [inbox_row(sample(InboxItem, title=HOSTILE, sender=HOSTILE, not_after=1 << 62))], caption=HOSTILE, empty=""
    ),
    "trail": lambda: html.table(
        (HOSTILE,) * 6, [trail_row(sample(EntryInfo, event=HOSTILE, fields={"person": HOSTILE}))], caption="", empty=""
    ),
    "hint": lambda: html.hint(HOSTILE),
    "empty": lambda: html.table((), [], caption="", empty=HOSTILE),
}


@pytest.mark.parametrize("name", list(EVERY))
def test_nothing_that_a_peer_wrote_acts(name: str) -> None:
    markup = EVERY[name]()
    seen = read(markup)
    assert seen.tags <= TAGS
    assert not {one for one in seen.attributes if one.startswith("on") or one in ("src", "href")}
    assert not ACTS.search(markup)
    assert not ACTS.search(seen.text)
    if not name.endswith("kept"):
        assert "\\u{202e}" in seen.text


@pytest.mark.parametrize("name", list(EVERY))
def test_colours_are_the_theme_s_with_a_fallback(name: str) -> None:
    markup = EVERY[name]()
    assert not re.search(r"(?<!, )#[0-9a-f]{3,8}\b", re.sub(r"&#\w+;", "", markup))
    assert all(", " in found for found in re.findall(r"var\(([^;]*?)\)[;\"]", markup))
    assert "<style" not in markup
    assert "font-color" not in markup, "text has the colour of the page, also where these are set for another page"


NAMES = ("Ada Silva", "Bo Ltd", "Phase I tables", "adsl.xpt", "/home/bo/inbox")


def test_what_a_saved_notebook_keeps_names_nothing_and_nobody() -> None:
    who, title, file, folder = "Ada Silva", "Phase I tables", "adsl.xpt", "/home/bo/inbox"
    info = transfer(state="completed", peer=who, title=title, destination=folder, reason=file, done_bytes=1000, receipt="yes")
    signed = sample(
        ReceiptInfo, verdict="match", title=title, sender=who, recipient="Bo Ltd", path=folder, receipt="e" * 64, root="f" * 64
    )
    made = share(
        title=title,
        reason=file,
        skipped=((file, "it is a link"),),
        withheld=(WithheldInfo(file=file, columns=("ARM",), rows=3),),
        recipients=(sample(RecipientStatus, name=who, state="verified"),),
    )
    kept = [
        cards.transfer_kept(info, receipt=signed),
        cards.transfer_line(info),
        cards.share_kept(made),
        cards.share_line(made),
    ]
    assert not [(name, one) for one in kept for name in (*NAMES, "ARM") if name in one]
    seen = read(kept[0]).text
    assert all(one in seen for one in ("completed", "5 of 12 files", "match", "e" * 64, "f" * 64))
    assert "1 verified" in read(kept[2]).text


def test_every_withheld_column_has_its_name_and_many_scroll() -> None:
    few = WithheldInfo(file="adsl.xpt", columns=("ARM", "TRT01P"), rows=3)
    assert read(cards.withheld([few])).text == "Withheld from adsl.xpt: 2 columns (ARM, TRT01P) and 3 rows."
    many = WithheldInfo(file="lab.csv", columns=tuple(f"MEASURED{number:04}" for number in range(2000)), rows=0)
    told = cards.withheld([few, many])
    assert all(name in read(told).text for name in many.columns)
    assert "overflow: auto" in told
    assert "overflow" not in cards.withheld([few])
    assert cards.withheld([]) == ""


def test_a_bar_says_its_per_cent_and_hundred_only_at_the_end() -> None:
    assert 'aria-valuenow="99"' in html.bar(9_999, 10_000, tone="busy", label="bytes")
    assert 'aria-valuenow="100"' in html.bar(0, 0, tone="busy", label="bytes")
    assert "width: 100.0%" in html.bar(11, 10, tone="busy", label="bytes")


def test_a_graph_stays_in_its_box() -> None:
    drawn = html.graph([(5.0, 0), (6.0, 1 << 40), (9.0, 7)], title="rate", beside="")
    points = re.findall(r"([0-9.-]+),([0-9.-]+)", re.search(r'polyline points="([^"]*)"', drawn)[1])  # type: ignore[index]
    assert all(0 <= float(x) <= 260 and 0 <= float(y) <= 44 for x, y in points)
    assert html.graph([(1.0, 5)] * 5, title="", beside="") == ""
    assert html.graph([], title="", beside="") == ""


def test_a_report_names_every_check_and_the_files_that_are_not_as_they_should_be() -> None:
    seen = read(cards.report_card(report())).text
    assert all(one in seen for one in ("not intact", "SHA-256 of each file", "not run", "1 differ; 1 missing", "1 of 2 findings"))


def test_a_list_is_text_html_and_a_frame() -> None:
    found = [sample(ContactInfo, name="Ada", verified=1_700_000_000_000), sample(ContactInfo, name="Bo")]
    listed: Listed[ContactInfo] = Contacts(found)
    frame = listed.to_frame()
    assert list(frame["name"]) == ["Ada", "Bo"]
    assert str(frame["verified"].iloc[0]) == "2023-11-14 22:13:20+00:00"
    assert frame["verified"].isna().iloc[1]
    assert "2 rows, as of" in listed._repr_html_()
    assert Contacts([]).to_frame().empty
    assert "No contacts yet." in Contacts([])._repr_html_()
