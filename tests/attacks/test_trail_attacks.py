"""Attacks on an exported trail: campaign rows 8 (bundle, checkpoint) and 9 (log attacks).

Two attackers: one who changes the file and holds no key, and the owner, who holds all of the owner's keys and can sign anything
again. Whatever the first does must be INVALID. What the owner does must be INVALID or DIVERGED wherever a counterparty's
cosignature or what a counterparty saw is at hand, and may never be VALID beyond what was cosigned.
The seed is LABXCHANGE_SEED (default 1) and is printed; `pytest -m campaign` runs the long amounts.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from hashlib import sha256

import pytest

from labxchange.audit import verifier
from labxchange.audit.checkpoint import cosign, cosigner_name
from labxchange.audit.leaf import Leaf
from labxchange.audit.verifier import Evidence, Result, Verdict
from labxchange.audit.witness import Forked, RolledBack, Stale, judge, may_cosign
from labxchange.encoding import b64encode, dump_json
from tests.unit.audit.world import CRO, SPONSOR, STRANGER, Trail, entry, sample, sealed_again

SEED = os.environ.get("LABXCHANGE_SEED", "1")
TRUST = [SPONSOR.fingerprint, CRO.fingerprint]
SIZE = 20
EVERY = 4
TRAIL = sample(SIZE, every=EVERY)
BUNDLE = TRAIL.bundle(parties=[CRO])
LINES = BUNDLE.splitlines(keepends=True)
SMALL = sample(6, every=3).bundle(parties=[CRO])
SEEN = {size: TRAIL.notes[size].text + "".join(TRAIL.cosignatures.get(size, ())) for size in TRAIL.notes}
CAUGHT = (Verdict.INVALID, Verdict.DIVERGED)


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    print(f"LABXCHANGE_SEED={SEED}")
    return random.Random(f"{SEED} {request.node.name}")


def check(data: bytes, *seen: str) -> Result:
    return verifier.verify(data, trust=TRUST, evidence=Evidence(notes=seen))


def kind_of(line: bytes) -> str:
    return str(json.loads(line)["t"])


def rearranged() -> Iterator[tuple[str, int, list[bytes]]]:
    """Every line deleted, doubled, exchanged with its neighbour, moved to every other place of the tree, and cut after it."""
    for at, line in enumerate(LINES):
        yield "deleted", at, LINES[:at] + LINES[at + 1 :]
        yield "doubled", at, [*LINES[: at + 1], line, *LINES[at + 1 :]]
        yield "cut", at, LINES[:at]
        if at + 1 < len(LINES):
            yield "exchanged", at, [*LINES[:at], LINES[at + 1], line, *LINES[at + 2 :]]
        rest = LINES[:at] + LINES[at + 1 :]
        for to in range(len(LINES)):
            if abs(to - at) > 1:
                yield "moved", at, [*rest[:to], line, *rest[to:]]


def test_the_file_is_valid_before_the_attacks() -> None:
    assert check(BUNDLE).verdict is Verdict.VALID
    assert check(BUNDLE, *SEEN.values()).verdict is Verdict.VALID
    assert check(BUNDLE).anchored == 16


def test_no_line_can_be_deleted_doubled_moved_or_cut_off() -> None:
    cases = 0
    for what, at, lines in rearranged():
        if lines != LINES:
            cases += 1
            assert check(b"".join(lines)).verdict is Verdict.INVALID, (what, at)
    assert cases > 1100


def test_the_file_can_be_cut_nowhere() -> None:
    step = 97
    for length in range(0, len(BUNDLE), step):
        assert check(BUNDLE[:length]).verdict is Verdict.INVALID
    assert check(BUNDLE[:-1]).verdict is Verdict.INVALID


def test_the_owner_rearranges_lines_and_signs_the_file_again() -> None:
    """What remains valid is the same history, told with fewer of its confirmations."""
    kept = 0
    for what, at, lines in rearranged():
        if what == "moved" and at % 4:
            continue
        data = sealed_again(lines)
        result = check(data)
        if result.verdict is Verdict.INVALID or data == BUNDLE:
            continue
        kept += 1
        assert what == "cut" or kind_of(LINES[at]) not in ("leaf", "index"), (what, at)
        assert result.anchored <= 16
        known = check(data, *SEEN.values()).verdict
        if what == "cut":
            assert known in CAUGHT
        else:
            assert result.size == SIZE
            assert known in (result.verdict, Verdict.VALID)
    assert kept > 20


def flip(bit: int) -> bytes:
    damaged = bytearray(SMALL)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def place_of(bit: int) -> tuple[int, int | None]:
    """The line (from 1) and the entry of a bit of the bundle."""
    offset, leaf = 0, None
    for number, line in enumerate(SMALL.splitlines(keepends=True), start=1):
        offset += len(line)
        if bit // 8 < offset:
            value = json.loads(line)
            leaf = value["seq"] if value["t"] == "leaf" else None
            return number, leaf
    raise AssertionError


def assert_flip_is_found(bit: int) -> None:
    result = check(flip(bit))
    assert result.verdict is Verdict.INVALID, bit
    line, entry_number = place_of(bit)
    if entry_number is not None:
        assert any(reason.entry == entry_number or reason.line in (line, line + 1) for reason in result.reasons), (bit, line)


def test_flipped_bits_of_a_bundle_are_found_and_the_entry_named(chance: random.Random) -> None:
    for bit in chance.sample(range(len(SMALL) * 8), 3000):
        assert_flip_is_found(bit)


@pytest.mark.campaign
def test_every_bit_of_a_bundle() -> None:
    for bit in range(len(SMALL) * 8):
        assert_flip_is_found(bit)


# --- the owner rewrites the history


def rewritten(trail: Trail, *, first: int, leaves: list[Leaf], seed: str = "again") -> Trail:
    """A new trail of ``leaves``, checkpointed at the same sizes; checkpoints up to ``first`` keep their cosignatures."""
    again = Trail(trail.party, seed)
    again.statements, again.now_ms = list(trail.statements), trail.now_ms
    for built in leaves:
        again.append(built)
        for item in json.loads(built.data)["scopes"]:
            again.counters[item["tag"]] = item["counter"]
        if again.size in trail.notes or again.size == len(leaves):
            again.checkpoint()
            if again.size <= first and again.size in trail.cosignatures:
                again.cosignatures[again.size] = list(trail.cosignatures[again.size])
    return again


def renumbered(leaves: list[Leaf]) -> list[Leaf]:
    """The owner corrects the numbers, counters and clocks of moved entries, so that only the history is wrong."""
    out: list[Leaf] = []
    counters: dict[str, int] = {}
    for seq, built in enumerate(leaves):
        raw = json.loads(built.data)
        raw["seq"], raw["monotonic_ms"] = seq, seq
        for item in raw["scopes"]:
            item["counter"] = counters[item["tag"]] = counters.get(item["tag"], 0) + 1
        out.append(Leaf(data=dump_json(raw), openings=built.openings))
    return out


def histories(chance: random.Random) -> Iterator[tuple[str, int, list[Leaf]]]:
    """Every false history of a kind, with the first entry that differs."""
    leaves = TRAIL.leaves
    for at in range(SIZE):
        edited = json.loads(leaves[at].data)
        edited["result_code"] = f"edited {chance.random()}"
        yield "edited", at, [*leaves[:at], Leaf(data=dump_json(edited), openings=leaves[at].openings), *leaves[at + 1 :]]
        yield "deleted", at, renumbered(leaves[:at] + leaves[at + 1 :])
        yield "doubled", at, renumbered([*leaves[: at + 1], *leaves[at:]])
        other = Trail(SPONSOR, f"other {at}")
        for number in range(at + 1):
            other.write(entry(500 + number))
        yield "inserted", at, renumbered([*leaves[:at], other.leaves[at], *leaves[at:]])
        for to in range(at + 1, SIZE, 2):
            order = leaves[:at] + leaves[at + 1 : to + 1] + [leaves[at]] + leaves[to + 1 :]
            yield "reordered", at, renumbered(order)


def test_no_false_history_survives_a_counterparty(chance: random.Random) -> None:
    """Edit, delete, double, insert or reorder at every entry, sign all again; against the cosignatures and what was seen."""
    cases = 0
    for what, at, leaves in histories(chance):
        seen = [size for size in SEEN if size > at and size in TRAIL.cosignatures]
        cosigned = max((size for size in TRAIL.cosignatures if size <= at), default=0)
        again = rewritten(TRAIL, first=at, leaves=leaves)
        data = again.bundle(parties=[CRO])

        alone = check(data)
        assert alone.anchored <= at, (what, at)
        assert alone.verdict is not Verdict.VALID or (alone.anchored == cosigned and alone.tail >= len(leaves) - at), (what, at)

        for size in seen:
            result = check(data, SEEN[size])
            assert result.verdict in CAUGHT, (what, at, size)
            cases += 1

        pasted = rewritten(TRAIL, first=SIZE, leaves=leaves)
        if any(size > at and size <= len(leaves) for size in TRAIL.cosignatures):
            assert check(pasted.bundle(parties=[CRO])).verdict is Verdict.INVALID, (what, at)
            cases += 1
    assert cases > 500


def test_an_edit_that_hides_in_stale_hashes_is_found(chance: random.Random) -> None:
    """The owner keeps the old leaf hash beside a new text, or the old tree below a new leaf."""
    for at in range(SIZE):
        number = next(n for n, line in enumerate(LINES) if kind_of(line) == "leaf" and json.loads(line)["seq"] == at)
        value = json.loads(LINES[number])
        raw = json.loads(value["leaf"])
        raw["result_code"] = "edited"
        value["leaf"] = dump_json(raw).decode()
        for digest in (
            value["hash"],
            b64encode(sha256(b"\x00" + value["leaf"].encode()).digest()),
            b64encode(chance.randbytes(32)),
        ):
            value["hash"] = digest
            lines = [*LINES[:number], dump_json(value) + b"\n", *LINES[number + 1 :]]
            result = check(sealed_again(lines))
            assert result.verdict is Verdict.INVALID
            assert any(reason.entry is not None and at <= reason.entry < at + EVERY for reason in result.reasons)


def test_rollback_to_each_checkpoint_is_shown_by_what_a_peer_saw() -> None:
    """Truncate at every entry, with and without the old checkpoints, and regrow; against each later cosigned checkpoint."""
    cases = 0
    for held in range(1, SIZE):
        short = rewritten(TRAIL, first=held, leaves=TRAIL.leaves[:held])
        regrown = rewritten(TRAIL, first=held, leaves=TRAIL.leaves[:held], seed=f"regrown {held}")
        if held not in TRAIL.notes:
            del regrown.notes[held]
        regrown.monotonic = 10**9
        while regrown.size < SIZE + 5:
            regrown.write(entry(2000 + regrown.size))
        regrown.checkpoint()
        for size in (size for size in TRAIL.cosignatures if size > held):
            result = check(short.bundle(parties=[CRO], exported_ms=TRAIL.now_ms + 1), SEEN[size])
            assert (result.verdict, result.reasons[0].code) == (Verdict.DIVERGED, "rolled-back")
            result = check(regrown.bundle(parties=[CRO]), SEEN[size])
            assert (result.verdict, result.reasons[0].code) == (Verdict.DIVERGED, "two-histories")
            assert result.reasons[0].entry == size - 1
            cases += 2
        alone = check(short.bundle(parties=[CRO]))
        assert alone.anchored <= held
        assert alone.verdict in (Verdict.VALID, Verdict.UNANCHORED, Verdict.INCOMPLETE)
        assert (alone.verdict is Verdict.UNANCHORED) == (alone.anchored == 0)
    assert cases == 72


def test_a_false_restore_does_not_cover_a_rewritten_history() -> None:
    for at in range(1, 12):
        edited = json.loads(TRAIL.leaves[at].data)
        edited["result_code"] = "edited"
        leaves = [*TRAIL.leaves[:at], Leaf(data=dump_json(edited), openings=()), *TRAIL.leaves[at + 1 :]]
        forged = rewritten(TRAIL, first=at, leaves=leaves).restored(14, epoch=2)
        forged.checkpoint()
        for size in (size for size in TRAIL.cosignatures if at < size <= 14):
            assert check(forged.bundle(parties=[CRO]), SEEN[size]).verdict is Verdict.DIVERGED


def test_foreign_trails_do_not_pass_for_the_owner(chance: random.Random) -> None:
    """Whole files, entries, checkpoints, cosignatures and cards of another trail in the owner's file."""
    other = sample(SIZE, every=EVERY, party=STRANGER)
    foreign = other.bundle(parties=[CRO]).splitlines(keepends=True)
    assert check(b"".join(foreign)).verdict is Verdict.INVALID
    assert len(foreign) == len(LINES)
    for at in range(len(LINES)):
        swapped = [*LINES[:at], foreign[at], *LINES[at + 1 :]]
        if foreign[at] != LINES[at]:
            assert check(b"".join(swapped)).verdict is Verdict.INVALID
            if kind_of(LINES[at]) not in ("statement", "end"):
                assert check(sealed_again(swapped)).verdict is Verdict.INVALID
        mixed = foreign[:at] + LINES[at:]
        assert at == 0 or check(b"".join(mixed)).verdict is Verdict.INVALID
    for _ in range(200):
        mixed = [chance.choice(pair) for pair in zip(LINES, foreign, strict=True)]
        assert check(b"".join(mixed)).verdict is (Verdict.VALID if mixed == LINES else Verdict.INVALID)


