"""Row 10 of the campaign: grants as a second, naive model says they work, against ``sharing.policy`` and the slots of the store.

The model keeps lists and recounts everything at each question. ``hypothesis`` drives a real node's judging and starting with
shares, grants, extensions, revocations, contacts that are verified, blocked and unblocked, clocks that run, jump and are set
back, transfers that are new, resumed, stolen, cut and completed. Every denial has a code, a sentence and a trace in the trail.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from labxchange.errors import InputError, RefusedError
from labxchange.identity.card import Card
from labxchange.identity.keys import Identity
from labxchange.identity.statement import Signed, sign
from labxchange.net.simulated import SimulatedNetwork, VirtualLoop
from labxchange.node.active import Active
from labxchange.node.node import Node
from labxchange.sharing.exchange import Accept
from labxchange.sharing.grant import Grant
from labxchange.sharing.policy import Action, Allow, Deny, Facts, Request, decide
from labxchange.store import shares, transfers
from tests.support.nodes import PASSPHRASE, make_node

SEED = int(os.environ.get("LABXCHANGE_SEED", "6"), 16)
DAY_MS = 86_400_000
T0 = 1_800_000_000_000
ME, YOU, THIRD = "aa" * 32, "bb" * 32, "cc" * 32


# --- the pure rule, case by case --------------------------------------------------------------------------------------
def grant_of(**changes: Any) -> Grant:
    given: dict[str, Any] = {
        "issuer": ME,
        "issued": T0,
        "grant": "01" * 16,
        "revision": 1,
        "share": "02" * 16,
        "version": 1,
        "listing": "03" * 32,
        "recipients": [YOU],
        "rights": ["list", "read"],
        "purpose": "",
        "not_before": T0,
        "not_after": T0 + DAY_MS,
        "downloads": 2,
    }
    return Grant(**given | changes)


GRANTS: dict[str, tuple[Grant | None, str]] = {
    "right": (grant_of(), ""),
    "for several": (grant_of(recipients=[THIRD, YOU]), ""),
    "none": (None, "grant-unknown"),
    "of another issuer": (grant_of(issuer=THIRD), "grant-unknown"),
    "self-made": (grant_of(issuer=YOU), "grant-unknown"),
    "of another share": (grant_of(share="04" * 16), "grant-unknown"),
    "of a newer version": (grant_of(version=2), "grant-unknown"),
    "of another person": (grant_of(recipients=[THIRD]), "not-a-recipient"),
    "to list only": (grant_of(rights=["list"]), "right-missing"),
    "to read only": (grant_of(rights=["read"]), "right-missing"),
}
TIMES = {
    "years before": (T0 - 3650 * DAY_MS, "grant-not-yet-valid"),
    "just before": (T0 - 1, "grant-not-yet-valid"),
    "at its begin": (T0, ""),
    "at its last moment": (T0 + DAY_MS - 1, ""),
    "at its end": (T0 + DAY_MS, "grant-expired"),
    "years after": (T0 + 3650 * DAY_MS, "grant-expired"),
}
CONTACTS = {"verified": "", "unverified": "contact-unverified", "blocked": "contact-blocked", "unknown": "contact-unknown"}
ENDS = {"": "", "revoked": "grant-revoked", "retracted": "share-retracted"}
TRANSFERS: dict[str, tuple[dict[str, Any], str, str]] = {
    # facts, code for start, code for read
    "new": ({}, "", "transfer-unknown"),
    "new, no slot free": ({"slots_taken": 2}, "downloads-exhausted", "transfer-unknown"),
    "mine": ({"transfer_owner": YOU, "transfer_grant": "01" * 16, "slot_held": True, "slots_taken": 1}, "", ""),
    "mine, no other slot free": (
        {"transfer_owner": YOU, "transfer_grant": "01" * 16, "slot_held": True, "slots_taken": 2},
        "",
        "",
    ),
    "mine, slot returned": ({"transfer_owner": YOU, "transfer_grant": "01" * 16, "slots_taken": 1}, "", "transfer-unknown"),
    "mine, slot returned and taken": (
        {"transfer_owner": YOU, "transfer_grant": "01" * 16, "slots_taken": 2},
        "downloads-exhausted",
        "transfer-unknown",
    ),
    "of another": (
        {"transfer_owner": THIRD, "transfer_grant": "01" * 16, "slot_held": True},
        "transfer-foreign",
        "transfer-foreign",
    ),
    "under another grant": (
        {"transfer_owner": YOU, "transfer_grant": "09" * 16, "slot_held": True},
        "transfer-foreign",
        "transfer-foreign",
    ),
}
ACTIONS: tuple[Action, ...] = ("list", "start", "read")


def cases() -> Iterator[tuple[str, Request, Facts, int, str]]:
    """Every combination: its name, the question, and the code expected ("": allowed)."""
    axes = (GRANTS, TIMES, CONTACTS, ENDS, TRANSFERS, ACTIONS, (False, True))
    for which, when, contact, end, transfer, action, doubt in itertools.product(*axes):
        grant, grant_code = GRANTS[which]
        now, time_code = TIMES[when]
        facts, start_code, read_code = TRANSFERS[transfer]
        right = {"list": "list", "start": "read", "read": "read"}[action]
        right_code = "right-missing" if grant is not None and right not in grant.rights else ""
        if grant_code == "right-missing":
            grant_code = ""
        transfer_code = {"list": "", "start": start_code, "read": read_code}[action]
        reasons = [
            "clock-in-doubt" if doubt else "",
            CONTACTS[contact],
            grant_code,
            "share-retracted" if end == "retracted" else "grant-revoked" if end == "revoked" else "",
            time_code,
            right_code,
            transfer_code,
        ]
        known = {"slots_taken": 0, "transfer_owner": "", "transfer_grant": "", "slot_held": False} | facts
        asked = Facts(
            owner=ME,
            contact=contact,
            grant=grant,
            revoked=end == "revoked",
            retracted=end == "retracted",
            clock_in_doubt=doubt,
            **known,
        )
        name = f"{action}: grant {which}, {when}, {contact}, {end or 'live'}, transfer {transfer}, doubt {doubt}"
        request = Request(
            requester=YOU, action=action, share="02" * 16, version=1, transfer="" if action == "list" else "05" * 16
        )
        yield name, request, asked, now, next((code for code in reasons if code), "")


def test_every_combination_of_facts() -> None:
    count = allowed = 0
    for name, request, facts, now, code in cases():
        answer = decide(request, facts, now)
        count += 1
        if code:
            assert isinstance(answer, Deny), name
            assert answer.code == code, name
            assert answer.sentence, name
            assert answer.hint, name
        else:
            assert answer == Allow(), name
            allowed += 1
    print(f"{count} cases, {allowed} allowed")
    assert count > 500


def test_a_grant_cannot_be_widened_by_changing_one_field() -> None:
    """Whatever single field of an allowed question changes, it is never an allowance for somebody or something else."""
    chance = random.Random(SEED)
    for _ in range(5000):
        facts = Facts(
            owner=ME,
            contact="verified",
            grant=grant_of(),
            revoked=False,
            retracted=False,
            slots_taken=0,
            transfer_owner="",
            transfer_grant="",
            slot_held=False,
            clock_in_doubt=False,
        )
        request = Request(requester=YOU, action="start", share="02" * 16, version=1, transfer="05" * 16)
        field = chance.choice(["requester", "share", "version"])
        changed: Any = (
            chance.randrange(2, 1000) if field == "version" else chance.randbytes(32 if field == "requester" else 16).hex()
        )
        request = msgspec.structs.replace(request, **{field: changed})
        assert isinstance(decide(request, facts, T0 + 1), Deny)


# --- a whole node -----------------------------------------------------------------------------------------------------
class Bench:
    """One node, made once; each run of the machine uses new contacts and shares of it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lx-grants-"))
        self.loop = VirtualLoop()
        self.wall_ms = T0
        self.elapsed_ms = 0
        self.chance = random.Random(SEED)
        self.identities: dict[str, Identity] = {}
        self.node: Node = self.run(self._make())
        (self.folder / "data").mkdir()
        (self.folder / "data" / "adsl.csv").write_bytes(b"1,2,3\n" * 10)

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    async def _make(self) -> Node:
        host = SimulatedNetwork(seed=1).host("10.0.0.1")
        node = make_node(
            self.folder,
            "Ada",
            network=host,
            host="10.0.0.1",
            wall=lambda: self.wall_ms,
            elapsed=lambda: self.elapsed_ms,
            random_bytes=self.chance.randbytes,
        )
        await node.key_create(name="Ada", organisation="Ada Ltd", passphrase=PASSPHRASE)
        return node

    def person(self) -> Signed[Card]:
        identity = Identity(self.chance.randbytes(32))
        body = Card(
            issuer=identity.public.hex(),
            issued=T0,
            trail_key=identity.trail_public.hex(),
            cosign_key=identity.cosign_public.hex(),
            name=f"Person {identity.public.hex()[:12]}",
            organisation="Elsewhere",
            role="",
            country="",
            addresses=[],
        )
        self.identities[body.issuer] = identity
        return sign(body, identity)


