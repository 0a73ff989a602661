"""Receipt files and pages: the vectors verify, what was damaged is said to be, and nothing else is ever raised."""

from __future__ import annotations

import json
import random
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from msgspec import to_builtins
from msgspec.structs import replace

from labxchange.errors import InputError, IntegrityError, LabxchangeError
from labxchange.identity.statement import Signed, parse
from labxchange.node.receipt_file import check_file
from labxchange.node.receipt_page import render
from labxchange.sharing.exchange import Receipt, best, decides

VECTOR: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "receipts.json").read_text())
FILE = VECTOR["file"]


def receipts() -> list[Signed[Receipt]]:
    envelopes = [json.dumps(item).encode() for item in (*FILE["statements"], FILE["receipt"])]
    return [parse(item, Receipt) for item in envelopes if b".receipt.v1+json" in item]


def test_the_vector() -> None:
    found = receipts()
    told = [{"id": item.id, "level": item.body.level, "follows": item.body.follows} for item in found]
    assert told == VECTOR["receipts"]
    assert [item.body.level for item in found] == ["delivered", "intact", "rejected", "accepted"]
    for count, holds in ((1, 0), (2, 1), (3, 2), (4, 3)):
        assert best(found[:count]) == found[holds]
    assert best([]) is None
    page = render(FILE)
    assert sha256(page).hexdigest() == VECTOR["page_sha256"], "the making of a page changed: give it another number"
    for data in (page, json.dumps(FILE).encode(), json.dumps(FILE, indent=4).encode()):
        checked = check_file(data, VECTOR["fingerprints"])
        assert (checked.level, checked.countersigned, checked.trusted) == ("accepted", True, ("Ada", "Bo"))


def test_what_a_decision_may_follow() -> None:
    _, intact, rejected, accepted = receipts()
    assert decides(rejected.body, [intact])
    assert decides(accepted.body, [intact, rejected])
    assert not decides(accepted.body, [intact])
    assert not decides(accepted.body, [])
    again = Signed(id="ab" * 32, body=replace(intact.body, finished=intact.body.finished + 9), envelope=b"")
    assert not decides(accepted.body, [intact, rejected, again]), "a new attempt is decided on anew"
    assert best([intact, rejected, again]) == again
    mismatch = Signed(id=intact.id, body=replace(intact.body, verdict="mismatch"), envelope=b"")
    on_it = replace(mismatch.body, level="rejected", findings="x", follows=mismatch.id)
    assert decides(on_it, [mismatch])
    assert not decides(replace(on_it, level="accepted"), [mismatch])


def test_the_first_levels_are_written_as_before_there_were_decisions() -> None:
    for item in receipts()[:2]:
        assert not {"findings", "follows"} & to_builtins(item.body).keys()


@pytest.mark.parametrize("name", ["cards", "receipt", "statements"])
def test_a_part_that_is_missing_or_nonsense(name: str) -> None:
    for wrong in ({}, {name: 1}, {name: None}, {name: [[]]}, {name: {"payload": 1}}):
        document = {key: value for key, value in FILE.items() if key != name} | wrong
        with pytest.raises((InputError, IntegrityError)):
            check_file(json.dumps(document).encode(), [])


def test_a_receipt_needs_no_countersignature_and_no_other_statement() -> None:
    bare = {key: value for key, value in FILE.items() if key != "receipt-ack"} | {"statements": []}
    checked = check_file(render(bare), [])
    assert (checked.level, checked.title, checked.countersigned, checked.trusted) == ("accepted", "", False, ())


def test_damage_is_told_wherever_it_is() -> None:
    chance = random.Random("receipt files")
    for whole in (render(FILE), json.dumps(FILE).encode()):
        for _ in range(250):
            data = bytearray(whole)
            place = chance.randrange(len(data))
            how = chance.randrange(4)
            if how == 0:
                data[place] ^= 1 << chance.randrange(8)
            elif how == 1:
                del data[place:]
            elif how == 2:
                data[place:place] = chance.choice([b"<", b'"', b"\xff", b"</script>", b"[" * 5000, b"9" * 30])
            else:
                del data[place : place + chance.randrange(1, 200)]
            try:
                check_file(bytes(data), [])
            except LabxchangeError:
                continue
            assert whole.startswith(b"{"), "a page is the one that was made, or none"
            assert json.loads(data)["receipt"] == FILE["receipt"], "damage passed"
