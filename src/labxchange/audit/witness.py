"""The rule by which a party cosigns another party's trail, or stops.

What is kept here, after C2SP tlog-witness:
- a trail never gets smaller within an epoch, and never changes what it had;
- epochs only grow, and a new one begins with ``trail.restored`` or ``key.rotated``, shown by an inclusion proof; the tree goes
  on from there;
- a restore loses the entries after the point it holds: that is said and counted, and is no divergence;
- two roots for one size, both signed, are evidence and are returned whole.
The caller first verifies the note's signature with the peer's trail key and checks that the origin is the peer's (or, by a
succession signed with both keys, its new one's), and persists the new ``Seen`` in one transaction *before* it answers. What a
person is asked, and the entries written, are left to the node.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from labxchange.audit.checkpoint import Checkpoint, parse_origin
from labxchange.audit.events import Event
from labxchange.audit.leaf import Parsed, parse
from labxchange.errors import IntegrityError
from labxchange.merkle import leaf_hash, verify_consistency, verify_inclusion


class Seen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The newest checkpoint of a peer that was cosigned, with the signed note as evidence."""

    checkpoint: Checkpoint
    note: str


class EpochStart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The first leaf of the new epoch, verbatim, and its inclusion proof in the checkpoint that is judged."""

    leaf: bytes
    proof: tuple[bytes, ...]


class Grown(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Consistent with what was seen: cosign. ``entries`` are new; all of them at first sight."""

    entries: int


class Restored(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A new epoch after a restore: cosign, and show that ``missing`` entries which were seen are gone (``held`` remain)."""

    held: int
    missing: int


class Stale(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The proof starts from another size than the one seen: ask again from ``size`` (tlog-witness answers 409)."""

    size: int


class RolledBack(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The trail is smaller, or of an earlier epoch, than what was cosigned: stop until a person decides."""

    seen: Seen
    checkpoint: Checkpoint


class Forked(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Two roots for one size, or no proof that the new tree extends the old one: stop until a person decides.

    ``proven`` when the two checkpoints contradict each other without any proof.
    """

    seen: Seen
    checkpoint: Checkpoint
    proven: bool


Judgement = Grown | Restored | Stale | RolledBack | Forked


def may_cosign(judgement: Judgement) -> bool:
    """True for the judgements after which the checkpoint is persisted as seen, and cosigned."""
    return isinstance(judgement, Grown | Restored)


def held_size(checkpoint: Checkpoint, epoch_start: EpochStart | None) -> int | None:
    """How many entries the peer's new epoch began with, when ``epoch_start`` proves that it began there; else None."""
    leaf = _proven(checkpoint, epoch_start)
    return leaf.seq if leaf is not None else None


def _proven(checkpoint: Checkpoint, epoch_start: EpochStart | None) -> Parsed | None:
    if epoch_start is None:
        return None
    try:
        leaf = parse(epoch_start.leaf)
    except IntegrityError:
        return None
    begins = leaf.origin == checkpoint.origin and leaf.event in (Event.TRAIL_RESTORED, Event.KEY_ROTATED)
    proven = verify_inclusion(
        leaf_hash(epoch_start.leaf), index=leaf.seq, size=checkpoint.size, proof=epoch_start.proof, root=checkpoint.root
    )
    return leaf if begins and proven else None


def judge(
    seen: Seen | None,
    checkpoint: Checkpoint,
    *,
    old_size: int,
    proof: Sequence[bytes],
    epoch_start: EpochStart | None = None,
    earlier: Seen | None = None,
) -> Judgement:
    """Compare a peer's verified checkpoint with what was seen of that peer.

    Args:
        seen: the newest checkpoint of the peer that was cosigned; None at first sight.
        old_size: where the peer's consistency proof starts: ``seen``'s size, or ``earlier``'s after a restore that lost entries.
        proof: consistency proof from ``old_size`` to the checkpoint's size.
        epoch_start: given by the peer when its epoch is newer than the one seen.
        earlier: the largest seen checkpoint that is not larger than ``held_size``; after a lossy restore it must still be there.
    """
    if seen is None:
        return Grown(entries=checkpoint.size)
    before, now = parse_origin(seen.checkpoint.origin), parse_origin(checkpoint.origin)
    if now == before:
        return _extended(seen, checkpoint, old_size=old_size, proof=proof)
    first = _proven(checkpoint, epoch_start) if now.epoch > before.epoch else None
    missing = max(0, seen.checkpoint.size - first.seq) if first is not None else 0
    if first is None or (missing and first.event == Event.KEY_ROTATED):
        return RolledBack(seen=seen, checkpoint=checkpoint)
    anchor = earlier if missing else seen
    if anchor is not None:
        judgement = _extended(anchor, checkpoint, old_size=old_size, proof=proof)
        if not isinstance(judgement, Grown):
            return judgement
    if first.event == Event.KEY_ROTATED:
        return Grown(entries=checkpoint.size - seen.checkpoint.size)
    return Restored(held=first.seq, missing=missing)


def _extended(seen: Seen, checkpoint: Checkpoint, *, old_size: int, proof: Sequence[bytes]) -> Judgement:
    """Does the checkpoint extend what was seen?"""
    old = seen.checkpoint
    if checkpoint.size < old.size:
        return RolledBack(seen=seen, checkpoint=checkpoint)
    if checkpoint.size == old.size:
        if checkpoint.root == old.root:
            return Grown(entries=0)
        return Forked(seen=seen, checkpoint=checkpoint, proven=True)
    if old_size != old.size:
        return Stale(size=old.size)
    grown = verify_consistency(old=old.size, new=checkpoint.size, old_root=old.root, new_root=checkpoint.root, proof=proof)
    return Grown(entries=checkpoint.size - old.size) if grown else Forked(seen=seen, checkpoint=checkpoint, proven=False)