_bench: list[Bench] = []


def bench() -> Bench:
    if not _bench:
        _bench.append(Bench())
    return _bench[0]


class ModelGrant(msgspec.Struct, kw_only=True):
    person: str
    share: str
    start: int
    end: int
    downloads: int
    revoked: bool = False


class ModelTransfer(msgspec.Struct, kw_only=True):
    person: str
    grant: ModelGrant
    held: bool = True
    over: bool = False


PEOPLE = st.integers(0, 2)
PICK = st.integers(0, 1_000_000)


class GrantMachine(RuleBasedStateMachine):
    """Names: model values are written in the words of the model; ``self.node`` is what is judged."""

    @initialize()
    def begin(self) -> None:
        self.bench = bench()
        self.node = self.bench.node
        # Each run begins at the same moment and with no refusal in mind, or a run would depend on those before it.
        self.bench.wall_ms = T0
        self.node.core.clock.reset()
        self.node.denials.flush()
        self.now = self.node.core.clock.now()
        self.doubt = False
        self.people: list[str] = []
        self.state: dict[str, str] = {}
        for _ in range(3):
            row = self.node.contacts.add(self.bench.person(), verified=True)
            self.people.append(row.key)
            self.state[row.key] = "verified"
        self.grants: list[ModelGrant] = []
        self.transfers: dict[str, ModelTransfer] = {}

    # --- the world turns ----------------------------------------------------------------------------------------------
    @rule(ms=st.sampled_from([1, 1000, 3_600_000, 20 * 3_600_000]))
    def time_passes(self, ms: int) -> None:
        self.bench.elapsed_ms += ms
        self.bench.wall_ms += ms
        self._sync()

    @rule(ms=st.sampled_from([60_000, DAY_MS, 3650 * DAY_MS]))
    def clock_is_set_back(self, ms: int) -> None:
        self.bench.wall_ms -= ms
        after = self.node.core.clock.now()
        assert after >= self.now, "an ended grant would be alive again"
        self._sync()

    @rule(ms=st.sampled_from([DAY_MS + 60_000, 3650 * DAY_MS]))
    def clock_jumps_forward(self, ms: int) -> None:
        before = self.node.core.clock.now()
        self.bench.wall_ms = max(self.bench.wall_ms, before) + ms
        after = self.node.core.clock.now()
        assert after < before + DAY_MS + 60_000
        assert self.node.core.clock.in_doubt
        self._sync()

    @rule()
    def clock_is_reset(self) -> None:
        self.bench.wall_ms = max(self.bench.wall_ms, 1_000_000_000_000)
        self.node.core.clock.reset()
        self.now = self.node.core.clock.now()
        self._sync()

    def _sync(self) -> None:
        self.now = self.node.core.clock.now()
        self.doubt = self.node.core.clock.in_doubt

    @rule(who=PEOPLE, what=st.sampled_from(["blocked", "unverified", "verified"]))
    def contact_changes(self, who: int, what: str) -> None:
        key = self.people[who]
        row = self.node.contacts.get(key)
        assert row is not None
        if what == "blocked":
            self.node.contacts.block(key, reason="for the test")
        elif what == "unverified" and row.state == "blocked":
            self.node.contacts.unblock(key, reason="for the test")
        elif what == "verified" and row.state == "unverified":
            from labxchange.identity.fingerprint import words

            self.node.contacts.verify(key, list(words(bytes.fromhex(key))))
        else:
            return
        self.state[key] = what
        self.node.serving.judge_contact(key)
        self._after_cuts()

    # --- sharing ------------------------------------------------------------------------------------------------------
    @rule(
        who=st.sets(PEOPLE, min_size=1),
        start=st.sampled_from([0, 0, 1000, DAY_MS]),
        length=st.sampled_from([1000, 3_600_000, DAY_MS, 30 * DAY_MS]),
        downloads=st.integers(1, 3),
    )
    def share(self, who: set[int], start: int, length: int, downloads: int) -> None:
        to = [self.people[item] for item in sorted(who) if self.state[self.people[item]] != "blocked"]
        if not to:
            return
        now = self.node.core.clock.now()
        first, last = now + start, now + start + length
        work = self.node.share_create(
            paths=[str(self.bench.folder / "data")], to=to, title="t", not_before=first, not_after=last, downloads=downloads
        )
        made = self.bench.run(work)
        self.bench.run(self.node.share_hashed(share=made.share))
        for key in to:
            self.grants.append(ModelGrant(person=key, share=made.share, start=first, end=last, downloads=downloads))

    @precondition(lambda self: self.grants)
    @rule(which=PICK)
    def revoke(self, which: int) -> None:
        grant = self.grants[which % len(self.grants)]
        code = ""
        try:
            self.node.grants.revoke(grant.share, 1, contact=grant.person, reason="r")
        except InputError as error:
            code = error.code
        assert code == ("grant-none" if grant.revoked else "")
        grant.revoked = True
        self._after_cuts()

    @precondition(lambda self: self.grants)
    @rule(which=PICK, ms=st.sampled_from([-1000, 1, 1000, DAY_MS]))
    def extend(self, which: int, ms: int) -> None:
        grant = self.grants[which % len(self.grants)]
        until = self.node.core.clock.now() + ms
        code = ""
        try:
            self.node.grants.extend(grant.share, 1, contact=grant.person, until=until, reason="r")
        except InputError as error:
            code = error.code
        if code:
            assert code == ("grant-none" if grant.revoked else "grant-end-in-past")
            return
        assert not grant.revoked
        grant.end = until
        self._after_cuts()

    # --- asking -------------------------------------------------------------------------------------------------------
    def _expected(self, person: str, share: str, action: Action, transfer: str) -> set[str]:
        """Codes that are right; {""}: allowed."""
        now = self.node.core.clock.now()
        self._sync()
        if self.doubt:
            return {"clock-in-doubt"}
        if self.state[person] != "verified":
            return {f"contact-{self.state[person]}"}
        mine = [grant for grant in self.grants if grant.person == person and grant.share == share]
        codes = {self._expected_under(grant, now, action, transfer) for grant in mine} or {"grant-unknown"}
        return {""} if "" in codes else codes

    def _expected_under(self, grant: ModelGrant, now: int, action: Action, transfer: str) -> str:
        if grant.revoked:
            return "grant-revoked"
        if now < grant.start:
            return "grant-not-yet-valid"
        if now >= grant.end:
            return "grant-expired"
        if action == "list":
            return ""
        known = self.transfers.get(transfer)
        if known is not None and (known.person, known.grant) != (grant.person, grant):
            return "transfer-foreign"
        held = known is not None and known.held
        if action == "read":
            return "" if held else "transfer-unknown"
        taken = sum(item.held for name, item in self.transfers.items() if item.grant is grant and name != transfer)
        return "" if held or taken < grant.downloads else "downloads-exhausted"

    def _asked(self, person: str, share: str, action: Action, transfer: str = "") -> str:
        row = self.node.contacts.get(person)
        assert row is not None
        try:
            self.node.serving._judging.allowed(row, action, share, 1, transfer)
        except RefusedError as error:
            refused = error
        else:
            return ""
        assert refused.code
        assert refused.message
        assert any(kind[1:] == (refused.code, person) for kind in self.node.denials._counts), "a denial left no trace"
        return refused.code

    @precondition(lambda self: self.grants)
    @rule(who=PEOPLE, which=PICK, action=st.sampled_from(["list", "read"]), known=PICK)
    def ask(self, who: int, which: int, action: Action, known: int) -> None:
        person, share = self.people[who], self.grants[which % len(self.grants)].share
        names = [*self.transfers, "0f" * 16]
        transfer = "" if action == "list" else names[known % len(names)]
        expected = self._expected(person, share, action, transfer)
        assert self._asked(person, share, action, transfer) in expected

    @precondition(lambda self: self.grants)
    @rule(who=PEOPLE, which=PICK, known=PICK, fresh=st.booleans())
    def start(self, who: int, which: int, known: int, fresh: bool) -> None:
        person, share = self.people[who], self.grants[which % len(self.grants)].share
        names = list(self.transfers)
        transfer = self.bench.chance.randbytes(16).hex() if fresh or not names else names[known % len(names)]
        if transfer in self.transfers and self.transfers[transfer].over:
            return
        expected = self._expected(person, share, "start", transfer)
        row = self.node.contacts.get(person)
        assert row is not None
        code = self._asked(person, share, "start", transfer)
        assert code in expected
        if code:
            return
        grant = self.node.serving._judging.allowed(row, "start", share, 1, transfer)
        share_row = self.node.serving._judging.share(share, 1)
        accept = self._accept(person, transfer, grant, share_row.listing)

        async def begin() -> None:
            self.node.serving._start(row, share_row, grant, accept)

        self.bench.run(begin())
        model = next(item for item in self.grants if item.person == person and item.share == share)
        self.transfers.setdefault(transfer, ModelTransfer(person=person, grant=model)).held = True

    def _accept(self, person: str, transfer: str, grant: shares.GrantRow, listing: str) -> Signed[Accept]:
        body = Accept(
            issuer=person,
            issued=self.now,
            transfer=transfer,
            offer=grant.offer,
            grant=grant.statement,
            listing=listing,
            proof="00" * 32,
            checkpoint="",
        )
        return sign(body, self.bench.identities[person])

    @precondition(lambda self: self.transfers)
    @rule(which=PICK, whole=st.booleans())
    def fetch(self, which: int, whole: bool) -> None:
        """Bytes go out: the slot will not come back any more."""
        name = sorted(self.transfers)[which % len(self.transfers)]
        if whole and name in self.node.serving._active:
            with self.node.core.database.begin() as tx:
                transfers.add_arrived(tx, name, [(0, 0)])

    @precondition(lambda self: self.transfers)
    @rule(which=PICK)
    def complete(self, which: int) -> None:
        name = sorted(self.transfers)[which % len(self.transfers)]
        with self.node.core.database.begin() as tx:
            row = transfers.transfer(tx, name)
            assert row is not None
            if row.slot == "reserved":
                transfers.put_transfer(tx, msgspec.structs.replace(row, slot="used", state="completed"))
                self.transfers[name].over = True
        if self.transfers[name].over:
            self.node.serving.finished(name)

    def _after_cuts(self) -> None:
        """What a judgement ended: a slot is back when nothing whole had been sent."""
        with self.node.core.database.begin() as tx:
            for name, item in self.transfers.items():
                row = transfers.transfer(tx, name)
                assert row is not None
                if row.state == "cut":
                    sent = bool(transfers.arrived_chunks(tx, name))
                    assert row.slot == ("reserved" if sent else "returned")
                    item.held = sent

    @rule()
    def the_second_passes(self) -> None:
        """The node judges what runs, as it does twice a second."""
        for active in list(self.node.serving._active.values()):
            if active.row.transfer in self.transfers:
                allowed = self._expected(active.row.peer, active.row.share, "read", active.row.transfer) == {""}
                self.bench.run(self._judged(active))
                assert (active.cut is None) == allowed
        self._after_cuts()

    async def _judged(self, active: Active) -> None:
        self.node.serving._rejudge(active)

    @invariant()
    def never_more_than_granted(self) -> None:
        if not hasattr(self, "grants"):
            return
        with self.node.core.database.begin() as tx:
            for grant in self.grants:
                rows = list(shares.grants_for(tx, grant.person, grant.share, 1, owner=self.node.core.me))
                taken = sum(transfers.slots_taken(tx, row.grant, grant.person, without="") for row in rows)
                assert taken <= grant.downloads
                assert taken == sum(item.held for item in self.transfers.values() if item.grant is grant)

    def teardown(self) -> None:
        if hasattr(self, "transfers"):
            for name in self.transfers:
                self.node.serving._active.pop(name, None)


def run_machine(examples: int, steps: int, *, shrink: bool = False) -> None:
    print(f"seed {SEED:x}")
    asyncio.set_event_loop(bench().loop)
    try:
        run_state_machine_as_test(
            GrantMachine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        made = _bench.pop()
        made.run(made.node.close())
        made.loop.close()
        asyncio.set_event_loop(None)


def test_the_node_judges_as_the_model_does() -> None:
    run_machine(25, 40)


@pytest.mark.campaign
def test_the_node_judges_as_the_model_does_for_long() -> None:
    run_machine(1000, 100, shrink=True)
