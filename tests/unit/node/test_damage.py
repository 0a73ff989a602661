"""Damage in a node's own database: named as that, whatever is asked for, and never written down as a contact's mistake."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from labxchange.errors import IntegrityError, NodeLocked, RefusedError
from labxchange.node.node import Node
from labxchange.store.database import Database
from tests.support.nodes import PASSPHRASE, ended, make_node, share, start, wait_for
from tests.support.world import World, simulate, write_files

DAY_MS = 86_400_000
WRONG = "substr({0}, 1, 60) || 'X' || substr({0}, 62)"


def _damage(database: Database, table: str, column: str, value: str, where: str = "1") -> None:
    with database.begin() as tx:
        new = value.format(column)
        kept = f"CASE typeof({column}) WHEN 'text' THEN {new} ELSE CAST({new} AS BLOB) END"
        changed = tx.exec_driver_sql(f"UPDATE {table} SET {column} = {kept} WHERE {where}")
        assert changed.rowcount


def _export(node: Node, _: str) -> Awaitable[object]:
    root = node.core.home.root
    return node.audit_export(path=str(root / f"trail {len(list(root.iterdir()))}"))


@pytest.mark.parametrize(
    ("damage", "ask"),
    [
        (("statements", "envelope", WRONG, "kind = 'grant'"), lambda node, _: node.inbox_list()),
        (("statements", "id", "'0' || substr({0}, 2)", "kind = 'listing'"), lambda node, _: node.inbox_list()),
        (("statements", "envelope", WRONG, "kind = 'offer'"), lambda node, done: node.receipt_show(transfer=done)),
        (("statements", "envelope", WRONG, "kind = 'receipt-ack'"), lambda node, done: node.receipt_page(transfer=done)),
        (("transfers", "report", "'X'"), lambda node, done: node.transfer_report(transfer=done)),
        (("transfers", "state", "'Verified'"), lambda node, _: node.transfer_list()),
        (("contacts", "card", WRONG), lambda node, _: node.contact_list()),
        (("contacts", "key", "'X' || substr({0}, 2)"), lambda node, _: node.contact_list()),
        (("trail_entries", "leaf", "'X' || substr({0}, 2)", "seq = 3"), lambda node, _: node.audit_list()),
        (("trail_subjects", "wrapped", "substr({0}, 1, 20) || zeroblob(40)"), lambda node, _: node.contact_invite()),
        (("trail_scopes", "name", "substr({0}, 1, 14) || 'XX'"), _export),
        (("trail_checkpoints", "note", "'X'"), _export),
        (("trail_checkpoints", "note", "CAST({0} AS BLOB)"), _export),
        (("bodies", "data", "'X'"), lambda node, done: node.dataset_verify(transfer=done)),
    ],
)
def test_what_cannot_be_read_back_is_damage(
    tmp_path: Path, damage: tuple[Any, ...], ask: Callable[[Node, str], Awaitable[object]]
) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        write_files(tmp_path / "data", {"a": b"1" * 5000})
        made = await share(ada.node, bo.node, tmp_path / "data", study="CDISC-01")
        started = await bo.node.receive(share=made.share)
        await ended(bo.node, started.transfer)
        await wait_for(lambda: bo.node.receipts.show(started.transfer).acknowledged)
        await ask(bo.node, started.transfer)
        await bo.stop()
        await bo.boot()  # nothing of what follows is in its memory
        with bo.node.core.database.begin() as tx:
            bo.node.core.trail.reload(tx)
        _damage(bo.node.core.database, *damage)
        with pytest.raises(IntegrityError) as caught:
            await ask(bo.node, started.transfer)
        assert caught.value.code == "database-damaged"
        assert "restore" in caught.value.hint
        bo.crash()  # a trail that cannot be written has no last word

    simulate(story, tmp_path)


def test_damage_here_is_not_the_contacts_mistake(tmp_path: Path) -> None:
    """The contact's statement is not taken and not lost: the contact keeps it until the database is whole again."""

    async def story(world: World) -> None:
        ada, bo = await world.pair()
        write_files(tmp_path / "data", {"a": b"1"})
        made = await share(ada.node, bo.node, tmp_path / "data")
        before = made.recipients[0].not_after
        database = bo.node.core.database
        with database.begin() as tx:
            tx.exec_driver_sql("CREATE TEMP TABLE good AS SELECT id, envelope FROM statements WHERE kind = 'grant'")
        _damage(database, "statements", "envelope", WRONG, "kind = 'grant'")
        await ada.node.share_extend(share=made.share, until=before + DAY_MS)

        async def refused() -> bool:
            return any(entry.result_code == "database-damaged" for entry in await bo.node.audit_list(event="access.denied"))

        await wait_for(refused)
        assert not await bo.node.audit_list(event="security")
        assert (await ada.node.contact_show(contact="Bo")).waiting == 1
        channel = ada.node.peers.connected(bo.node.core.me)
        assert channel is not None
        with pytest.raises(RefusedError) as told:
            await ada.node.peers.flush(bo.node.core.me, channel)
        assert told.value.code == "database-damaged"
        assert "Tell them" in told.value.hint, "what to do about it is not the contact's to do"
        with database.begin() as tx:
            tx.exec_driver_sql("UPDATE statements SET envelope = good.envelope FROM temp.good WHERE statements.id = good.id")

        async def extended() -> bool:
            return (await bo.node.inbox_list())[0].not_after == before + DAY_MS

        await wait_for(extended, timeout_s=600)

        async def delivered() -> bool:
            return (await ada.node.contact_show(contact="Bo")).waiting == 0

        await wait_for(delivered)

    simulate(story, tmp_path)


def test_keys_stay_locked_when_their_unlocking_cannot_be_written_down(tmp_path: Path) -> None:
    async def story() -> None:
        node = make_node(tmp_path, "Ada")
        await start(node)
        _damage(node.core.database, "trail_subjects", "wrapped", "substr({0}, 1, 20) || zeroblob(40)")
        await node.close()
        again = make_node(tmp_path, "Ada")
        await again.open()
        with pytest.raises(IntegrityError) as caught:
            await again.unlock(passphrase=PASSPHRASE)
        assert caught.value.code == "database-damaged"
        assert again.core.identity is None
        with pytest.raises(NodeLocked):
            await again.contact_invite()
        await again.close()

    asyncio.run(story())
