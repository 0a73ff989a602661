"""The verifier's verdicts, its independence, and that nothing in a file can make it fail otherwise."""

from __future__ import annotations

import ast
import json
import random
import shutil
import subprocess
import sys
import time
import tracemalloc
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labxchange.audit import verifier
from labxchange.audit.checkpoint import sign_note
from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.audit.export import Succession, succession_message
from labxchange.audit.leaf import Leaf
from labxchange.audit.scope import Scope, tag_of
from labxchange.audit.verifier import Evidence, Result, Verdict
from labxchange.encoding import b64decode, b64encode, dump_json, frame
from labxchange.errors import InputError
from labxchange.identity.fingerprint import parse_fingerprint
from labxchange.identity.statement import pre_authentication
from labxchange.merkle import leaf_hash
from tests.unit.audit.world import CRO, SOFTWARE, SPONSOR, START_MS, STRANGER, Party, Trail, entry, sample, sealed_again
from tests.vectors.make_audit import rotated

TRUST = [SPONSOR.fingerprint, CRO.fingerprint]
WHOLE = sample(30)
BUNDLE = WHOLE.bundle(parties=[CRO])
STUDY = Scope(kind="study", name="X")


def check(data: bytes, **options: object) -> Result:
    return verifier.verify(data, trust=TRUST, **options)  # type: ignore[arg-type]


def codes(result: Result) -> list[str]:
    return [reason.code for reason in result.reasons]


def test_valid_and_how_far_it_is_confirmed() -> None:
    result = check(BUNDLE)
    assert result.verdict is Verdict.VALID
    assert (result.size, result.shown, result.anchored, result.tail) == (30, 30, 25, 5)
    assert result.anchored_by == (CRO.fingerprint,)
    assert START_MS < result.anchored_at_s * 1000 < result.exported_ms
    assert any("Entries 25 to 29" in note for note in result.notes)


@pytest.mark.parametrize(
    ("trust", "verdict"),
    [
        ([], Verdict.UNANCHORED),
        ([SPONSOR.fingerprint], Verdict.UNANCHORED),
        ([SPONSOR.fingerprint, STRANGER.fingerprint], Verdict.UNANCHORED),
        ([CRO.fingerprint], Verdict.INVALID),
        ([STRANGER.fingerprint], Verdict.INVALID),
        (TRUST, Verdict.VALID),
        ([text.lower().replace("-", " ") for text in TRUST], Verdict.VALID),
    ],
)
def test_trust_comes_from_outside_the_file(trust: list[str], verdict: Verdict) -> None:
    result = verifier.verify(BUNDLE, trust=trust)
    assert result.verdict is verdict
    if not trust:
        assert any("Keys were taken from the file" in note for note in result.notes)


def test_the_owner_cannot_confirm_themselves() -> None:
    trail = sample(10, other=SPONSOR)
    trail.statements.clear()
    assert verifier.verify(trail.bundle(), trust=[SPONSOR.fingerprint]).verdict is Verdict.UNANCHORED


def test_an_unknown_cosigner_is_ignored_and_mentioned() -> None:
    trail = sample(9, cosign=False)
    trail.cosigned_by(STRANGER)
    result = check(trail.bundle())
    assert result.verdict is Verdict.UNANCHORED
    assert any("unknown keys" in note for note in result.notes)


def test_a_cosignature_of_another_history_confirms_nothing() -> None:
    """The owner shows a cosigned checkpoint that its own entries contradict."""
    other, trail = sample(9), sample(20, cosign=False)
    other.write(entry(99))
    trail.notes[10] = other.checkpoint()
    trail.cosignatures[10] = [other.cosigned_by(CRO)]
    result = check(trail.bundle(parties=[CRO]))
    assert (result.verdict, codes(result)) == (Verdict.DIVERGED, ["two-histories"])
    assert (result.cosignatures, result.anchored, result.anchored_by) == (1, 0, ())