def test_a_cosignature_cannot_be_moved_or_made_by_another() -> None:
    sizes = sorted(TRAIL.cosignatures)
    for size in sizes:
        for other in sizes:
            forged = rewritten(TRAIL, first=0, leaves=TRAIL.leaves)
            forged.cosignatures[size] = list(TRAIL.cosignatures[other])
            result = check(forged.bundle(parties=[CRO]))
            assert result.verdict is (Verdict.VALID if size == other else Verdict.INVALID)
        forged = rewritten(TRAIL, first=0, leaves=TRAIL.leaves)
        for party in (SPONSOR, STRANGER):
            line = cosign(
                forged.notes[size].checkpoint,
                name=cosigner_name(CRO.fingerprint),
                sign=party.identity.sign_cosign,
                public=CRO.identity.cosign_public,
                time_s=1,
            )
            forged.cosignatures[size] = [line]
            assert check(forged.bundle(parties=[CRO])).verdict is Verdict.INVALID


def test_resealed_history_is_unanchored_alone_and_diverged_with_a_peer() -> None:
    """All entries written anew with other salts and ids, as an attacker of the whole machine would."""
    for number in range(40):
        forged = Trail(SPONSOR, f"resealed {number}")
        while forged.size < SIZE:
            forged.write(entry(forged.size))
            if forged.size % EVERY == 0:
                forged.checkpoint()
        assert check(forged.bundle()).verdict is Verdict.UNANCHORED
        for size in TRAIL.cosignatures:
            assert check(forged.bundle(), SEEN[size]).verdict is Verdict.DIVERGED


