"""The trail on disk: entries with their checkpoint or not at all, the same tree after a failure and after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from labxchange.audit.checkpoint import parse_note, verify_note
from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.audit.leaf import check_opening, parse
from labxchange.errors import NodeLocked
from labxchange.identity.keys import Identity
from labxchange.merkle import Frontier, leaf_hash, verify_consistency, verify_inclusion
from labxchange.store.database import Database
from labxchange.store.trail import Stamp, Trail

ME = Identity(b"\x05" * 32)


class Desk:
    """A database and its trail, with a clock that counts."""

    def __init__(self, path: Path) -> None:
        self.path, self.now = path, 1_800_000_000_000
        self.open()

    def open(self) -> None:
        self.database = Database(self.path)
        self.trail = Trail(ME.public, stamp=self.stamp, random_bytes=self.random, software="test 1")
        with self.database.begin() as tx:
            self.trail.reload(tx)
        self.trail.unlock(ME)

    def stamp(self) -> Stamp:
        self.now += 1
        return Stamp(utc_ms=self.now, local="2027-01-15T09:00:00+01:00 CET", monotonic_ms=self.now - 1_800_000_000_000, source="test")

    def random(self, count: int) -> bytes:
        self.now += 1
        return self.now.to_bytes(count, "big") if count >= 8 else bytes(count)

    def write(self, *entries: Entry) -> None:
        with self.database.begin() as tx:
            for entry in entries:
                self.trail.append(tx, entry)
            self.trail.seal(tx)

    def root(self) -> bytes:
        """The root of what is stored, by leaves alone."""
        frontier = Frontier()
        with self.database.begin() as tx:
            for seq in range(self.trail.stored_size(tx)):
                frontier.append(leaf_hash(self.trail.leaf(tx, seq)))
        return frontier.root()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "node.db")
    yield made
    made.database.close()


def note(number: int, **fields: str) -> Entry:
    return Entry(event=Event.CONFIG_CHANGED, object_type="card", object_id=f"object {number}", **fields)


def test_an_entry_and_its_checkpoint_are_one(desk: Desk) -> None:
    desk.write(note(0), note(1))
    desk.write(note(2))
    assert desk.trail.size == 3
    with desk.database.begin() as tx:
        newest = verify_note(parse_note(desk.trail.newest_checkpoint(tx)), ME.trail_public)
        assert (newest.size, newest.root, newest.origin) == (3, desk.root(), desk.trail.origin)
        assert parse_note(desk.trail.checkpoint_at(tx, 2)).checkpoint.size == 2
        assert desk.trail.checkpoint_at(tx, 1) == ""
        proof = desk.trail.consistency(tx, 2, 3)
        old = parse_note(desk.trail.checkpoint_at(tx, 2)).checkpoint.root
        verify_consistency(2, 3, proof, old, newest.root)
        leaf = desk.trail.leaf(tx, 1)
        verify_inclusion(leaf_hash(leaf), 1, 3, desk.trail.inclusion(tx, 1, 3), newest.root)


def test_after_a_failed_transaction_the_trail_goes_on_as_if_it_never_was(desk: Desk) -> None:
    desk.write(note(0, study="ABC"))
    before = desk.root()
    with pytest.raises(RuntimeError), desk.database.begin() as tx:
        desk.trail.append(tx, note(1, study="ABC", counterparty="c" * 64))
        desk.trail.append(tx, note(2))
        raise RuntimeError
    with desk.database.begin() as tx:
        desk.trail.reload(tx)
    assert (desk.trail.size, desk.root()) == (1, before)
    desk.write(note(3, study="ABC", counterparty="c" * 64))
    with desk.database.begin() as tx:
        entries = list(desk.trail.entries(tx))
        assert [item.seq for item in entries] == [0, 1]
        assert [count.counter for _, count in desk.trail.scopes(tx)] == [2]
        assert verify_note(parse_note(desk.trail.newest_checkpoint(tx)), ME.trail_public).root == desk.root()
        assert {opening.name for opening in entries[1].openings} >= {"object_id", "counterparty"}


def test_a_restart_takes_up_the_same_tree(desk: Desk) -> None:
    for number in range(9):
        desk.write(note(number))
    root, origin = desk.root(), desk.trail.origin
    desk.database.close()
    desk.open()
    assert (desk.trail.size, desk.root(), desk.trail.origin) == (9, root, origin)
    desk.write(note(9))
    with desk.database.begin() as tx:
        assert verify_note(parse_note(desk.trail.newest_checkpoint(tx)), ME.trail_public).root == desk.root()


def test_a_locked_node_writes_little_and_the_unlock_signs_it(desk: Desk) -> None:
    desk.write(note(0))
    desk.trail.lock()
    with pytest.raises(NodeLocked), desk.database.begin() as tx:
        desk.trail.append(tx, note(1))
    with desk.database.begin() as tx:
        desk.trail.reload(tx)
    desk.write(Entry(event=Event.ACCESS_DENIED, object_type="connection", object_id="secret", result="denied", result_code="x"))
    with desk.database.begin() as tx:
        assert parse_note(desk.trail.newest_checkpoint(tx)).checkpoint.size == 1
        assert b"secret" not in desk.trail.leaf(tx, 1)
        with pytest.raises(NodeLocked):
            desk.trail.openings(tx, 0)
    desk.trail.unlock(ME)
    desk.write()
    with desk.database.begin() as tx:
        assert parse_note(desk.trail.newest_checkpoint(tx)).checkpoint.size == 2
        assert desk.trail.openings(tx, 1) == ()


def test_fields_are_sealed_and_fit_their_commitments(desk: Desk) -> None:
    desk.write(note(0, old="before", new="after", reason_text="because"))
    with desk.database.begin() as tx:
        (item,) = desk.trail.entries(tx)
        stored = b"".join(bytes(row[0]) for row in tx.exec_driver_sql("SELECT sealed FROM trail_openings"))
    assert b"because" not in item.leaf + stored
    assert {opening.name for opening in item.openings} >= {"object_id", "old", "new", "reason_text"}
    leaf = parse(item.leaf)
    for opening in item.openings:
        assert check_opening(leaf, opening.name, opening.salt, opening.value)
        assert not check_opening(leaf, opening.name, opening.salt, opening.value + b" ")


def test_newest_first_by_event_and_time(desk: Desk) -> None:
    desk.write(note(0), Entry(event=Event.SYSTEM_STARTED, object_type="node"), note(1))
    with desk.database.begin() as tx:
        assert list(desk.trail.newest(tx)) == [2, 1, 0]
        assert list(desk.trail.newest(tx, event="config.")) == [2, 0]
        assert list(desk.trail.newest(tx, event="config%")) == []
        when = parse(desk.trail.leaf(tx, 1)).utc_ms
        assert list(desk.trail.newest(tx, since=when)) == [2, 1]
        assert list(desk.trail.newest(tx, until=when)) == [0]