def test_redacted_subjects_still_verify() -> None:
    result = check(WHOLE.bundle(parties=[CRO], openings=lambda seq: seq % 2 == 0))
    assert result.verdict is Verdict.VALID
    assert result.withheld > 50
    assert any("not named" in note for note in result.notes)


@pytest.mark.parametrize("kind", ["receipt", "receipt-ack"])
def test_a_completed_transfer_needs_the_counterparty(kind: str) -> None:
    trail = sample(12)
    transfer = f"{11:032x}"
    for party, verdict in ((CRO, Verdict.VALID), (SPONSOR, Verdict.INCOMPLETE), (STRANGER, Verdict.INCOMPLETE)):
        trail.statements[:] = [party.statement(kind, transfer=transfer)]
        result = check(trail.bundle(parties=[CRO]))
        assert result.verdict is verdict
        if verdict is Verdict.INCOMPLETE:
            assert codes(result) == ["receipt-missing"]
            assert result.reasons[0].entry == 11
    trail.statements[:] = [CRO.statement("offer", transfer=transfer), CRO.statement(kind, transfer="other")]
    assert codes(check(trail.bundle(parties=[CRO]))) == ["receipt-missing"]


def excerpt(trail: Trail, *, hide: int | None = None, **options: object) -> bytes:
    """All of study X, the first entry and the heads."""
    tag = tag_of(SPONSOR.identity.scope_key, STUDY)
    heads = trail.write_heads(STUDY)
    trail.checkpoint()
    trail.cosigned_by(CRO)
    shown = [0, heads, *(seq for seq, built in enumerate(trail.leaves) if tag.encode() in built.data)]
    return trail.bundle(
        parties=[CRO], shown=[seq for seq in shown if seq != hide], scopes=[trail.own_scope(STUDY)], cosigned_only=True, **options
    )  # type: ignore[arg-type]


def test_an_excerpt_shows_all_of_a_scope_and_nothing_else() -> None:
    trail = sample(60)
    result = check(excerpt(trail))
    assert result.verdict is Verdict.VALID
    assert result.shown < 25
    assert result.claims[1] == f"study X: all of its {trail.own_scope(STUDY).last} entries are shown, without gaps."


def test_an_excerpt_that_leaves_one_out_names_it() -> None:
    for seq, built in enumerate(sample(60).leaves):
        if tag_of(SPONSOR.identity.scope_key, STUDY).encode() in built.data:
            trail = sample(60)
            result = check(excerpt(trail, hide=seq))
            assert result.verdict is Verdict.INCOMPLETE
            assert "scope-gap" in codes(result)


def test_an_excerpt_without_heads_or_first_entry_is_incomplete() -> None:
    assert codes(check(excerpt(sample(20), hide=20))) == ["no-scope-head"]
    assert codes(check(excerpt(sample(20), hide=0))) == ["first-entry-withheld"]


def test_an_excerpt_may_name_part_of_a_scope() -> None:
    trail = sample(60)
    heads = trail.write_heads(STUDY)
    trail.checkpoint()
    tag = tag_of(SPONSOR.identity.scope_key, STUDY)
    seqs = [seq for seq, built in enumerate(trail.leaves[:heads]) if tag.encode() in built.data]
    data = trail.bundle(parties=[CRO], shown=[0, heads, *seqs[4:9]], scopes=[trail.own_scope(STUDY, first=5, last=9)])
    result = check(data)
    assert result.verdict is Verdict.VALID
    assert f"entries 5 to 9 of {len(seqs)}" in result.claims[1]


def test_an_excerpt_without_scope_claims_nothing() -> None:
    result = check(WHOLE.bundle(parties=[CRO], shown=[0, 3, 17]))
    assert result.verdict is Verdict.VALID
    assert any("names no scope" in claim for claim in result.claims)


