"""The doctor: what it says of a healthy node, a locked one, small buffers, and a contact that does not answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from labxchange.errors import InputError
from labxchange.identity.sealing import Argon
from labxchange.net.endpoint import Endpoint
from labxchange.net.network import Slot
from labxchange.net.sockets import SocketNetwork
from labxchange.node import doctor
from labxchange.node.home import Home
from labxchange.node.node import Node
from labxchange.node.values import Diagnosis

CHEAP = Argon(memory_kib=1024, passes=1, lanes=1)


def _with_nodes(tmp_path: Path, work: Callable[[Node, Node], Awaitable[None]]) -> None:
    async def run() -> None:
        nodes = [Node(Home(tmp_path / name), SocketNetwork(), host="127.0.0.1", argon=CHEAP) for name in ("ana", "ben")]
        try:
            for node in nodes:
                await node.open()
            await work(*nodes)
        finally:
            for node in nodes:
                await node.close()

    asyncio.run(run())


def _of(found: list[Diagnosis], check: str) -> Diagnosis:
    return next(item for item in found if item.check.startswith(check))


def test_a_new_node_says_what_to_do_first(tmp_path: Path) -> None:
    async def work(node: Node, _: Node) -> None:
        found = await node.doctor()
        assert _of(found, "keys").state == "problem"
        assert "labxchange key create" in _of(found, "keys").hint
        assert _of(found, "port").state == "problem"
        with pytest.raises(InputError):
            await node.doctor(contact="Ben")

    _with_nodes(tmp_path, work)


def test_a_healthy_node_and_its_firewall_rule(tmp_path: Path) -> None:
    async def work(node: Node, _: Node) -> None:
        await node.key_create(name="Ana", organisation="CRO", passphrase="a passphrase")
        found = await node.doctor()
        assert all(_of(found, check).state == "ok" for check in ("keys", "port", "clock", "firewall"))
        rule = _of(found, "firewall").hint
        assert f"UDP, inbound, destination 127.0.0.1 port {node.port}" in rule
        assert f"ufw allow {node.port}/udp" in rule
        node.core.clock.in_doubt = True
        assert _of(await node.doctor(), "clock").state == "problem"

    _with_nodes(tmp_path, work)


def test_the_firewall_rule_names_every_port_where_workers_cannot_share_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(node: Node, _: Node) -> None:
        await node.key_create(name="Ana", organisation="CRO", passphrase="a passphrase")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            slots = {number: Slot(sock, node.port + number) for number in (1, 2)}
            monkeypatch.setattr(Endpoint, "lane_sockets", slots)
            found = _of(await node.doctor(), "firewall")
        assert f"UDP ports {node.port}-{node.port + 2} must be open" in found.sentence
        assert f"ufw allow {node.port}:{node.port + 2}/udp" in found.hint

    _with_nodes(tmp_path, work)


def test_the_way_to_a_contact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(ana: Node, ben: Node) -> None:
        await ana.key_create(name="Ana", organisation="CRO", passphrase="a passphrase")
        await ben.key_create(name="Ben", organisation="Lab", passphrase="a passphrase")
        await ben.contact_accept(text=(await ana.contact_invite()).text)
        assert _of(await ana.doctor(contact="Ben"), "way to Ben").state == "ok"
        channel = ben.peers.connected(ana.core.me)
        assert channel is not None
        await ana.contact_block(contact="Ben")
        await channel.closed()
        assert "blocked" in _of(await ana.doctor(contact="Ben"), "way to Ben").sentence
        refused = _of(await ben.doctor(contact="Ana"), "way to Ana")
        assert (refused.state, "refuses" in refused.sentence) == ("problem", True)
        await ana.peers.close()
        monkeypatch.setattr(doctor, "_KNOCK_S", 0.1)
        monkeypatch.setattr("labxchange.node.peers.DIAL_TIMEOUT_S", 0.3)
        silent = _of(await ben.doctor(contact="Ana"), "way to Ana")
        assert silent.state == "problem"
        assert "Nothing came back from 127.0.0.1:" in silent.sentence
        assert "inbound" in silent.hint

    _with_nodes(tmp_path, work)


def test_udp_buffers(tmp_path: Path) -> None:
    (tmp_path / "rmem_max").write_text("212992\n")
    (tmp_path / "wmem_max").write_text("67108864\n")
    (small,) = doctor._buffers(tmp_path)
    assert small.state == "warning"
    assert "sysctl -w net.core.rmem_max=16777216`" in small.hint
    (tmp_path / "rmem_max").write_text("67108864\n")
    assert [item.state for item in doctor._buffers(tmp_path)] == ["ok"]
    assert [item.state for item in doctor._buffers(tmp_path / "none")] == ["ok"]


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    async def work(node: Node, _: Node) -> None:
        for free, state in ((1 << 20, "problem"), (1 << 30, "warning"), (1 << 40, "ok")):
            usage = SimpleNamespace(free=free)
            monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _, usage=usage: usage)
            assert _of(list(doctor._disks(node)), "disk").state == state

    _with_nodes(tmp_path, work)
