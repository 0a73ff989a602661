"""Shares, offers, names and statements: what must hold when people, peers and stops come in between."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy.exc import IntegrityError

from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.audit.verifier import Verdict, verify
from labxchange.dataset.listing import make_listing
from labxchange.errors import InputError, PeerError
from labxchange.identity.card import Card
from labxchange.identity.keys import Identity
from labxchange.identity.statement import parse, sign
from labxchange.node import hashing as node_hashing
from labxchange.node import shares as node_shares
from labxchange.node.naming import named
from labxchange.node.node import Node
from labxchange.sharing.grant import Grant, Revocation
from labxchange.sharing.share import Offer, Share
from labxchange.store import shares as rows
from labxchange.store import statements
from labxchange.store.database import Database
from labxchange.store.shares import ShareRow
from tests.support.nodes import befriend, ended, make_node, offered, share, start, until, wait_for
from tests.support.world import World, simulate, write_files

ME, ELSE = Identity(bytes([1]) * 32), Identity(bytes([2]) * 32)


# --- statements -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("reason", "words"),
    [("x" * 1001, "its reason is too long"), ("x" * 70_000, "cannot be signed"), ("\udc80", "not Unicode")],
)
def test_nothing_is_signed_that_the_other_side_would_refuse(reason: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        sign(Revocation(issuer=ME.public.hex(), issued=1, grant="0" * 32, reason=reason), ME)
    assert raised.value.code == "statement-invalid"
    assert reason not in str(raised.value)


def test_the_longest_text_that_is_allowed_can_be_signed_and_read() -> None:
    body = Revocation(issuer=ME.public.hex(), issued=1, grant="0" * 32, reason="ß" * 1000)
    assert parse(sign(body, ME).envelope, Revocation).body == body


@pytest.mark.parametrize("address", ["no port", "host:1:2", "example.org:", "ex ample.org:5"])
def test_a_card_with_an_address_that_no_card_may_hold_is_not_signed(address: str) -> None:
    card = Card(
        issuer=ME.public.hex(),
        issued=1,
        trail_key=ME.trail_public.hex(),
        cosign_key=ME.cosign_public.hex(),
        name="Ada",
        organisation="Ada Ltd",
        role="",
        country="",
        addresses=[address],
    )
    with pytest.raises(InputError, match="its addresses"):
        sign(card, ME)


# --- names ------------------------------------------------------------------------------------------------------------
def row(share: str, version: int, title: str) -> ShareRow:
    return ShareRow(
        share=share, version=version, owner="", state="available", title=title, statement="", listing="", stored_ms=version
    )


A, B, C = "a" * 32, "b" * 32, "c" * 32
KNOWN = [row(A, 1, "scans"), row(A, 2, "scans"), row(B, 1, "scans/2"), row(C, 1, f"{A}/2"), row("d" * 32, 7, "x/b")]


@pytest.mark.parametrize(
    ("text", "found", "version"),
    [
        ("scans", [(A, 1), (A, 2)], 0),
        ("scans/1", [(A, 1)], 1),
        ("scans/2", [(B, 1)], 0),
        ("scans/2/1", [(B, 1)], 1),
        (f"{A}/2", [(A, 2)], 2),
        (A[:12], [(A, 1), (A, 2)], 0),
        (f"{A[:12]}/1", [(A, 1)], 1),
        (A[:5], [], 0),
        ("x/b/7", [("d" * 32, 7)], 7),
        ("x/b/2", [], 2),
        ("scans/²", [], 0),
        ("scans/٢", [], 0),
        ("scans/02", [], 0),
        ("scans/99999999999999999999", [], 0),
        ("", [], 0),
        ("/", [], 0),
    ],
)
def test_a_name_is_read_in_one_way(text: str, found: list[tuple[str, int]], version: int) -> None:
    answer = named(text, KNOWN)
    assert [(item.share, item.version) for item in answer.rows] == found
    assert answer.version == version


def test_a_title_that_looks_like_the_beginning_of_an_id_is_ambiguous() -> None:
    assert named(f"{A[:12]}/2", [*KNOWN, row(B, 9, f"{A[:12]}/2")]).shares == 2


def test_an_odd_name_is_an_error_for_a_person(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, _ = await world.pair()
        for text in ("A/b/2", "²", "A/²", "/", ""):
            with pytest.raises(InputError) as raised:
                await ada.node.share_revoke(share=text)
            assert raised.value.code == "share-unknown"
            with pytest.raises(InputError) as raised:
                await ada.node.receive(share=text)
            assert raised.value.code == "offer-unknown"

    simulate(story, tmp_path)


# --- offers -----------------------------------------------------------------------------------------------------------
def offer_of(node: Node, identity: Identity, *, share: str, version: int, now: int) -> tuple[Any, ...]:
    """All statements of an offer that ``identity`` makes to ``node`` under a share id of its choice."""
    issuer = identity.public.hex()
    head, _ = make_listing([], issuer=issuer, issued=now, share=share, version=version)
    listing = sign(head, identity)
    both: dict[str, Any] = {"issuer": issuer, "issued": now, "share": share, "version": version, "listing": listing.id}
    named_so = sign(Share(**both, title="mine", note="", study="", site="", category=""), identity)
    times = {"not_before": now, "not_after": now + 1000, "downloads": 1}
    whom: list[str] = [node.core.me]
    grant = sign(
        Grant(**both, **times, grant="9" * 32, revision=1, recipients=whom, rights=["list", "read"], purpose=""), identity
    )
    offer = sign(Offer(**both, recipient=node.core.me, grant=grant.id, root=""), identity)
    return named_so, listing, grant, offer


def take(node: Node, told: tuple[Any, ...]) -> None:
    node.inbox.take_share(told[0])
    node.inbox.take_listing(told[1])
    node.inbox.take_grant(told[2])
    node.inbox.take_offer(told[3])


def test_nobody_adds_a_version_to_the_share_of_somebody_else(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        write_files(tmp_path / "data", {"a": b"1"})
        made = await ada.node.share_create(paths=[str(tmp_path / "data")], to=["Bo"])
        await offered(bo.node, made)
        with pytest.raises(PeerError) as raised:
            take(ada.node, offer_of(ada.node, ELSE, share=made.share, version=2, now=ada.node.core.clock.now()))
        assert raised.value.code == "share-foreign"
        take(bo.node, offer_of(bo.node, ELSE, share=made.share, version=2, now=bo.node.core.clock.now()))
        kept = {(item.share, item.version, item.sender_key) for item in await bo.node.inbox_list()}
        assert kept == {(made.share, 1, ada.node.core.me), (made.share, 2, ELSE.public.hex())}
        for node in (ada.node, bo.node):
            with node.core.database.begin() as tx:
                assert rows.newest_version(tx, made.share, ada.node.core.me) == 1

    simulate(story, tmp_path)


# --- making a share ---------------------------------------------------------------------------------------------------
def test_who_is_blocked_while_the_files_are_listed_gets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        ada, _ = await world.pair()
        write_files(tmp_path / "data", {"a": b"1"})
        scan = node_shares.scan

        def slow_scan(paths: list[Path]) -> object:
            ada.node.contacts.block("Bo", reason="left")
            return scan(paths)

        monkeypatch.setattr(node_shares, "scan", slow_scan)
        with pytest.raises(InputError) as raised:
            await ada.node.share_create(paths=[str(tmp_path / "data")], to=["Bo"])
        assert raised.value.code == "contact-blocked"
        assert not await ada.node.share_list()

    simulate(story, tmp_path)


def test_a_purpose_that_cannot_be_signed_makes_no_share(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        write_files(tmp_path / "data", {"a": b"1"})
        with pytest.raises(InputError, match="its purpose") as raised:
            await ada.node.share_create(paths=[str(tmp_path / "data")], to=["Bo"], purpose="x" * 1001)
        assert raised.value.code == "statement-invalid"
        assert not await ada.node.share_list()
        made = await ada.node.share_create(paths=[str(tmp_path / "data")], to=["Bo"])
        await offered(bo.node, made)
        with pytest.raises(InputError, match="its reason"):
            await ada.node.share_revoke(share=made.share, reason="x" * 1001)
        with pytest.raises(InputError, match="cannot be signed"):
            await ada.node.share_extend(share=made.share, until=2**60)
        with pytest.raises(InputError, match="its reason"):
            await bo.node.request_extension(share=made.share, until=made.recipients[0].not_after + 1, reason="x" * 1001)
        assert (await ada.node.share_status(share=made.share)).recipients[0].not_after == made.recipients[0].not_after
        with ada.node.core.database.begin() as tx:
            assert not statements.of_kind(tx, "revocation")

    simulate(story, tmp_path)


def test_two_versions_at_once_get_two_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        ada, bo = await _pair(tmp_path)
        try:
            write_files(tmp_path / "data", {"a": b"1"})
            first = await share(ada, bo, tmp_path / "data")
            scan, both = node_shares.scan, threading.Barrier(2, timeout=20)

            def met(paths: list[Path]) -> object:
                both.wait()
                return scan(paths)

            monkeypatch.setattr(node_shares, "scan", met)
            again = {"paths": [str(tmp_path / "data")], "to": [bo.core.me], "share": first.share}
            made = await asyncio.gather(ada.share_create(**again), ada.share_create(**again))  # type: ignore[arg-type]
            assert sorted(item.version for item in made) == [2, 3]
            own = ada.shares.find(first.share)
            with pytest.raises(IntegrityError), ada.core.database.begin() as tx:
                rows.add_share(tx, own)
        finally:
            await ada.close()
            await bo.close()

    asyncio.run(story())


async def _pair(tmp_path: Path) -> tuple[Node, Node]:
    ada, bo = make_node(tmp_path, "Ada"), make_node(tmp_path, "Bo")
    await start(ada, credential=True)
    await start(bo, credential=True)
    await befriend(ada, bo)
    return ada, bo


# --- hashing that is interrupted --------------------------------------------------------------------------------------
def test_a_recipient_waits_for_a_share_that_is_not_hashed_yet(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        write_files(tmp_path / "data", {"a": b"1"})
        made = await share(ada.node, bo.node, tmp_path / "data")
        _set_state(ada.node, made.share, "hashing")
        transfer = (await bo.node.receive(share=made.share)).transfer

        async def waits() -> bool:
            info = await bo.node.transfer_show(transfer=transfer)
            assert info.state in ("waiting", "running")
            return (info.state, info.reason) == ("waiting", "manifest-not-ready")

        await wait_for(waits, what="the transfer to wait")
        _set_state(ada.node, made.share, "available")
        assert (await ended(bo.node, transfer, timeout_s=600)).state == "completed"

    simulate(story, tmp_path)


def _set_state(node: Node, share_id: str, state: str) -> None:
    with node.core.database.begin() as tx:
        kept = rows.share(tx, share_id, 1, owner=node.core.me)
        assert kept is not None
        rows.put_share(tx, replace(kept, state=state))


def test_a_stop_while_hashing_cuts_no_transfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        ada, bo = await _pair(tmp_path)
        try:
            write_files(tmp_path / "data", {"a": b"1", "b": b"2"})
            asked = asyncio.Event()
            hashed = ada.hashing.hashed

            def endless(*_: object, stop: threading.Event, **__: object) -> Iterator[list[object]]:
                stop.wait(20)
                yield from ()

            async def told(share_id: str, version: int, *, timeout_s: float | None = None) -> None:
                asked.set()
                await hashed(share_id, version, timeout_s=timeout_s)

            with monkeypatch.context() as patched:
                patched.setattr(node_hashing, "hash_files", endless)
                patched.setattr(ada.hashing, "hashed", told)
                made = await ada.share_create(paths=[str(tmp_path / "data")], to=[bo.core.me])
                await offered(bo, made)
                transfer = (await bo.receive(share=made.share)).transfer
                await asyncio.wait_for(asked.wait(), 20)
                await ada.close()
            assert (await until(bo, transfer, "waiting", "cut", "failed")).state == "waiting"
            ada = make_node(tmp_path, "Ada")
            await start(ada)
            await ada.share_hashed(share=made.share)
            await bo.transfer_resume(transfer=transfer)
            assert (await ended(bo, transfer, timeout_s=40)).state == "completed"
        finally:
            await ada.close()
            await bo.close()

    asyncio.run(story())


# --- long work --------------------------------------------------------------------------------------------------------
def test_a_share_is_shown_without_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        write_files(tmp_path / "data", {"a": b"1"})
        made = await share(ada.node, bo.node, tmp_path / "data")
        monkeypatch.setattr(ada.node.catalog, "load", None)
        shown = await ada.node.share_status(share=made.share)
        assert (shown.root, shown.left_out, shown.files) == (made.root, 0, 1)
        assert len(shown.root) == 64

    simulate(story, tmp_path)


def test_a_long_trail_is_searched_and_exported_in_turns(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada = world.machine("Ada")
        await ada.boot()
        core = ada.node.core
        told = [
            Entry(
                event=Event.TRAIL_VIEWED, object_type="trail", who=core.who(), study=f"S{number % 2}", details={"shown": number}
            )
            for number in range(900)
        ]
        core.record(*told)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counter = asyncio.ensure_future(count())
        found = await ada.node.audit_list(event="trail.viewed", about="S1", limit=300)
        assert [entry.seq for entry in found] == sorted((entry.seq for entry in found), reverse=True)
        assert len(found) == 300
        assert turns >= 3
        assert len(await ada.node.audit_list(event="trail.viewed", about="s0", limit=1000)) == 450
        assert len(await ada.node.audit_list(limit=201)) == 201
        counter.cancel()
        for number, form in enumerate(("jsonl", "csv", "bundle")):
            path = tmp_path / f"{number}.{form}"
            await ada.node.audit_export(path=str(path), form=form)
            assert path.read_bytes().count(b"trail.viewed") >= 900
        excerpt = tmp_path / "excerpt.labxtrail"
        await ada.node.audit_export(path=str(excerpt), study="S1")
        assert verify(excerpt).verdict is Verdict.UNANCHORED

    simulate(story, tmp_path)


def test_a_backup_is_whole_although_the_node_goes_on(tmp_path: Path) -> None:
    database = Database(tmp_path / "node.db")
    with database.begin() as tx:
        first = statements.put_body(tx, b"\x01" * (24 << 20))
    failures: list[BaseException] = []

    def copy() -> None:
        try:
            database.backup(tmp_path / "copy.db", settings={"backup-identity": b"sealed"})
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=copy)
    thread.start()
    written = 0
    while thread.is_alive():
        written += 1
        with database.begin() as tx:
            statements.put_body(tx, b"%d" % written * 3000)
    thread.join()
    database.close()
    assert not failures
    assert written > 1, "the backup let nothing happen meanwhile"
    (tmp_path / "again").mkdir()
    (tmp_path / "copy.db").rename(tmp_path / "again" / "node.db")
    again = Database(tmp_path / "again" / "node.db")
    with again.begin() as tx:
        assert statements.body(tx, first) == b"\x01" * (24 << 20)
    again.close()