def test_a_wrong_scope_key_is_noticed() -> None:
    """The key of another scope under this one's name: no entry counts there, and the head says none."""
    trail = sample(20)
    other = Scope(kind="study", name="nothing")
    trail.write_heads(other)
    trail.checkpoint()
    lie = trail.own_scope(other)
    data = trail.bundle(parties=[CRO], scopes=[type(lie)(scope=STUDY, key=lie.key, first=1, last=0)])
    result = check(data)
    assert {"no-scope-head", "scope-key-wrong"} <= set(codes(result))
    assert result.verdict is Verdict.INVALID


def test_a_lying_head_is_noticed() -> None:
    trail = sample(20)
    tag = tag_of(SPONSOR.identity.scope_key, STUDY)
    trail.counters[tag] -= 1
    trail.write_heads(STUDY)
    trail.checkpoint()
    assert "wrong-head" in codes(check(trail.bundle(parties=[CRO])))


@pytest.mark.parametrize(("held", "missing"), [(28, 0), (22, 3), (5, 20), (0, 25)])
def test_a_restore_is_incomplete_and_counts_what_is_known(held: int, missing: int) -> None:
    after = sample(30).restored(held, epoch=2)
    after.write(Entry(event=Event.SYSTEM_STARTED))
    after.checkpoint()
    after.cosigned_by(CRO)
    after.statements = list(WHOLE.statements)
    seen = WHOLE.notes[25].text + WHOLE.cosignatures[25][0]
    for data, evidence in (
        (after.bundle(parties=[CRO]), Evidence(notes=(seen,))),
        (_with_seen(after, seen), Evidence()),
    ):
        result = check(data, evidence=evidence)
        assert result.verdict is Verdict.INCOMPLETE
        assert codes(result) == ["restored"]
        assert result.missing == missing
        assert result.reasons[0].entry == held


def _with_seen(trail: Trail, note: str) -> bytes:
    trail.seen = [note]
    return trail.bundle(parties=[CRO])


def test_two_restores_and_a_lost_epoch() -> None:
    first = sample(30).restored(20, epoch=2)
    first.write(entry(1))
    lost = first.checkpoint()
    second = sample(30).restored(28, epoch=3)
    second.checkpoint()
    second.statements = list(WHOLE.statements)
    result = check(second.bundle(parties=[CRO]), evidence=Evidence(notes=(lost.text,)))
    assert codes(result) == ["epoch-missing", "restored"]


