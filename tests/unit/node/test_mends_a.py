"""A node that cannot have its port or its credential stays up and says so; a stop for a person is not lifted by a peer."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from msgspec.structs import replace

from labxchange.errors import InputError, UnavailableError
from labxchange.identity.card import parse_card
from labxchange.identity.statement import sign
from labxchange.store import people
from tests.support.nodes import PASSPHRASE, befriend, make_node, start


def run(work: object) -> None:
    asyncio.run(work)  # type: ignore[arg-type]


def test_a_taken_port_leaves_the_node_up_and_saying_so(tmp_path: Path) -> None:
    async def story() -> None:
        node = make_node(tmp_path, "Ada")
        await start(node)
        port = node.port
        await node.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", port))
            again = make_node(tmp_path, "Ada")
            await start(again)
            status = await again.status()
            assert status.listening == ""
            assert any("cannot reach this node" in alert for alert in status.alerts)
        await again._take_turn()
        assert again.port == port
        assert (await again.status()).alerts == ()
        await again.close()

    run(story())


def test_a_lost_credential_file_leaves_the_node_locked_and_saying_so(tmp_path: Path) -> None:
    async def story() -> None:
        node = make_node(tmp_path, "Ada")
        await start(node, credential=True)
        await node.close()
        (tmp_path / "Ada.credential").unlink()
        again = make_node(tmp_path, "Ada")
        await again.open()
        status = await again.status()
        assert status.locked
        assert any("could not unlock itself" in alert for alert in status.alerts)
        await again.close()

    run(story())


@pytest.mark.parametrize("address", ["2001:db8::1", "under_score", "a b", "x:y", "", "[::1", "ü.example"])
def test_an_address_that_could_not_stand_in_a_card_is_refused(tmp_path: Path, address: str) -> None:
    async def story() -> None:
        node = make_node(tmp_path, "Ada")
        await start(node)
        with pytest.raises(InputError) as refused:
            await node.node_configure(addresses=[address])
        assert refused.value.code == "address-malformed"
        await node.node_configure(addresses=["data.example.org", "[2001:db8::1]:443"])
        await node.close()
        again = make_node(tmp_path, "Ada")
        me = await start(again)
        assert me.addresses == (f"data.example.org:{again.port}", "[2001:db8::1]:443")
        await again.close()

    run(story())


def test_two_that_make_an_identity_at_once_make_one(tmp_path: Path) -> None:
    async def story() -> None:
        node = make_node(tmp_path, "Ada")
        await node.open()
        made = await asyncio.gather(
            *(node.key_create(name=name, organisation="A", passphrase=PASSPHRASE) for name in ("One", "Two")),
            return_exceptions=True,
        )
        assert sum(isinstance(item, InputError) and item.code == "identity-exists" for item in made) == 1
        await node.close()

    run(story())


def test_other_trail_keys_under_a_known_key_block_it(tmp_path: Path) -> None:
    async def story() -> None:
        ada, bo = make_node(tmp_path, "Ada"), make_node(tmp_path, "Bo")
        await start(ada)
        me = await start(bo)
        await befriend(ada, bo)
        identity, card = bo.core.require(), bo.core.require_card().body
        other = sign(replace(card, issued=card.issued + 1, trail_key="0" * 64), identity)
        ada.contacts.update_card(other)
        row = ada.contacts.get(me.key)
        assert row is not None
        assert (row.state, parse_card(row.card).body.trail_key) == ("blocked", card.trail_key)
        assert [entry.event for entry in await ada.audit_list(event="contact.key-changed")] == ["contact.key-changed"]
        await ada.close()
        await bo.close()

    run(story())


def test_nothing_is_asked_of_a_contact_whose_trail_diverged(tmp_path: Path) -> None:
    async def story() -> None:
        ada, bo = make_node(tmp_path, "Ada"), make_node(tmp_path, "Bo")
        await start(ada)
        me = await start(bo)
        await befriend(ada, bo)
        row = ada.contacts.get(me.key)
        assert row is not None
        with ada.core.database.begin() as tx:
            people.put_contact(tx, replace(row, trail="diverged"))
        with pytest.raises(UnavailableError) as stopped:
            await ada._connect(me.key)
        assert stopped.value.code == "trail-stopped"
        await ada.close()
        await bo.close()

    run(story())
