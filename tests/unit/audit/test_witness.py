"""Whether to cosign: growth, rollback, fork, restore and rotation, each against a real tree."""

from __future__ import annotations

import pytest

from labxchange.audit.checkpoint import Checkpoint
from labxchange.audit.witness import EpochStart, Forked, Grown, Restored, RolledBack, Stale, held_size, judge, may_cosign
from tests.unit.audit.world import SPONSOR, Trail, entry, sample
from tests.vectors.make_audit import rotated

TRAIL = sample(30)


def fork(at: int, size: int) -> Trail:
    """The same trail up to ``at``, other entries after it."""
    other = Trail(SPONSOR, "fork")
    for built in TRAIL.leaves[:at]:
        other.append(built)
    while other.size < size:
        other.write(entry(1000 + other.size))
    other.checkpoint()
    return other


def test_first_sight_and_growth() -> None:
    assert judge(None, TRAIL.notes[5].checkpoint, old_size=0, proof=[]) == Grown(entries=5)
    for old in (5, 10, 25):
        for new in (old, 30):
            judged = judge(TRAIL.seen_at(old), TRAIL.notes[new].checkpoint, old_size=old, proof=TRAIL.consistency(old, new))
            assert judged == Grown(entries=new - old)
            assert may_cosign(judged)


def test_a_proof_from_another_size_is_asked_again() -> None:
    judged = judge(TRAIL.seen_at(10), TRAIL.notes[30].checkpoint, old_size=5, proof=TRAIL.consistency(5, 30))
    assert judged == Stale(size=10)
    assert not may_cosign(judged)


def test_rollback_needs_no_proof() -> None:
    judged = judge(TRAIL.seen_at(25), TRAIL.notes[20].checkpoint, old_size=25, proof=[])
    assert isinstance(judged, RolledBack)
    assert not may_cosign(judged)


def test_two_roots_for_one_size_are_evidence() -> None:
    other = fork(7, 25)
    judged = judge(TRAIL.seen_at(25), other.notes[25].checkpoint, old_size=25, proof=[])
    assert isinstance(judged, Forked)
    assert judged.proven
    assert judged.seen.note == TRAIL.notes[25].text


@pytest.mark.parametrize("old", [5, 10, 15, 25])
def test_a_rewritten_history_has_no_proof(old: int) -> None:
    other = fork(old - 1, 33)
    for proof in (other.consistency(old, 33), TRAIL.consistency(old, 30), []):
        judged = judge(TRAIL.seen_at(old), other.notes[33].checkpoint, old_size=old, proof=proof)
        assert isinstance(judged, Forked)
        assert not judged.proven


def test_restore_that_lost_entries_says_how_many() -> None:
    after = TRAIL.restored(22, epoch=2)
    after.write(entry(1))
    point = after.checkpoint().checkpoint
    start = after.epoch_start(22)
    assert held_size(point, start) == 22
    judged = judge(
        TRAIL.seen_at(25), point, old_size=20, proof=after.consistency(20, 24), epoch_start=start, earlier=TRAIL.seen_at(20)
    )
    assert judged == Restored(held=22, missing=3)
    assert may_cosign(judged)
    assert judge(TRAIL.seen_at(25), point, old_size=0, proof=[], epoch_start=start) == Restored(held=22, missing=3)


def test_restore_that_lost_nothing_seen_must_be_consistent() -> None:
    after = TRAIL.restored(27, epoch=2)
    point = after.checkpoint().checkpoint
    start = after.epoch_start(27)
    judged = judge(TRAIL.seen_at(25), point, old_size=25, proof=after.consistency(25, 28), epoch_start=start)
    assert judged == Restored(held=27, missing=0)
    assert isinstance(judge(TRAIL.seen_at(25), point, old_size=25, proof=[], epoch_start=start), Forked)


def test_a_restore_cannot_rewrite_what_remains() -> None:
    forged = fork(11, 22).restored(22, epoch=2)
    point = forged.checkpoint().checkpoint
    judged = judge(
        TRAIL.seen_at(25),
        point,
        old_size=20,
        proof=forged.consistency(20, 23),
        epoch_start=forged.epoch_start(22),
        earlier=TRAIL.seen_at(20),
    )
    assert isinstance(judged, Forked)


def test_a_new_epoch_without_its_first_entry_is_a_rollback() -> None:
    after = TRAIL.restored(22, epoch=2)
    after.write(entry(1))
    point = after.checkpoint().checkpoint
    good = after.epoch_start(22)
    for start in (
        None,
        after.epoch_start(21),
        after.epoch_start(23),
        EpochStart(leaf=good.leaf, proof=good.proof[:-1]),
        EpochStart(leaf=good.leaf[:-1], proof=good.proof),
        TRAIL.epoch_start(22),
    ):
        assert isinstance(judge(TRAIL.seen_at(25), point, old_size=25, proof=[], epoch_start=start), RolledBack)


def test_an_earlier_epoch_is_a_rollback() -> None:
    after = TRAIL.restored(22, epoch=2)
    after.checkpoint()
    judged = judge(after.seen_at(23), TRAIL.notes[30].checkpoint, old_size=23, proof=TRAIL.consistency(23, 30))
    assert isinstance(judged, RolledBack)


def test_a_seed_alone_restores_nothing_of_the_trail() -> None:
    after = TRAIL.restored(0, epoch=2)
    point = after.checkpoint().checkpoint
    judged = judge(TRAIL.seen_at(25), point, old_size=0, proof=[], epoch_start=after.epoch_start(0))
    assert judged == Restored(held=0, missing=25)


def test_rotation_keeps_every_entry() -> None:
    trail, _, _ = rotated()
    point = trail.notes[6].checkpoint
    start = trail.epoch_start(5)
    assert judge(trail.seen_at(5), point, old_size=5, proof=trail.consistency(5, 6), epoch_start=start) == Grown(entries=1)
    longer = Checkpoint(origin=trail.notes[5].checkpoint.origin, size=9, root=bytes(32))
    lost = trail.seen_at(5)
    judged = judge(type(lost)(checkpoint=longer, note=""), point, old_size=5, proof=[], epoch_start=start)
    assert isinstance(judged, RolledBack)