def test_rollback_and_older_files_are_told_apart() -> None:
    older = sample(30)
    note = older.notes[30].text + older.cosigned_by(CRO, time_s=older.now_ms // 1000)
    short = sample(17)
    rolled_back = short.bundle(parties=[CRO], exported_ms=older.now_ms + 5000)
    result = check(rolled_back, evidence=Evidence(notes=(note,)))
    assert (result.verdict, codes(result)) == (Verdict.DIVERGED, ["rolled-back"])
    honest = short.bundle(parties=[CRO])
    result = check(honest, evidence=Evidence(notes=(note,)))
    assert (result.verdict, codes(result), result.missing) == (Verdict.INCOMPLETE, ["older-than-evidence"], 13)


def test_evidence_that_cannot_be_used_is_said() -> None:
    mine, other = sample(10), sample(10, party=STRANGER)
    result = check(mine.bundle(parties=[CRO]), evidence=Evidence(notes=("rubbish", other.notes[5].text), cards=("rubbish",)))
    assert result.verdict is Verdict.VALID
    assert len([note for note in result.notes if "evidence" in note]) == 3
    forged = sign_note(mine.notes[5].checkpoint, sign=CRO.identity.sign_trail, public=CRO.identity.trail_public)
    result = check(mine.bundle(parties=[CRO]), evidence=Evidence(notes=(forged,)))
    assert codes(result) == ["evidence-unknown-key"]


def test_rotated_keys_follow_the_succession() -> None:
    trail, successions, cards = rotated()
    trail.cosigned_by(CRO)
    assert check(trail.bundle(parties=[CRO], successions=successions, owner_cards=cards)).verdict is Verdict.VALID
    unnamed = check(trail.bundle(parties=[CRO], owner_cards=cards))
    assert unnamed.verdict is Verdict.INVALID


def test_a_rotation_does_not_cover_a_rollback() -> None:
    trail, successions, cards = rotated()
    data = trail.bundle(parties=[CRO], successions=successions, owner_cards=cards)
    result = check(data, evidence=Evidence(notes=(WHOLE.notes[10].text,)))
    assert (result.verdict, codes(result)) == (Verdict.DIVERGED, ["rolled-back"])


@pytest.mark.parametrize("named", [SPONSOR, CRO], ids=["the owner", "somebody else"])
def test_nobody_becomes_the_owner_by_a_succession_of_their_own(named: Party) -> None:
    """The trusted owner's card, copied, and a succession to a key of the attacker, signed without the owner."""
    evil = Party("evil", SPONSOR.name, SPONSOR.organisation)
    message = succession_message(named.identity.public, evil.identity.public)
    signer = STRANGER if named is SPONSOR else named
    step = Succession(
        previous=named.identity.public,
        next=evil.identity.public,
        previous_signature=signer.identity.sign(message),
        next_signature=evil.identity.sign(message),
    )
    trail = sample(6, party=evil, cosign=False)
    result = check(trail.bundle(parties=[CRO], successions=[step], owner_cards=[SPONSOR.card, evil.card]))
    assert (result.verdict, result.reasons[0].code, result.reasons[0].line) == (Verdict.INVALID, "malformed-line", 3)


@pytest.mark.parametrize("epoch", [1, 2])
def test_an_epoch_is_never_used_again(epoch: int) -> None:
    """A second restore under a number that the trail has had: the later epoch must be greater."""
    again = sample(9).restored(9, epoch=2)
    again.epoch = epoch
    again.write(Entry(event=Event.TRAIL_RESTORED))
    again.checkpoint()
    result = check(again.bundle(parties=[CRO]))
    assert (result.verdict, result.reasons[0].code, result.reasons[0].entry) == (Verdict.INVALID, "malformed-entry", 10)


def test_the_first_line_names_the_last_origin() -> None:
    trail = sample(9).restored(9, epoch=3)
    trail.checkpoint()
    trail.epoch = 4
    result = check(trail.bundle(parties=[CRO]))
    assert result.verdict is Verdict.INVALID
    assert codes(result)[0] == "wrong-origin"


def test_evidence_against_a_counterparty_is_told() -> None:
    mine, theirs, forked = sample(10), sample(9, party=CRO, other=SPONSOR), sample(9, party=CRO, other=SPONSOR)
    forked.write(entry(5))
    theirs.write(entry(6))
    mine.seen = [theirs.checkpoint().text, forked.checkpoint().text]
    result = check(mine.bundle(parties=[CRO]))
    assert result.verdict is Verdict.VALID
    assert any("signed two histories" in note for note in result.notes)


def test_compare_two_parties() -> None:
    mine, theirs = sample(12), Trail(CRO, "theirs")
    theirs.write(Entry(event=Event.SYSTEM_STARTED))
    theirs.checkpoint()
    theirs.cosigned_by(SPONSOR)
    theirs.seen = [mine.notes[10].text]
    mine.seen = [theirs.notes[1].text]
    transfer = f"{11:032x}"
    offer = SPONSOR.statement("offer", transfer=transfer)
    mine.statements.append(offer)
    theirs.statements = list(mine.statements)
    first, second = mine.bundle(parties=[CRO]), theirs.bundle(parties=[SPONSOR])
    both = verifier.compare(first, second, trust=TRUST)
    assert both.agree
    assert both.transfers == 1
    assert both.first.verdict is both.second.verdict is Verdict.VALID

    theirs.statements.remove(offer)
    both = verifier.compare(first, theirs.bundle(parties=[SPONSOR]), trust=TRUST)
    assert not both.agree
    assert "is not in the second file" in both.differences[0]

    rewritten = Trail(SPONSOR, "rewritten")
    for number in range(12):
        rewritten.write(entry(number))
    rewritten.checkpoint()
    both = verifier.compare(rewritten.bundle(), second, trust=TRUST)
    assert both.first.verdict is Verdict.DIVERGED
    assert not both.agree


def test_a_new_card_does_not_hide_an_old_history() -> None:
    """An owner who makes another trail key and drops the card of the first: the other party's file still has it."""
    owner = Party("sponsor", SPONSOR.name, SPONSOR.organisation)
    other = Party("other trail key", SPONSOR.name, SPONSOR.organisation).identity
    owner.identity._trail, owner.identity.trail_public = other._trail, other.trail_public
    card = {"trail_key": other.trail_public.hex(), "cosign_key": owner.identity.cosign_public.hex(), "addresses": []}
    owner.card = owner.statement("card", name=owner.name, organisation=owner.organisation, role="", country="", **card)
    forged = Trail(owner, "rewritten")
    for number in range(12):
        forged.write(entry(number))
    forged.checkpoint()
    theirs = Trail(CRO)
    theirs.write(Entry(event=Event.SYSTEM_STARTED))
    theirs.checkpoint()
    theirs.seen = [WHOLE.notes[10].text]
    both = verifier.compare(forged.bundle(), theirs.bundle(parties=[SPONSOR]), trust=TRUST)
    assert both.first.verdict is Verdict.DIVERGED


# --- the file's form


def lines_of(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"monotonic_ms": 1}, "counter-went-back"),
        ({"seq": 8}, "malformed-entry"),
        ({"origin": f"labxchange/{CRO.fingerprint}/1"}, "malformed-entry"),
        ({"origin": f"labxchange/{SPONSOR.fingerprint}/2"}, "malformed-entry"),
        ({"event": "trail.restored"}, "malformed-entry"),
        ({"v": 2}, "malformed-entry"),
        ({"v": True}, "malformed-entry"),
        ({"more": 1}, "malformed-entry"),
        ({"utc_ms": 1.5}, "malformed-entry"),
        ({"software": None}, "malformed-entry"),
        ({"scopes": [{"tag": "0" * 32, "counter": 2}]}, "scope-gap"),
        ({"scopes": [{"tag": "0" * 32, "counter": 0}]}, "malformed-entry"),
        ({"scopes": [{"tag": "0" * 32, "counter": 1}] * 2}, "malformed-entry"),
        ({"heads": [{"tag": "0" * 32, "counter": 1}]}, "malformed-entry"),
        ({"fields": {"old": "x"}}, "malformed-entry"),
    ],
)
def test_the_rules_of_an_entry(changes: dict[str, object], code: str) -> None:
    """The owner signs everything again; the entry itself is wrong."""
    trail = sample(7)
    trail.write(entry(7))
    raw = {**json.loads(trail.leaves[7].data), **changes}
    built = Leaf(data=json.dumps(raw, separators=(",", ":"), ensure_ascii=False).encode(), openings=())
    again = Trail(SPONSOR)
    for one in (*trail.leaves[:7], built):
        again.append(one)
    again.checkpoint()
    result = check(again.bundle())
    assert code in codes(result)
    assert result.verdict is Verdict.INVALID
    assert result.reasons[0].entry == 7


