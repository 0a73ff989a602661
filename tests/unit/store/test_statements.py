"""Statements, their bodies in pages, and the outbox."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from labxchange.identity.keys import Identity
from labxchange.identity.statement import Signed, parse, sign
from labxchange.sharing.exchange import Cut
from labxchange.sharing.grant import Revocation
from labxchange.sharing.share import Offer
from labxchange.store import statements
from labxchange.store.database import Database
from labxchange.store.statements import PAGE_BYTES

ME = Identity(b"\x01" * 32)
ANA, BEN = "a" * 64, "b" * 64


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "node.db")
    yield opened
    opened.close()


def revocation(number: int) -> Signed[Revocation]:
    return sign(Revocation(issuer=ME.public.hex(), issued=number, grant="0" * 32, reason=f"reason {number}"), ME)


def test_a_statement_is_kept_as_it_came_first(database: Database) -> None:
    one, two = revocation(1), revocation(2)
    with database.begin() as tx:
        statements.put(tx, two, about="grant", now=20)
        statements.put(tx, one, about="grant", now=10)
        statements.put(tx, one, about="another", now=30)
    with database.begin() as tx:
        assert statements.get(tx, one.id) == one.envelope
        assert statements.get(tx, "f" * 64) is None
        assert statements.find(tx, one.id, Revocation) == one == statements.need(tx, one.id, Revocation)
        assert statements.find(tx, "f" * 64, Revocation) is None
        assert statements.find(tx, one.id, Offer) is None, "a contact may name what it likes"
        assert statements.any_about(tx, "grant", Revocation)
        assert not statements.any_about(tx, "grant", Offer)
        assert statements.about(tx, "grant", Revocation) == [two, one], "a clock may have been set back"
        assert statements.about(tx, "another", Revocation) == []
        assert statements.about(tx, "grant", Offer) == []
        assert statements.is_about(tx, one.id, "grant", Revocation)
        assert not statements.is_about(tx, one.id, "another", Revocation)
        assert not statements.is_about(tx, one.id, "grant", Cut)
        assert statements.of_kind(tx, "revocation") == [two.envelope, one.envelope]
    assert parse(one.envelope, Revocation) == one


def test_the_newest_of_many_kept_in_one_millisecond_is_the_last(database: Database) -> None:
    """A receipt names the newest accept; by time and id it named one that never reached the sender."""
    made = [revocation(number) for number in range(20)]
    for item in made:
        with database.begin() as tx:
            statements.put(tx, item, about="grant", now=1)
    with database.begin() as tx:
        statements.put(tx, made[3], about="grant", now=1)
        assert statements.about(tx, "grant", Revocation) == made
        assert statements.ids(tx, "revocation", about="grant") == [item.id for item in made]


def test_the_outbox_keeps_order_and_owners(database: Database) -> None:
    made = [revocation(number) for number in range(5)]
    with database.begin() as tx:
        for item in made:
            statements.put(tx, item, about="grant", now=1)
            statements.post(tx, ANA, item.id)
        statements.post(tx, BEN, made[0].id)
    with database.begin() as tx:
        batch = statements.posted(tx, ANA, 3)
        assert [envelope for _, envelope in batch] == [item.envelope for item in made[:3]]
        statements.unpost(tx, [number for number, _ in batch])
        assert [envelope for _, envelope in statements.posted(tx, ANA, 9)] == [item.envelope for item in made[3:]]
        assert (statements.count_posted(tx, ANA), statements.count_posted(tx, BEN)) == (2, 1)
        assert statements.count_posted(tx, ANA, kind="revocation") == 2
        assert statements.count_posted(tx, ANA, kind="offer") == 0
        assert statements.is_posted(tx, BEN, made[0].id)
        assert not statements.is_posted(tx, ANA, made[0].id)
        assert sorted(statements.peers_with_post(tx)) == [ANA, BEN]


@pytest.mark.parametrize("size", [0, 1, PAGE_BYTES, PAGE_BYTES + 1, 2 * PAGE_BYTES])
def test_a_body_comes_back_whole_and_page_by_page(database: Database, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    with database.begin() as tx:
        digest = statements.put_body(tx, data)
        assert statements.put_body(tx, data) == digest == sha256(data).hexdigest()
    with database.begin() as tx:
        assert statements.body(tx, digest) == data
        pages: list[bytes] = []
        last = False
        while not last:
            found = statements.page_of(tx, digest, len(pages))
            assert found is not None
            page, last = found
            pages.append(page)
        assert b"".join(pages) == data
        assert statements.page_of(tx, digest, len(pages)) is None
        assert statements.body(tx, "0" * 64) is None
