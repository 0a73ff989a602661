"""Connections that end at once, addresses that are none, the log that does not grow for ever, denials at the local socket."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest

from labxchange.errors import UnavailableError
from labxchange.node import starting
from labxchange.node.addresses import own_address
from labxchange.node.daemon import RotatingLog
from labxchange.node.home import Home
from labxchange.node.local import application
from labxchange.store import people
from tests.support.nodes import befriend, make_node, start, wait_for


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


def test_a_stale_address_does_not_hide_a_good_one(tmp_path: Path) -> None:
    """At the address seen last another node answers now; one on the card is no address at all."""

    async def story() -> None:
        ada, bo, cy = (make_node(tmp_path, name) for name in ("Ada", "Bo", "Cy"))
        for node in (ada, bo, cy):
            await start(node)
        await befriend(ada, bo)
        key = ada.core.me
        for stale in (f"127.0.0.1:{cy.port}", "127.0.0.1:99999"):
            good = f"127.0.0.1:{ada.port}"
            channel = await bo.peers._dial([stale, good], bytes.fromhex(key))
            assert channel.peer_key.hex() == key
            with bo.core.database.begin() as tx:
                row = people.contact(tx, key)
            assert row is not None
            assert row.seen_address == good
        with pytest.raises(UnavailableError) as caught:
            await bo.peers._dial(["127.0.0.1:99999"], bytes.fromhex(key))
        assert caught.value.code == "peer-unreachable"
        for node in (ada, bo, cy):
            await node.close()

    run(story())


def test_a_channel_that_is_over_is_not_given_out(tmp_path: Path) -> None:
    async def story() -> None:
        ada, bo = make_node(tmp_path, "Ada"), make_node(tmp_path, "Bo")
        await start(ada)
        await start(bo)
        await befriend(ada, bo)
        channel = await wait_for(lambda: bo.peers.connected(ada.core.me), what="a channel")
        assert channel is not None
        channel.close("")
        found = bo.peers.connected(ada.core.me)
        assert found is not channel or channel.is_open
        await bo.close()
        await ada.close()

    run(story())


def test_a_channel_that_cannot_be_taken_up_leaves_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        ada, bo = make_node(tmp_path, "Ada"), make_node(tmp_path, "Bo")
        await start(ada)
        await start(bo)
        await befriend(ada, bo)
        key = ada.core.me
        await wait_for(lambda: bo.peers.connected(key), what="a channel")

        def full(_: object) -> None:
            raise UnavailableError("disk-full", "full")

        with monkeypatch.context() as patch:
            patch.setattr(bo.contacts, "update_card", full)
            channel = await bo.peers.endpoint.dial(f"127.0.0.1:{ada.port}", bytes.fromhex(key))
            with pytest.raises(UnavailableError):
                bo.peers.adopt(channel)
        channel.close("")
        await wait_for(lambda: channel not in bo.peers._channels[key], what="it to leave the list")
        await bo.close()
        await ada.close()

    run(story())


def test_calls_that_no_face_makes_are_entries_counted_by_the_minute(tmp_path: Path) -> None:
    async def story() -> None:
        node = make_node(tmp_path, "Ada")
        await start(node)
        transport = httpx.ASGITransport(application(node, stop=lambda: None))
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as face:
            for _ in range(20):
                assert (await face.post("/verbs/__class__", content=b"{}")).status_code == 400
                assert (await face.post("/verbs/key_show", content=b"{")).status_code == 400
            assert (await face.post("/verbs/share_status", content=b'{"share": "none"}')).status_code == 400
            assert (await face.post("/verbs/key_show", content=b"{}")).status_code == 200
        denied = await node.audit_list(event="access.denied")
        assert sorted(item.result_code for item in denied) == ["call-malformed", "verb-unknown"]
        assert all("the local API" in str(item.fields) for item in denied)
        await node.close()

    run(story())


def test_own_addresses() -> None:
    assert [own_address(host) for host in ("", "0.0.0.0", "::", "::1", "192.0.2.7")] == [
        *("127.0.0.1", "127.0.0.1", "[::1]", "[::1]", "192.0.2.7")
    ]


def test_a_full_log_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "node.log"
    with path.open("a", buffering=1) as stream:
        monkeypatch.setattr("sys.stderr", stream)
        handler = RotatingLog(path, max_bytes=200)
        for number in range(30):
            handler.emit(logging.makeLogRecord({"msg": f"line {number} " + "x" * 20}))
        assert path.stat().st_size <= 200
        assert "line 29" in path.read_text() + path.with_name("node.log.1").read_text()
        assert path.stat().st_mode & 0o777 == 0o600
        assert sorted(item.name for item in tmp_path.iterdir()) == ["node.log", "node.log.1"]


def test_a_log_elsewhere_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = tmp_path / "node.log", tmp_path / "journal"
    path.write_bytes(bytes(500))
    with other.open("a", buffering=1) as stream:
        monkeypatch.setattr("sys.stderr", stream)
        handler = RotatingLog(path, max_bytes=10)
        for _ in range(3):
            handler.emit(logging.makeLogRecord({"msg": "a line"}))
    assert path.stat().st_size == 500
    assert other.read_text() == "a line\n" * 3


def test_a_large_database_may_take_its_time(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    assert starting._patience(home) == 20
    with home.database.open("wb") as file:
        os.truncate(file.fileno(), 20 << 30)
    assert starting._patience(home) > 1000
