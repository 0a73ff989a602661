"""The trail on disk: entries, tree, checkpoints, openings, scopes - and what a failed transaction leaves of them: nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from labxchange.audit.checkpoint import parse_note, verify_note
from labxchange.audit.entry import Entry, Who
from labxchange.audit.events import Event
from labxchange.audit.leaf import check_opening, parse
from labxchange.audit.scope import Scope
from labxchange.errors import NodeLocked
from labxchange.identity.keys import Identity
from labxchange.merkle import leaf_hash, root_of, verify_consistency, verify_inclusion
from labxchange.store.database import Database
from labxchange.store.trail import Stamp, Trail

ADA = Identity(b"a" * 32)
WHO = Who(person="Ada", role="", organisation="A", key=ADA.public.hex(), authenticated="passphrase", actor="person")


class Bench:
    """A trail over a database, and a clock that ticks at each look."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "node.db"
        self.now = 1_800_000_000_000
        self.open()

    def open(self, *, unlock: bool = True) -> None:
        self.database = Database(self.path)
        self.trail = Trail(ADA.public, stamp=self.stamp, random_bytes=random.Random(7).randbytes, software="test")
        with self.database.begin() as tx:
            self.trail.reload(tx)
        if unlock:
            self.trail.unlock(ADA)

    def stamp(self) -> Stamp:
        self.now += 1
        return Stamp(utc_ms=self.now, local="2027-01-15T08:00:00+00:00 UTC", monotonic_ms=self.now % 10**9, source="system clock")

    def write(self, *entries: Entry) -> None:
        with self.database.begin() as tx:
            for entry in entries:
                self.trail.append(tx, entry)
            self.trail.seal(tx)

    def leaves(self) -> list[bytes]:
        with self.database.begin() as tx:
            return [item.leaf for item in self.trail.entries(tx)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.database.close()


def viewed(number: int = 0, **fields: str) -> Entry:
    return Entry(event=Event.TRAIL_VIEWED, object_type="trail", object_id=f"no {number}", who=WHO, **fields)  # type: ignore[arg-type]


def test_each_batch_is_sealed_and_provable(bench: Bench) -> None:
    notes: list[str] = []
    for batch in range(1, 9):
        bench.write(*(viewed(number) for number in range(batch)))
        with bench.database.begin() as tx:
            notes.append(bench.trail.newest_checkpoint(tx))
    leaves = [leaf_hash(leaf) for leaf in bench.leaves()]
    assert len(leaves) == bench.trail.size == 36
    heads = [verify_note(parse_note(note), ADA.trail_public) for note in notes]
    with bench.database.begin() as tx:
        for head in heads:
            assert head.root == root_of(leaves[: head.size])
            proof = bench.trail.consistency(tx, head.size, 36)
            assert verify_consistency(old=head.size, new=36, old_root=head.root, new_root=heads[-1].root, proof=proof)
        for seq in range(36):
            proof = bench.trail.inclusion(tx, seq, 36)
            assert verify_inclusion(leaves[seq], index=seq, size=36, proof=proof, root=heads[-1].root)
        assert bench.trail.checkpoint_at(tx, 3) == notes[1]
        assert bench.trail.checkpoint_at(tx, 4) == ""


def test_a_transaction_that_fails_leaves_nothing(bench: Bench) -> None:
    bench.write(viewed(1, study="S"))
    before = bench.leaves()

    def fail() -> None:
        with bench.database.begin() as tx:
            bench.trail.append(tx, viewed(2, study="S"))
            bench.trail.append(tx, viewed(3, study="T"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with bench.database.begin() as tx:
        bench.trail.reload(tx)
    assert bench.leaves() == before
    bench.write(viewed(4, study="S"))
    with bench.database.begin() as tx:
        head = verify_note(parse_note(bench.trail.newest_checkpoint(tx)), ADA.trail_public)
        assert {(scope.name, count.counter) for scope, count in bench.trail.scopes(tx)} == {("S", 2)}
    assert head.size == 2
    assert head.root == root_of(leaf_hash(leaf) for leaf in bench.leaves())


def test_it_goes_on_where_it_was_after_a_restart(bench: Bench) -> None:
    bench.write(viewed(1), viewed(2), viewed(3))
    epoch, leaves = bench.trail.epoch, bench.leaves()
    bench.database.close()
    bench.open()
    assert (bench.trail.size, bench.trail.epoch) == (3, epoch)
    bench.write(viewed(4))
    assert bench.leaves()[:3] == leaves
    assert [parse(leaf).seq for leaf in bench.leaves()] == [0, 1, 2, 3]


def test_a_locked_node_writes_little_and_the_next_unlock_signs_it(bench: Bench) -> None:
    bench.write(viewed(1))
    bench.database.close()
    bench.open(unlock=False)
    with pytest.raises(NodeLocked), bench.database.begin() as tx:
        bench.trail.append(tx, viewed(2))
    with bench.database.begin() as tx:
        bench.trail.append(tx, Entry(event=Event.SYSTEM_STARTED, object_type="node", who=WHO, new="secret"))
        bench.trail.seal(tx)
        assert parse_note(bench.trail.newest_checkpoint(tx)).checkpoint.size == 1
        with pytest.raises(NodeLocked):
            bench.trail.openings(tx, 0)
    bench.trail.unlock(ADA)
    with bench.database.begin() as tx:
        assert bench.trail.openings(tx, 1) == ()
        assert b"secret" not in bench.trail.leaf(tx, 1)
        bench.trail.seal(tx)
        assert parse_note(bench.trail.newest_checkpoint(tx)).checkpoint.size == 2


def test_fields_are_committed_and_open_only_here(bench: Bench) -> None:
    bench.write(viewed(1, reason_text="because of Bo", study="S"))
    with bench.database.begin() as tx:
        item = bench.trail.entry(tx, 0)
    leaf = parse(item.leaf)
    for hidden in (b"because of Bo", b"no 1", b"Ada"):
        assert hidden not in item.leaf
    opened = {opening.name: opening for opening in item.openings}
    assert opened["reason_text"].value == b'"because of Bo"'
    assert opened["object_id"].value == b'"no 1"'
    for opening in item.openings:
        assert check_opening(leaf, opening.name, salt=opening.salt, value=opening.value)
        assert not check_opening(leaf, opening.name, salt=opening.salt, value=opening.value + b" ")
    raw = bench.path.read_bytes() + bench.path.with_name("node.db-wal").read_bytes()
    assert b"because of Bo" not in raw, "the database holds it sealed"


def test_scopes_count_without_gaps(bench: Bench) -> None:
    for number in range(5):
        bench.write(viewed(number, study="S", site="1" if number % 2 else ""))
    with bench.database.begin() as tx:
        heads = {scope: count.counter for scope, count in bench.trail.scopes(tx)}
    assert heads == {Scope(kind="study", name="S"): 5, Scope(kind="site", name="1"): 2}
    counters = [[scope.counter for scope in parse(leaf).scopes] for leaf in bench.leaves()]
    assert counters == [[1], [2, 1], [3], [4, 2], [5]]


def test_a_new_epoch_has_another_origin_and_keeps_the_entries(bench: Bench) -> None:
    bench.write(viewed(1))
    first = bench.trail.origin
    with bench.database.begin() as tx:
        assert bench.trail.epoch_begin(tx) is None
        bench.trail.open_epoch(tx)
    bench.write(Entry(event=Event.TRAIL_RESTORED, object_type="trail", who=WHO))
    bench.write(viewed(2))
    assert bench.trail.origin != first
    assert [parse(leaf).origin for leaf in bench.leaves()] == [first, bench.trail.origin, bench.trail.origin]
    with bench.database.begin() as tx:
        assert bench.trail.epoch_begin(tx) == 1
        assert [size for size, _ in bench.trail.epoch_checkpoints(tx)] == [1, 3]


def test_cosignatures_are_kept_once(bench: Bench) -> None:
    bench.write(viewed(1))
    bench.write(viewed(2))
    with bench.database.begin() as tx:
        for _ in range(2):
            bench.trail.add_cosignature(tx, size=1, cosigner="b" * 64, line="line\n")
        bench.trail.add_cosignature(tx, size=2, cosigner="b" * 64, line="other\n")
        found = bench.trail.cosigned(tx)
    assert [(size, cosigner, line) for size, cosigner, _, line in found] == [(1, "b" * 64, "line\n"), (2, "b" * 64, "other\n")]


def test_newest_first_by_event_and_time(bench: Bench) -> None:
    bench.write(viewed(1), Entry(event=Event.CLOCK_RESET, object_type="clock", who=WHO), viewed(2))
    with bench.database.begin() as tx:
        assert list(bench.trail.newest(tx)) == [2, 1, 0]
        assert list(bench.trail.newest(tx, event="trail.")) == [2, 0]
        assert list(bench.trail.newest(tx, event="trail%")) == []
        middle = parse(bench.trail.leaf(tx, 1)).utc_ms
        assert list(bench.trail.newest(tx, since=middle)) == [2, 1]
        assert list(bench.trail.newest(tx, until=middle)) == [0]