def test_an_altered_entry_or_opening_is_named() -> None:
    lines = lines_of(BUNDLE)
    for at, line in enumerate(lines):
        value = json.loads(line)
        if value["t"] != "leaf" or not value["open"]:
            continue
        altered = list(lines)
        altered[at] = line.replace(SOFTWARE.encode(), b"labxchange 0.1.1")
        result = check(b"".join(altered))
        assert (result.reasons[0].code, result.reasons[0].entry) == ("entry-altered", value["seq"])
        altered[at] = line.replace(b"Ada", b"Adb")
        if altered[at] != line:
            result = check(b"".join(altered))
            assert (result.reasons[0].code, result.reasons[0].entry) == ("opening-altered", value["seq"])


def test_one_spelling_only() -> None:
    """The owner signs it all: spaces, a key twice, another spelling of a string or of base64."""
    lines = lines_of(BUNDLE)
    end = json.loads(lines[-1])["signature"]
    other = end[:-3] + chr(ord(end[-3]) + 1) + "=="
    assert check(BUNDLE.replace(end.encode(), other.encode())).verdict is Verdict.INVALID
    for old, new in (
        (b'"t":"index",', b'"t": "index",'),
        (b'"t":"index",', b'"t":"index","t":"index",'),
        (b"Acme", b"\\u0041cme"),
    ):
        changed = lines[0].replace(old, new, 1)
        assert changed != lines[0]
        digest = sha256(b"".join([changed, *lines[1:-1]])).digest()
        signature = b64encode(SPONSOR.identity.sign_trail(frame("labxchange bundle v1", digest)))
        last = lines[-1].replace(end.encode(), signature.encode())
        result = check(b"".join([changed, *lines[1:-1], last]))
        assert (result.verdict, result.reasons[0].line) == (Verdict.INVALID, 1)
    twice = Leaf(data=WHOLE.leaves[0].data.replace(b'"seq":0,', b'"seq":0,"seq":0,'), openings=())
    trail = Trail(SPONSOR)
    trail.append(twice)
    trail.checkpoint()
    assert check(trail.bundle()).verdict is Verdict.INVALID


