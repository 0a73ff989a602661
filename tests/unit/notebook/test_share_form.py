"""The share form: what will happen is said before it can, and what is done is what ``lx.share`` does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from labxchange.content import tables
from labxchange.errors import InputError
from labxchange.node import exposing
from labxchange.node.client import run
from labxchange.node.home import Home
from labxchange.node.values import ContactInfo, ShareInfo
from labxchange.notebook import api, table_part
from labxchange.notebook.share_form import ShareForm
from tests.support.displays import until
from tests.unit.cli.fake import sample
from tests.unit.content.samples import PILOT
from tests.unit.notebook.fake import FakeClient

MADE = sample(ShareInfo, share="cd", version=1, title="Trial", state="available")
ARMS = ("ARM", "TRT01P")


@pytest.fixture
def form(client: FakeClient, tmp_path: Path) -> Iterator[ShareForm]:
    person = sample(ContactInfo, name="Ada <b>", organisation="Ada Ltd", key="k", state="verified")
    client.home = Home(tmp_path / "home")
    client.answers |= {
        "contact_list": [person, msgspec.structs.replace(person, key="x", state="unverified")],
        "share_create": MADE,
        "share_hashed": MADE,
    }
    made = form_over(client, tmp_path / "data")
    yield made
    made.close()


def form_over(client: FakeClient, folder: Path) -> ShareForm:
    folder.mkdir()
    (folder / "a.csv").write_bytes(b"12345")
    (folder / "b.bin").write_bytes(b"123")
    (folder / "adsl.xpt").write_bytes((PILOT / "adsl.xpt").read_bytes())
    (folder / "package.json").write_bytes(b'{"name": "x"}')
    form = ShareForm(client, folder=str(folder))  # type: ignore[arg-type]
    until(lambda: form._files.options and form._people.options, what="the folder and the contacts")
    until(lambda: "the whole folder" in form._told.value, what="the explanation")
    return form


def ready(form: ShareForm) -> bool:
    return not form._share.disabled


def choose(form: ShareForm, *files: str) -> None:
    form._people.value, form._files.value = ("k",), files
    until(lambda: ready(form), what="the explanation")


def created(client: FakeClient) -> dict[str, Any]:
    until(lambda: client.count("share_hashed"), what="the share")
    return dict(next(given for name, given in client.asked if name == "share_create"))


def test_it_says_what_will_happen_before_it_does(client: FakeClient, form: ShareForm, tmp_path: Path) -> None:
    assert [key for _, key in form._people.options] == ["k"]
    assert form._share.disabled
    choose(form, "b.bin")
    form._title.value = "Trial"
    assert "b.bin: 1 file, 3 B" in form._told.value
    assert "Ada &lt;b&gt;" in form._told.value
    assert "at most 3 times" in form._told.value
    assert not client.count("share_create")
    form._share.click()
    given = created(client)
    assert given["paths"] == [str(tmp_path / "data" / "b.bin")]
    assert (given["to"], given["title"], given["downloads"], given["withheld"]) == (["k"], "Trial", 3, [])
    until(lambda: "lx.shares()" in form.remark.value, what="the end")
    form._share.click()
    assert form._share.disabled, "not once more by a second press"
    assert not form._told.value
    form._downloads.value = 4
    until(lambda: ready(form) and "at most 4 times" in form._told.value, what="another choice")
    assert not (tmp_path / "home").exists(), "nothing is copied of what is shared whole"


def test_a_part_of_a_table_is_chosen_by_names_and_labels(client: FakeClient, form: ShareForm) -> None:
    choose(form, "b.bin")
    assert not form._part.box.children, "there are no columns to choose"
    choose(form, "adsl.xpt")
    until(lambda: form._part.box.children, what="the columns")
    assert len(form._part._columns.options) == 48
    assert ("USUBJID: Unique Subject Identifier", "USUBJID") in form._part._columns.options
    form._part._which.value = "but"
    assert form._part._columns in form._part.box.children
    form._part._columns.value = ARMS
    form._part._rows.value = "SITEID == '701' and AGE >= 65"
    until(lambda: ready(form) and "46 of 48 columns" in form._told.value, what="the explanation")
    until(lambda: ready(form) and "of 254 rows" in form._told.value, what="the rows")
    kept = len(tables.read((PILOT / "adsl.xpt").read_bytes(), "adsl.xpt").query("SITEID == '701' and AGE >= 65"))
    assert f"{kept} of 254 rows" in form._told.value
    assert form._title.placeholder == "adsl.xpt", "the title that the node gives it by itself"
    assert f"<strong>Withheld</strong> from adsl.xpt: 2 columns (ARM, TRT01P) and {254 - kept} rows" in form._told.value
    assert str(client.home.root / "exposed") in form._told.value
    assert not client.home.root.exists(), "nothing is written before the button is pressed"
    form._part._which.value = "only"
    until(lambda: ready(form) and "2 of 48 columns" in form._told.value, what="the other choice")


def test_it_shares_what_lx_share_does(client: FakeClient, form: ShareForm, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same request of the node and the same bytes, for the same choice."""
    choose(form, "adsl.xpt")
    until(lambda: form._part.box.children, what="the columns")
    form._part._which.value, form._part._columns.value, form._part._rows.value = "but", ARMS, " AGE >= 80 "
    until(lambda: ready(form) and "of 254 rows" in form._told.value and "46 of" in form._told.value, what="the explanation")
    told = form._told.value
    form._share.click()
    by_form = created(client)
    monkeypatch.setattr(api, "client", lambda: client)
    source = Path(form._folder.value) / "adsl.xpt"
    columns = [name for name in tables.read(source.read_bytes(), "adsl.xpt").columns if name not in ARMS]
    api.share(source, "k", columns=columns, rows="AGE >= 80", expires=by_form["not_after"])
    by_call = [given for name, given in client.asked if name == "share_create"][-1]
    (one,), (other,) = by_form.pop("paths"), by_call.pop("paths")
    assert Path(one).read_bytes() == Path(other).read_bytes()
    assert by_form == by_call
    (left,) = by_form["withheld"]
    assert left.columns == ARMS
    assert f"and {left.rows} rows" in told, "and it is what was said before"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("AGEE > 3", "there is no column “AGEE”"),
        ("AGE >", "it is not a condition"),
        ("__import__('os').system('true')", "is no comparison"),
        ("AGE > 'x'", "holds numbers, and is compared with text"),
    ],
)
def test_a_wrong_condition_is_a_sentence_and_nothing_can_be_signed(form: ShareForm, rows: str, said: str) -> None:
    choose(form, "adsl.xpt")
    until(lambda: form._part.box.children, what="the columns")
    form._part._rows.value = rows
    until(lambda: said in form._told.value, what="the sentence")
    assert "Compare columns with values" in form._told.value, "and what to do"
    assert form._share.disabled
    form._part._rows.value = "AGE >= 65"
    until(lambda: ready(form), what="a right one")


