"""The Python API against two real nodes: tables are shared whole and in part, and loaded only as what was verified."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import pandas
import pytest

import labxchange as lx
from labxchange.errors import InputError, IntegrityError, UnavailableError
from labxchange.node.client import run
from labxchange.notebook import api
from labxchange.notebook.handles import Transfer
from labxchange.notebook.share_form import ShareForm
from tests.integration.conftest import Person
from tests.integration.test_two_nodes import offered, pair
from tests.support.displays import until

DATA = Path(__file__).parents[2] / "notebooks" / "data" / "cdisc-pilot"


@contextmanager
def being(person: Person) -> Iterator[None]:
    """``lx`` speaks to this person's node."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABXCHANGE_HOME", str(person.home.root))
        yield


def leave(*people: Person) -> None:
    """Their nodes stop, and what ``lx`` opened to them is closed."""
    for person in people:
        with being(person):
            run(api.client().close())
        run(person.stop())
    api._client.cache_clear()


def given(ada: Person, bo: Person, what: object, *, title: str, **terms: object) -> Transfer:
    """Ada shares, Bo receives."""
    with being(ada):
        made = lx.share(what, to=bo.name, title=title, **terms)  # type: ignore[arg-type]
        shared = made.status
    run(offered(bo, shared))
    with being(bo):
        return lx.receive(title)


def test_tables_from_end_to_end(place: Path) -> None:
    ada, bo = run(pair(place))
    received = given(ada, bo, DATA / "adsl.xpt", title="ADSL")
    adsl = received.load("adsl.xpt")
    assert adsl.shape == (254, 48)
    assert adsl.attrs["labels"]["USUBJID"] == "Unique Subject Identifier"
    told = adsl.attrs["labxchange"]
    assert (told["path"], told["transfer"]) == ("adsl.xpt", received.id)
    assert told["receipt"]
    assert received.verify().verdict == "intact"

    async def waits() -> str:
        return (await received).status.state

    assert asyncio.run(waits()) in ("verified", "completed")

    # A part of it keeps its format, and the recipient knows what is missing.
    blinded = given(
        ada,
        bo,
        DATA / "adsl.xpt",
        title="Blinded",
        columns=[name for name in adsl.columns if not name.startswith(("ARM", "TRT"))],
        rows="SITEID == '701'",
        expires=date.today() + timedelta(days=9),  # noqa: DTZ011
    )
    part = blinded.load("adsl.xpt")
    assert set(part["SITEID"]) == {"701"}
    assert not [name for name in part.columns if name.startswith(("ARM", "TRT"))]
    assert part.attrs["labels"]["AGE"] == adsl.attrs["labels"]["AGE"]
    with being(bo):
        (left,) = next(item for item in lx.inbox() if item.title == "Blinded").withheld
    assert left.rows == len(adsl) - len(part)
    assert {"ARM", "TRT01P"} <= set(left.columns)
    assert lx.compare(part, part.copy()).same_values

    # The form shares the same part by the same way, and the sender's trail has both.
    form = ShareForm(api._client(str(ada.home.root)), folder=str(DATA))
    until(lambda: form._people.options, what="the contacts", within_s=90)
    form._files.value, form._people.value, form._title.value = ("adsl.xpt",), (form._people.options[0][1],), "By form"
    until(lambda: form._part.box.children, what="the columns", within_s=90)
    form._part._which.value = "but"
    form._part._columns.value, form._part._rows.value = left.columns, "SITEID == '701'"
    until(lambda: f"and {left.rows} rows" in form._told.value and not form._share.disabled, what="what will happen", within_s=90)
    form._share.click()
    until(lambda: "Shared." in form.remark.value, what="the share", within_s=90)
    form.close()
    with being(ada):
        made = next(one for one in lx.shares() if one.status.title == "By form").status
        run(offered(bo, made))
        assert len(api.audit(event="share.exposed-subset")) == 2
    with being(bo):
        assert lx.compare(lx.receive("By form").load("adsl.xpt"), part).same_values
        assert next(item for item in lx.inbox() if item.title == "By form").withheld == (left,)

    # A table of a kernel becomes Parquet, with the same values, and only its owner reads the copy.
    frame = given(ada, bo, adsl, title="From a kernel").load("From a kernel.parquet")
    assert lx.fingerprint(frame) == lx.fingerprint(adsl)
    assert frame.attrs["labels"] == adsl.attrs["labels"]
    (copy,) = (ada.home.root / "exposed").rglob("From a kernel.parquet")
    assert stat.S_IMODE(copy.parent.stat().st_mode) == 0o700

    # What was edited, or is gone, is not loaded.
    path = received.folder / "adsl.xpt"
    os.chmod(path, 0o600)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"!")
    with pytest.raises(IntegrityError) as edited:
        received.load("adsl.xpt")
    assert edited.value.code == "file-changed"
    path.unlink()
    with pytest.raises(UnavailableError) as missing:
        received.load("adsl.xpt")
    assert missing.value.code == "file-missing"
    leave(ada, bo)


def test_what_cannot_be_shared_is_refused_and_nothing_is_left_behind(place: Path) -> None:
    ada, bo = run(pair(place))
    frame = pandas.DataFrame({"a": [1]})
    with being(ada):
        for what, terms, code in (
            (frame, {}, "title-needed"),
            ([DATA / "adsl.xpt", DATA / "adae.xpt"], {"columns": ["AGE"]}, "subset-of-one"),
            (DATA, {"rows": "AGE > 3"}, "subset-of-one"),
            (DATA / "NOTICE", {"columns": ["AGE"]}, "table-unknown"),
            (DATA / "adsl.xpt", {"columns": ["NOPE"]}, "column-unknown"),
            (DATA / "adsl.xpt", {"rows": "__import__('os').system('true')"}, "rows-refused"),
            (DATA / "none.xpt", {"rows": "AGE > 3"}, "path-missing"),
        ):
            with pytest.raises(InputError) as refused:
                lx.share(what, to=bo.name, **terms)  # type: ignore[arg-type]
            assert refused.value.code == code
        assert not lx.shares()
        assert not (ada.home.root / "exposed").exists()
    leave(ada, bo)
