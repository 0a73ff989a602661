"""Entries and leaves: what stands open, what is committed, whose key seals it, and what is refused."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labxchange.audit import leaf
from labxchange.audit.entry import ENTRY_MAX_BYTES, VALUE_MAX_BYTES, Entry, Who
from labxchange.audit.events import WHILE_LOCKED, Event
from labxchange.audit.scope import Scope, ScopeCount
from labxchange.errors import InputError, IntegrityError
from labxchange.merkle import leaf_hash
from tests.unit.audit.world import SPONSOR, Trail, entry

TEXTS = st.text(max_size=40)
FULL = Entry(
    event=Event.GRANT_CHANGED,
    object_type="grant",
    object_id="g1",
    object_digest="ab" * 32,
    dataset="d1",
    who=Who(person="Ada", role="dm", organisation="Acme", key=SPONSOR.key, authenticated="passphrase", actor="person"),
    study="X",
    site="7",
    category="patient",
    old="1",
    new="2",
    reason_code="extension",
    reason_text="late",
    purpose="analysis",
    agreement="DTA 4",
    counterparty="cd" * 32,
    counterparty_name="Ben",
    country="CH",
    result="denied",
    result_code="expired",
    details={"files": 3, "path": "direct"},
)


def build(what: Entry, **changes: object) -> leaf.Leaf:
    salts = iter(range(1, 100))
    values: dict[str, object] = {
        "seq": 4,
        "id": "0" * 32,
        "origin": f"labxchange/{SPONSOR.fingerprint}/1",
        "utc_ms": 5,
        "local": "2025-10-09T10:53:20+02:00[Europe/Berlin]",
        "monotonic_ms": 6,
        "clock_source": "system",
        "software": "labxchange 0.1.0",
        "scopes": [ScopeCount(tag=f"{n:032x}", counter=n + 1) for n, _ in enumerate(what.scopes)],
        "salts": lambda: sha256(str(next(salts)).encode()).digest(),
    }
    return leaf.build(what, **{**values, **changes})  # type: ignore[arg-type]


def test_every_field_but_the_open_ones_is_committed_and_opens() -> None:
    built = build(FULL)
    parsed = leaf.parse(built.data)
    text = built.data.decode()
    assert built.hash == leaf_hash(built.data)
    assert (parsed.seq, parsed.event, parsed.result, parsed.result_code) == (4, "grant.changed", "denied", "expired")
    assert parsed.object_type == "grant"
    assert [item.counter for item in parsed.scopes] == [1, 2, 3]
    assert len(parsed.fields) == len(built.openings) == 22
    for secret in ("Ada", "Acme", "g1", "patient", "late", "DTA 4", "Ben", "Berlin", SPONSOR.key, "direct"):
        assert f'"{secret}' not in text
    for one in built.openings:
        assert leaf.check_opening(parsed, one.name, salt=one.salt, value=one.value)
        assert not leaf.check_opening(parsed, one.name, salt=one.salt, value=one.value + b" ")
        assert not leaf.check_opening(parsed, one.name, salt=bytes(32), value=one.value)
        assert not leaf.check_opening(parsed, "id", salt=one.salt, value=one.value)
    values = {one.name: leaf.opened_value(one.value) for one in built.openings}
    assert values["details"] == {"files": 3, "path": "direct"}
    assert values["agreement"] == "DTA 4"


def test_a_commitment_moved_to_another_field_does_not_open() -> None:
    built = build(FULL)
    raw = json.loads(built.data)
    raw["fields"]["old"], raw["fields"]["new"] = raw["fields"]["new"], raw["fields"]["old"]
    parsed = leaf.parse(json.dumps(raw).encode())
    old = next(one for one in built.openings if one.name == "old")
    assert not leaf.check_opening(parsed, "new", salt=old.salt, value=old.value)


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        ({"object_type": "share", "object_id": "s", "dataset": "d"}, "dataset:d"),
        ({"object_type": "dataset", "object_id": "d"}, "dataset:d"),
        ({"object_type": "transfer", "object_id": "t"}, "dataset:t"),
        ({"object_type": "contact", "object_id": "c", "counterparty": "c"}, "counterparty:c"),
        ({"object_type": "identity", "object_id": "i", "who": Who(key="k")}, "person:k"),
        ({"object_type": "setting", "object_id": "x", "who": Who(key="k")}, "person:k"),
        ({"object_type": "session", "object_id": "x", "counterparty": "c"}, "counterparty:c"),
        ({"object_type": "clock", "object_id": "x"}, "node"),
    ],
)
def test_whose_key_seals_the_object(changes: dict[str, object], subject: str) -> None:
    what = Entry(event=Event.CONFIG_CHANGED, new="value", **changes)  # type: ignore[arg-type]
    subjects = {name: whose for name, whose, _ in what.committed()}
    assert subjects["object_id"] == subjects["new"] == subject


def test_who_and_counterparty_have_their_own_subjects() -> None:
    subjects = {name: whose for name, whose, _ in FULL.committed(local="now")}
    assert subjects["person"] == subjects["key"] == subjects["local"] == f"person:{SPONSOR.key}"
    assert subjects["counterparty_name"] == subjects["country"] == f"counterparty:{'cd' * 32}"
    assert subjects["study"] == subjects["details"] == "dataset:d1"


def test_a_locked_node_writes_open_fields_alone() -> None:
    assert {event.value for event in WHILE_LOCKED} == {
        "system.started", "system.stopped", "system.recovered", "identity.unlock-failed", "access.denied",
    }  # fmt: skip
    built = build(Entry(event=Event.ACCESS_DENIED, result="denied", result_code="unknown-peer"), local="")
    assert built.openings == ()
    assert leaf.parse(built.data).fields == {}


def test_zero_is_a_detail_and_empty_fields_are_left_out() -> None:
    built = build(Entry(event=Event.FILE_RECEIVED, object_type="file", object_id="d", details={"files": 0}))
    assert [one.name for one in built.openings] == ["local", "object_id", "details"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"new": "x" * VALUE_MAX_BYTES}, "entry-too-large"),
        (dict.fromkeys(("old", "new", "purpose", "agreement", "country"), "x" * (VALUE_MAX_BYTES - 2)), "entry-too-large"),
        ({"new": "\ud800"}, "entry-invalid"),
        ({"object_type": "x" * 201}, "entry-invalid"),
        ({"result_code": "a\nb"}, "entry-invalid"),
        ({"result": "maybe"}, "entry-invalid"),
        ({"details": {"n": 2**53}}, "entry-invalid"),
        ({"details": {"n": 1.5}}, "entry-invalid"),
        ({"details": {"n": True}}, "entry-invalid"),
    ],
)
def test_what_cannot_be_written_is_refused_where_it_is_said(fields: dict[str, object], code: str) -> None:
    with pytest.raises(InputError) as caught:
        Entry(event=Event.CONFIG_CHANGED, **fields)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert ENTRY_MAX_BYTES == 65_536


def test_scopes_need_counters_and_heads_need_their_event() -> None:
    with pytest.raises(InputError):
        build(FULL, scopes=[])
    with pytest.raises(InputError):
        build(FULL, heads=[ScopeCount(tag="0" * 32, counter=1)])
    with pytest.raises(InputError) as caught:
        build(Entry(event=Event.TRAIL_SCOPE_HEADS), heads=[ScopeCount(tag="0" * 32, counter=1)] * 2000)
    assert caught.value.code == "entry-too-large"
    with pytest.raises(ValueError):
        build(FULL, salts=lambda: b"short")


def test_salts_are_never_reused() -> None:
    trail = Trail(SPONSOR)
    for number in range(20):
        trail.write(entry(number))
    salts = [one.salt for built in trail.leaves for one in built.openings]
    assert len(set(salts)) == len(salts)


def test_scope_of_an_entry() -> None:
    assert FULL.scopes == (Scope(kind="study", name="X"), Scope(kind="site", name="7"), Scope(kind="category", name="patient"))
    assert Entry(event=Event.SYSTEM_STARTED).scopes == ()


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2}, {"v": "1"}, {"seq": -1}, {"seq": "4"}, {"more": 1}, {"fields": {"old": {"d": ""}}}, {"scopes": [{"tag": 1}]},
        {"event": "x" * 201}, {"utc_ms": 2**53},
    ],
)  # fmt: skip
def test_a_malformed_leaf_is_our_error(change: dict[str, object]) -> None:
    raw = {**json.loads(build(FULL).data), **change}
    with pytest.raises(IntegrityError):
        leaf.parse(json.dumps(raw).encode())


@given(st.binary(max_size=300))
def test_any_bytes_parse_or_raise_ours(data: bytes) -> None:
    for read in (leaf.parse, leaf.opened_value):
        try:
            read(data)
        except IntegrityError:
            pass


@given(st.binary(min_size=1, max_size=3), st.integers(min_value=0))
def test_a_damaged_leaf_parses_or_raises_ours(damage: bytes, at: int) -> None:
    data = bytearray(build(FULL).data)
    at %= len(data)
    data[at : at + len(damage)] = damage
    try:
        leaf.parse(bytes(data))
    except IntegrityError:
        pass


@given(old=TEXTS, new=TEXTS, name=TEXTS)
def test_any_text_round_trips(old: str, new: str, name: str) -> None:
    what = Entry(event=Event.CONFIG_CHANGED, old=old, new=new, who=Who(person=name), details={"a": old, "b": 7})
    built = build(what, local="")
    parsed = leaf.parse(built.data)
    values = {one.name: leaf.opened_value(one.value) for one in built.openings}
    assert all(leaf.check_opening(parsed, one.name, salt=one.salt, value=one.value) for one in built.openings)
    assert (values.get("old", ""), values.get("new", ""), values.get("person", "")) == (old, new, name)
    assert values["details"] == {"a": old, "b": 7}