# --- the same attacks in a session, against the rule by which a counterparty cosigns


def test_no_false_history_is_cosigned(chance: random.Random) -> None:
    """Every false history, from every size seen, with an honest, a foreign, a cut and a random proof."""
    cases = 0
    for what, at, leaves in histories(chance):
        again = rewritten(TRAIL, first=0, leaves=leaves)
        point = again.notes[len(leaves)].checkpoint
        for size in (size for size in TRAIL.notes if size > at):
            if size > len(leaves):
                proofs = [[]]
            else:
                honest = again.consistency(size, len(leaves))
                proofs = [honest, honest[:-1], [chance.randbytes(32) for _ in honest], [*honest, chance.randbytes(32)]]
                if len(leaves) == SIZE:
                    proofs.append(TRAIL.consistency(size, SIZE))
            for proof in proofs:
                judged = judge(TRAIL.seen_at(size), point, old_size=size, proof=proof)
                assert isinstance(judged, Forked | RolledBack), (what, at, size)
                assert not may_cosign(judged)
                cases += 1
    assert cases > 2000


def test_a_proof_of_another_size_is_never_taken() -> None:
    for old in TRAIL.notes:
        for new in TRAIL.notes:
            for claimed in range(SIZE + 1):
                if old < new and claimed <= new and claimed != old:
                    proof = TRAIL.consistency(claimed, new)
                    judged = judge(TRAIL.seen_at(old), TRAIL.notes[new].checkpoint, old_size=claimed, proof=proof)
                    assert isinstance(judged, Stale)
                    lied = judge(TRAIL.seen_at(old), TRAIL.notes[new].checkpoint, old_size=old, proof=proof)
                    assert isinstance(lied, Forked) or proof == TRAIL.consistency(old, new)