def test_no_column_and_no_row_are_said(form: ShareForm) -> None:
    choose(form, "adsl.xpt")
    until(lambda: form._part.box.children, what="the columns")
    form._part._which.value = "only"
    until(lambda: "No column is left to share." in form._told.value, what="the sentence")
    assert form._share.disabled
    form._part._which.value, form._part._rows.value = "all", "AGE > 1000"
    until(lambda: "No row fulfils the condition" in form._told.value and ready(form), what="the warning")
    form._part._rows.value = "AGE > 0"
    until(lambda: "Nothing is withheld" in form._told.value and ready(form), what="the explanation")


def test_a_file_that_only_looks_like_a_table_is_shared_whole(client: FakeClient, form: ShareForm) -> None:
    choose(form, "package.json")
    until(lambda: form._part.box.children, what="the remark")
    assert "It is shared whole." in form._part.box.children[0].value
    assert "no Dataset-JSON" in form._part.box.children[0].value
    until(lambda: ready(form), what="the explanation")
    form._share.click()
    assert created(client)["withheld"] == []


def test_a_choice_belongs_to_its_file(form: ShareForm) -> None:
    choose(form, "adsl.xpt")
    until(lambda: form._part.box.children, what="the columns")
    form._part._which.value, form._part._columns.value = "only", ARMS
    until(lambda: ready(form) and "2 of 48" in form._told.value, what="the explanation")
    form._days.value = 7
    until(lambda: ready(form), what="the new end")
    assert form._part._columns.value == ARMS, "it stays while its file is chosen"
    form._files.value = ("adsl.xpt", "a.csv")
    until(lambda: ready(form) and "2 files" in form._told.value, what="two files")
    assert not form._part.box.children
    form._files.value = ("adsl.xpt",)
    until(lambda: form._part.box.children and ready(form), what="the columns")
    assert form._part.chosen() is None