def test_a_forged_statement_is_refused() -> None:
    """A receipt in the counterparty's name that the owner signed."""
    trail = sample(12)
    real = json.loads(trail.statements[0])
    for forger in (SPONSOR, STRANGER):
        pae = pre_authentication(real["payloadType"], b64decode(real["payload"]))
        trail.statements[0] = dump_json({**real, "signatures": [{"sig": b64encode(forger.identity.sign(pae))}]})
        result = check(trail.bundle(parties=[CRO]))
        assert (result.verdict, codes(result)) == (Verdict.INVALID, ["malformed-line"])


def test_a_wrong_root_is_invalid_and_names_the_range() -> None:
    lines = lines_of(BUNDLE)
    at = next(n for n, line in enumerate(lines) if line.startswith(b'{"t":"leaf","seq":7,'))
    value = json.loads(lines[at])
    value["leaf"] = value["leaf"].replace(SOFTWARE, "labxchange 9")
    value["hash"] = b64encode(leaf_hash(value["leaf"].encode()))
    result = check(sealed_again([*lines[:at], dump_json(value) + b"\n", *lines[at + 1 :]]))
    assert result.verdict is Verdict.INVALID
    assert (result.reasons[0].code, result.reasons[0].entry) == ("wrong-root", 9)


def test_a_cosignature_has_a_time_of_this_world() -> None:
    trail = sample(6, cosign=False)
    trail.cosigned_by(CRO, time_s=1 << 63)
    assert codes(check(trail.bundle(parties=[CRO]))) == ["bad-cosignature"]


def test_two_heads_beyond_the_file_are_a_fork() -> None:
    one, other = sample(12), sample(11)
    other.write(entry(77))
    late = other.checkpoint()
    evidence = Evidence(notes=(one.notes[12].text, late.text))
    result = check(sample(6).bundle(parties=[CRO]), evidence=evidence)
    assert result.verdict is Verdict.DIVERGED
    assert "two-roots" in codes(result)