def test_what_was_not_explained_is_not_signed(client: FakeClient, form: ShareForm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A press that the page sent before it heard that rows are being counted; and the count does not hold up the loop."""
    choose(form, "adsl.xpt")
    until(lambda: form._part.box.children, what="the columns")
    hold = threading.Event()

    counted: list[str] = []

    def slowly(source: Path, rows: str) -> tuple[int, int]:
        counted.append(rows)
        assert hold.wait(20)
        return exposing.rows_held(source, rows)

    monkeypatch.setattr(table_part, "rows_held", slowly)
    form._part._rows.value = "AGE >= 65"
    form._share.click()
    until(lambda: "Counting the rows" in form._told.value, what="the counting")
    for age in (70, 75, 80):
        form._part._rows.value = f"AGE >= {age}"
        run(asyncio.sleep(0))
    form._share.click()
    form._share.disabled = False  # as a page shows it that has not heard yet
    form._share.click()
    assert not client.count("share_create")
    hold.set()
    kept = tables.read((PILOT / "adsl.xpt").read_bytes(), "adsl.xpt")["AGE"].ge(80).sum()
    until(lambda: ready(form) and f"{kept} of 254 rows" in form._told.value, what="the last choice")
    assert counted == ["AGE >= 65", "AGE >= 80"], "what is no more chosen is not counted"


def test_rows_are_counted_once_for_a_condition(form: ShareForm, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []

    def count(source: Path, rows: str) -> tuple[int, int]:
        counted.append(rows)
        return exposing.rows_held(source, rows)

    monkeypatch.setattr(table_part, "rows_held", count)
    choose(form, "adsl.xpt")
    until(lambda: form._part.box.children, what="the columns")
    form._part._rows.value = "AGE >= 65"
    for change in (lambda: setattr(form._downloads, "value", 5), lambda: setattr(form._part._which, "value", "but")):
        change_and_wait(form, change)
    assert counted == ["AGE >= 65"]
    path = Path(form._folder.value) / "adsl.xpt"
    path.write_bytes(path.read_bytes() + b" " * 80)
    change_and_wait(form, lambda: setattr(form._downloads, "value", 6))
    assert len(counted) == 2, "the file was changed"


def change_and_wait(form: ShareForm, change: Callable[[], None]) -> None:
    change()
    until(lambda: ready(form) and "of 254 rows" in form._told.value, what="the explanation")


def test_what_the_node_refuses_leaves_no_copy(client: FakeClient, form: ShareForm) -> None:
    client.answers["share_create"] = InputError("contact-unknown", "There is no such contact.")
    choose(form, "adsl.xpt")
    until(lambda: form._part.box.children, what="the columns")
    form._part._rows.value = "AGE >= 65"
    until(lambda: ready(form) and "of 254 rows" in form._told.value, what="the explanation")
    form._share.click()
    until(lambda: "There is no such contact." in form.remark.value, what="the refusal")
    assert not list((client.home.root / "exposed").iterdir())
    until(lambda: ready(form), what="another try")