def test_many_small_faults_do_not_hide_a_grave_one() -> None:
    trail = Trail(SPONSOR)
    for number in range(150):
        trail.write(entry(number, event=Event.TRANSFER_COMPLETED, object_type="transfer", site="", study=""))
    trail.write(entry(150, new="altered"))
    trail.checkpoint()
    data = trail.bundle(parties=[CRO])
    assert len(check(data).reasons) == verifier.REASONS_MAX
    result = check(data.replace(b"altered", b"Altered"))
    assert result.verdict is Verdict.INVALID
    assert (result.reasons[0].code, result.reasons[0].entry) == ("opening-altered", 150)


def test_much_evidence_does_no_harm() -> None:
    note = WHOLE.notes[25].text
    result = check(BUNDLE, evidence=Evidence(notes=(note,) * 100))
    assert result.verdict is Verdict.VALID
    assert any("too much" in text for text in result.notes)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"\n", b"{}\n", b"[]\n", b"null\n", b'{"t":"leaf"}\n', b'{"t":["leaf"]}\n', b'{"t":"end"}\n', b"\xff\n",
        b"[" * 100_000 + b"\n", b'{"t":' + b"[" * 200_000 + b"\n", b'{"t":"subtree","level":52,"index":0,"hash":"x"}\n',
        b'{"a":1,"a":1}\n', b'{"t": "leaf"}\n', b'{"t":NaN}\n', b'{"t":' + b"9" * 250_000 + b"}\n", b"x" * 300_000 + b"\n",
        b'{"t":"hash","seq":0,"hash":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}\n', b'{"t":"\\ud800"}\n',
        b'{"t":"index"}\n', b'{"t":"card","role":"owner","envelope":"{}"}\n', b'{"t":"seen","note":""}\n',
    ],
)  # fmt: skip
def test_a_foreign_line_anywhere_is_refused_quickly(line: bytes) -> None:
    lines = lines_of(BUNDLE)
    for at in (0, 1, 2, 4, len(lines) // 2, len(lines) - 1, len(lines)):
        begun = time.perf_counter()
        result = check(b"".join([*lines[:at], line, *lines[at:]]))
        assert time.perf_counter() - begun < 1
        assert (result.verdict is Verdict.INVALID) or line == b""


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_a_result(data: bytes) -> None:
    assert check(data).verdict is Verdict.INVALID


VALUES = [None, True, 0, -1, 2**53, 1.5, "", "x", "A" * 43 + "=", [], {}, [[]], {"t": 1}, "labxchange/x/1", "\n\n"]


def _mutate(value: object, chance: random.Random) -> object:
    """Replace something somewhere inside a JSON value."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        key = chance.choice(list(value))
        kind = chance.random()
        if kind < 0.1:
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: _mutate(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        return [*value[:at], _mutate(value[at], chance), *value[at + 1 :]]
    if isinstance(value, str) and value.startswith("{") and chance.random() < 0.9:
        return json.dumps(_mutate(json.loads(value), chance), separators=(",", ":"), ensure_ascii=False)
    if isinstance(value, str) and value and chance.random() < 0.3:
        at = chance.randrange(len(value))
        return value[:at] + chance.choice("0aA=\n— ") + value[at + 1 :]
    return chance.choice(VALUES)


@pytest.mark.parametrize("sealed", [False, True], ids=["outsider", "owner"])
def test_any_mutated_line_is_a_result(sealed: bool) -> None:
    """A grammar-aware fuzz: one value inside one line becomes something else; the owner signs the file again, or nobody does."""
    chance = random.Random(11)
    after = sample(8).restored(7, epoch=2)
    after.seen = [WHOLE.notes[15].text, sample(9, party=CRO, other=SPONSOR).notes[5].text]
    after.write_heads(STUDY)
    after.checkpoint()
    data = after.bundle(parties=[CRO], shown=[0, 3, 6, 7, 8], scopes=[after.own_scope(STUDY)])
    lines = lines_of(data)
    assert check(data).verdict is check(sealed_again(lines)).verdict is Verdict.INCOMPLETE
    for _ in range(1500):
        at = chance.randrange(len(lines))
        mutated = _mutate(json.loads(lines[at]), chance)
        if not isinstance(mutated, dict) or mutated == json.loads(lines[at]):
            continue
        line = json.dumps(mutated, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        changed = [*lines[:at], line, *lines[at + 1 :]]
        begun = time.perf_counter()
        result = check(sealed_again(changed) if sealed else b"".join(changed))
        assert time.perf_counter() - begun < 1
        assert sealed or result.verdict is Verdict.INVALID


def test_texts_of_the_file_cannot_steer_a_terminal() -> None:
    party = Party("nasty", "\x1b[2J\u202eEve", "Acme\r\n")
    trail = sample(5, party=party)
    result = verifier.verify(trail.bundle(parties=[CRO]))
    assert all(line.isprintable() for line in verifier.report(result).split("\n"))
    assert "\\u{1b}[2J" in verifier.report(result)


# --- independence


def test_one_file_on_the_standard_library_and_cryptography() -> None:
    tree = ast.parse(Path(verifier.__file__).read_text(encoding="utf-8"))
    roots = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    roots |= {(node.module or ".").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert roots - set(sys.stdlib_module_names) == {"cryptography"}
    assert not roots & {"socket", "ssl", "urllib", "http", "time", "datetime", "random", "secrets", "subprocess", "pickle"}


PURE = ("events", "entry", "leaf", "scope", "checkpoint", "witness", "export")


@pytest.mark.parametrize("name", PURE)
def test_the_rest_is_pure(name: str) -> None:
    tree = ast.parse(Path(verifier.__file__).with_name(f"{name}.py").read_text(encoding="utf-8"))
    roots = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    roots |= {(node.module or ".").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    outside = {"os", "io", "pathlib", "time", "datetime", "random", "secrets", "socket", "asyncio", "threading", "logging"}
    assert not roots & outside


def test_it_runs_as_a_script_without_the_package(tmp_path: Path) -> None:
    script = tmp_path / "verifier.py"
    shutil.copy(verifier.__file__, script)
    (tmp_path / "a.labxtrail").write_bytes(BUNDLE)
    note = tmp_path / "note"
    note.write_text(WHOLE.notes[25].text, encoding="utf-8")

    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-I", str(script), str(tmp_path / "a.labxtrail"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        return done.returncode, done.stdout + done.stderr

    trust = ["--trust", SPONSOR.fingerprint, "--trust", CRO.fingerprint]
    code, text = run(*trust, "--seen", str(note))
    assert (code, text.splitlines()[0]) == (0, "VALID")
    code, text = run()
    assert (code, text.splitlines()[0]) == (10, "VALID-UNANCHORED")
    code, text = run("--json", *trust)
    assert json.loads(text)["verdict"] == "VALID"
    code, text = run("--with", str(tmp_path / "a.labxtrail"), *trust)
    assert code == 0
    assert text.splitlines()[-1].endswith("both tell the same")
    assert run("--trust", "AAAA")[0] == 2
    assert run("--with", str(tmp_path / "absent"))[0] == 2
    assert run("--seen", str(tmp_path / "absent"))[0] == 2


def test_fingerprints_are_read_as_everywhere_else() -> None:
    for text in (SPONSOR.fingerprint, CRO.fingerprint.lower(), "A" * 56, SPONSOR.fingerprint[:-1] + "A", "", "é" * 56):
        try:
            wanted = parse_fingerprint(text)
        except InputError:
            with pytest.raises(verifier.VerifierError):
                verifier.parse_fingerprint(text)
        else:
            assert verifier.parse_fingerprint(text) == wanted
    assert verifier.fingerprint(SPONSOR.identity.public) == SPONSOR.fingerprint


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "large.labxtrail"
    path.write_bytes(sample(1200, every=100).bundle(parties=[CRO]))
    tracemalloc.start()
    try:
        assert verifier.verify(path, trust=TRUST).verdict is Verdict.VALID
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 2_000_000
    assert peak < 1_500_000
