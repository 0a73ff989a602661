"""Who may connect and what they may see: stolen invitations, borrowed names, changed keys, blocked and unverified contacts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from labxchange.errors import InputError, LabxchangeError, PeerError, RefusedError, UnavailableError
from labxchange.identity.card import Card, parse_card
from labxchange.identity.invitation import Invitation, parse_invitation
from labxchange.identity.keys import Identity
from labxchange.identity.statement import Signed, sign
from labxchange.net.channel import Channel, Stream
from labxchange.net.endpoint import Endpoint
from labxchange.net.network import Network, UdpAddress
from labxchange.node.node import Node
from labxchange.store import people
from labxchange.wire.control import messages
from labxchange.wire.control.messages import Begin, Deliver, Fetch, GetDigests, GetPage, Refused, Taken, Waiting, Witness, encode
from tests.fuzz.evil import Pool, ScriptedChannel, Statements, check_refusal
from tests.support.nodes import befriend, make_node, share, start, wait_for
from tests.support.world import World, simulate, write_files

FILES = {"secret-arm-b.csv": b"1,2\n" * 50}
TITLE = "Unblinded interim"


class Stranger:
    """A key and an endpoint without a node behind it; keeps every message that it is sent."""

    def __init__(self, network: Network, *, seed: int = 77, name: str = "Mallory", organisation: str = "Elsewhere") -> None:
        self.identity = Identity(bytes([seed]) * 32)
        self.heard: list[bytes] = []
        self.channels: list[Channel] = []
        self.named(name, organisation, issued=1)
        self.endpoint = Endpoint(network=network, authority=self)

    def named(self, name: str, organisation: str, *, issued: int) -> Signed[Card]:
        body = Card(
            issuer=self.identity.public.hex(),
            issued=issued,
            trail_key=self.identity.trail_public.hex(),
            cosign_key=self.identity.cosign_public.hex(),
            name=name,
            organisation=organisation,
            role="",
            country="",
            addresses=["10.66.0.1:1"],
        )
        self.shown: Signed[Card] = sign(body, self.identity)
        return self.shown

    def card(self) -> bytes:
        return self.shown.envelope

    def kinds(self) -> dict[str, int]:
        return {"card": 1}

    async def admit(self, peer_key: bytes, card: Signed[Card], *, invitation_id: bytes, proof: bytes, th1: bytes) -> None:
        return None

    def on_channel(self, channel: Channel) -> None:
        self.channels.append(channel)

    def on_stranger(self, address: UdpAddress, reason: str) -> None:
        return None

    async def dial(self, node: Node, invitation: Invitation | None = None) -> Channel:
        address = node.core.require_card().body.addresses[0]
        channel = await self.endpoint.dial(address, node.core.public, invitation=invitation, timeout_s=5)
        channel.serve(self.listen)
        self.channels.append(channel)
        return channel

    async def listen(self, stream: Stream) -> None:
        """Take what is said, and answer as if all were well."""
        while (message := await stream.receive()) is not None:
            self.heard.append(message)
            await stream.send(encode(Taken()), end=True)
            return

    async def ask(self, channel: Channel, request: messages.Message) -> Any:
        async with await channel.open() as stream:
            await stream.send(encode(request), end=True)
            return messages.decode_answer(await stream.receive())


def stranger(world: World, **given: Any) -> Stranger:
    return Stranger(world.network.host(f"10.66.0.{len(world.network.hosts)}"), **given)


async def events(node: Node, *names: str) -> list[Any]:
    return [entry for entry in await node.audit_list(limit=10_000) if entry.event in names]


def alerts(node: Node) -> str:
    return " ".join(row.alert for row in node.contacts.all())


def test_a_thief_of_an_invitation_is_seen(tmp_path: Path) -> None:
    """Whoever comes first is an unverified contact; the second is refused, and the inviter is told."""

    async def story(world: World) -> None:
        ada, bo = world.machine("Ada"), world.machine("Bo")
        await ada.boot()
        await bo.boot()
        mallory = stranger(world)
        text = (await ada.node.contact_invite()).text
        channel = await mallory.dial(ada.node, parse_invitation(text))
        await wait_for(lambda: len(ada.node.contacts.all()) == 1)
        assert ada.node.contacts.all()[0].state == "unverified"
        with pytest.raises(RefusedError) as refused:
            await bo.node.contact_accept(text=text)
        assert refused.value.code == "invitation-used"
        assert not bo.node.contacts.all()
        assert "intercepted" in alerts(ada.node)
        assert len(await events(ada.node, "invitation.reused")) == 1
        (made,) = await ada.node.contact_invitations()
        assert (made.state, made.used_by, made.reused) == ("used", "Mallory", 1)
        # The words that the real Bo reads over the telephone are not the thief's.
        with pytest.raises(InputError) as differ:
            await ada.node.contact_verify(contact="Mallory", words=list((await bo.node.key_show()).words))
        assert differ.value.code == "words-differ"
        assert ada.node.contacts.all()[0].state == "unverified"
        channel.close()
        await mallory.endpoint.close()
        await world.close()

    simulate(story, tmp_path)


def test_an_invitation_serves_one_key_once_in_its_days(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada = world.machine("Ada")
        await ada.boot()
        node = ada.node

        async def code(invitation: Invitation | None, seed: int) -> str:
            caller = stranger(world, seed=seed)
            try:
                channel = await caller.dial(node, invitation)
                channel.close()
                return ""
            except LabxchangeError as error:
                return error.code
            finally:
                await caller.endpoint.close()

        good = parse_invitation((await node.contact_invite()).text)
        wrong = msgspec.structs.replace(good, secret=bytes(16))
        assert await code(None, 101) == "contact-unknown"
        assert await code(wrong, 102) == "invitation-unknown"
        assert await code(msgspec.structs.replace(good, id=bytes(16)), 103) == "invitation-unknown"
        assert await code(good, 104) == ""
        assert await code(good, 104) == "", "a contact comes back"
        assert await code(good, 105) == "invitation-used"
        stale = parse_invitation((await node.contact_invite()).text)
        for_another = parse_invitation((await node.contact_invite(made_for=(await node.key_show()).fingerprint)).text)
        assert await code(for_another, 106) == "invitation-for-another"
        for _ in range(8):
            ada.clock_ms += 23 * 3_600_000
            node.core.clock.now()
        assert await code(stale, 107) == "invitation-expired"
        assert [row.name for row in node.contacts.all()] == ["Mallory"]
        named = {entry.result_code for entry in await events(node, "invitation.refused", "invitation.reused", "access.denied")}
        assert {
            "invitation-used",
            "invitation-unknown",
            "invitation-for-another",
            "invitation-expired",
            "contact-unknown",
        } <= named
        await world.close()

    simulate(story, tmp_path)


def test_a_thousand_keys_with_a_stolen_invitation_write_few_entries(tmp_path: Path) -> None:
    """Keys cost nothing: whoever makes many of them fills neither the trail nor the memory."""

    async def story(world: World) -> None:
        ada = world.machine("Ada")
        await ada.boot()
        node = ada.node
        invitation = parse_invitation((await node.contact_invite()).text)
        with node.core.database.begin() as tx:
            row = people.invitation(tx, invitation.id.hex())
            assert row is not None
            people.put_invitation(tx, msgspec.structs.replace(row, state="used", used_by="00" * 32))
        assert node.core.trail is not None
        before = node.core.trail.size
        from labxchange.identity.invitation import invitation_proof

        for number in range(1000):
            caller = Identity(number.to_bytes(2, "big") * 16)
            body = msgspec.structs.replace(stranger_card(caller), name=f"Person {number}")
            card = sign(body, caller)
            proof = invitation_proof(invitation.secret, th1=bytes(32), card=card.envelope)
            with pytest.raises(RefusedError):
                node.contacts.admit(card, invitation_id=invitation.id, proof=proof, th1=bytes(32))
            with pytest.raises(RefusedError):
                node.contacts.admit(card, invitation_id=b"", proof=b"", th1=bytes(32))
            node.peers.on_stranger((f"10.1.{number >> 8}.{number & 255}", 1), "handshake-timeout")
        await asyncio.sleep(120)
        node.denials.flush()
        wrote = node.core.trail.size - before
        print(f"3,000 refusals of strangers: {wrote} entries")
        assert wrote < 100
        counted = [entry for entry in await node.audit_list(limit=1000) if entry.event in ("access.denied", "invitation.reused")]
        assert sum(_count(entry) for entry in counted) >= 2900, "refusals are counted, all of them"
        await world.close()

    simulate(story, tmp_path)


def _count(entry: Any) -> int:
    details = entry.fields.get("details", "")
    return int(msgspec.json.decode(details).get("count", 1)) if details else 1


def stranger_card(identity: Identity) -> Card:
    return Card(
        issuer=identity.public.hex(),
        issued=1,
        trail_key=identity.trail_public.hex(),
        cosign_key=identity.cosign_public.hex(),
        name="Nobody",
        organisation="Nowhere",
        role="",
        country="",
        addresses=["10.66.0.1:1"],
    )


@pytest.mark.parametrize("claimed", ["Bo", "bo", " Bo ", "Ｂｏ"])
def test_another_key_under_a_known_name_is_blocked(tmp_path: Path, claimed: str) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        mallory = stranger(world, name=claimed, organisation="Bo Ltd")
        text = (await ada.node.contact_invite()).text
        with pytest.raises((RefusedError, UnavailableError, PeerError)):
            await mallory.dial(ada.node, parse_invitation(text))
        row = ada.node.contacts.get(mallory.identity.public.hex())
        assert row is not None
        assert row.state == "blocked"
        assert row.alert
        known = ada.node.contacts.get(bo.node.core.me)
        assert known is not None
        assert known.alert
        assert known.state == "verified"
        assert len(await events(ada.node, "contact.key-changed")) == 1
        await mallory.endpoint.close()
        await world.close()

    simulate(story, tmp_path)


def test_a_contact_cannot_take_the_name_of_another(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        mallory = stranger(world)
        channel = await mallory.dial(ada.node, parse_invitation((await ada.node.contact_invite()).text))
        await wait_for(lambda: ada.node.contacts.get(mallory.identity.public.hex()))
        key = mallory.identity.public.hex()
        size = ada.node.core.trail.size  # type: ignore[union-attr]
        for number in range(50):
            ada.node.contacts.update_card(mallory.named("Bo", "BO  Ltd", issued=10 + number))
        row = ada.node.contacts.get(key)
        assert row is not None
        assert row.name == "Mallory"
        assert "another contact" in row.alert
        assert ada.node.contacts.find("Bo").key == bo.node.core.me
        assert ada.node.core.trail.size - size < 5  # type: ignore[union-attr]
        ada.node.contacts.update_card(mallory.named("Mallory Smith", "Elsewhere", issued=100))
        row = ada.node.contacts.get(key)
        assert row is not None
        assert (row.name, "Mallory" in row.alert) == ("Mallory Smith", True)
        channel.close()
        await mallory.endpoint.close()
        await world.close()

    simulate(story, tmp_path)


def test_a_blocked_contact_is_refused_everywhere(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        write_files(tmp_path / "data", FILES)
        made = await share(ada.node, bo.node, tmp_path / "data", title=TITLE)
        channel = await bo.node.peers.channel(ada.node.core.me)
        card = parse_card(bo.node.core.require_card().envelope)
        await ada.node.contact_block(contact="Bo", reason="left the company")
        await wait_for(lambda: not channel.is_open)
        with pytest.raises(LabxchangeError):
            await bo.node.peers.channel(ada.node.core.me)
        # A channel that would still be there would serve nothing either.
        scripted = ScriptedChannel(card)
        for request in every_request(made.share):
            stream = scripted.incoming(encode(request))
            await ada.node.peers._answer(scripted, stream)  # type: ignore[arg-type]
            answer = messages.decode_answer(stream.sent[0])
            assert isinstance(answer, Refused)
            assert check_refusal(answer.statement, by=ada.node.core.me, to=bo.node.core.me) == "contact-blocked"
        assert await events(ada.node, "contact.blocked")
        await world.close()

    simulate(story, tmp_path)


def every_request(share_id: str) -> Iterator[messages.Message]:
    yield Deliver(statements=[])
    for body in ("listing", "manifest", "digests"):
        yield GetPage(body=body, share=share_id, version=1, number=0)  # type: ignore[arg-type]
    yield GetDigests(share=share_id, version=1, first_chunk=0)
    yield Begin(transfer="00" * 16)
    yield Fetch(transfer="00" * 16, chunks=[(0, 0)])
    yield Witness(note="")


def test_an_unverified_contact_learns_a_number_and_nothing_else(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada = world.machine("Ada")
        await ada.boot()
        mallory = stranger(world)
        channel = await mallory.dial(ada.node, parse_invitation((await ada.node.contact_invite()).text))
        await wait_for(lambda: ada.node.contacts.all())
        write_files(tmp_path / "data", FILES)
        made = await ada.node.share_create(
            paths=[str(tmp_path / "data")], to=["Mallory"], title=TITLE, note="arm B won", purpose="unblinding", study="ST-9"
        )
        await ada.node.share_hashed(share=made.share)
        await asyncio.sleep(30)
        heard = [messages.decode_request(message) for message in mallory.heard]
        assert heard
        assert all(isinstance(message, Waiting) for message in heard), heard
        assert {message.offers for message in heard if isinstance(message, Waiting)} <= {0, 1}
        for request in every_request(made.share):
            answer = await mallory.ask(channel, request)
            assert isinstance(answer, Refused)
            assert check_refusal(answer.statement, by=ada.node.core.me, to=mallory.identity.public.hex()) == "contact-unverified"
            mallory.heard.append(answer.statement)
        everything = b"".join(mallory.heard)
        for word in (TITLE, *FILES, "arm B won", "unblinding", "ST-9", made.share):
            assert word.encode() not in everything
        # and what it says is not kept
        pool = Pool(random.Random(1))
        said = Statements(random.Random(1), mallory.identity, pool)
        said.add(stranger_card(mallory.identity))
        assert isinstance(await mallory.ask(channel, Deliver(statements=[said.one()])), Refused)
        assert await mallory.ask(channel, Waiting(offers=1_000_000)) == Taken()
        channel.close()
        await mallory.endpoint.close()
        await world.close()

    simulate(story, tmp_path)


def test_two_unverified_nodes_with_offers_do_not_talk_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair(verify=False)
        write_files(tmp_path / "data", FILES)
        for sender, recipient in ((ada, bo), (bo, ada)):
            key = recipient.node.core.me
            made = await sender.node.share_create(paths=[str(tmp_path / "data")], to=[key], title=TITLE)
            await sender.node.share_hashed(share=made.share)
        said = 0
        send = Stream.send

        async def counted(stream: Stream, data: bytes, *, end: bool = False) -> None:
            nonlocal said
            said += 1
            await send(stream, data, end=end)

        monkeypatch.setattr(Stream, "send", counted)
        await asyncio.sleep(600)
        assert said < 100
        await world.close()

    simulate(story, tmp_path)


def test_a_contact_has_few_connections_at_a_time(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        made = [
            await bo.node.peers._dial([ada.node.core.require_card().body.addresses[0]], ada.node.core.public) for _ in range(30)
        ]
        await asyncio.sleep(5)
        assert len(ada.node.peers._channels[bo.node.core.me]) <= 8
        assert sum(channel.is_open for channel in made) <= 8
        await world.close()

    simulate(story, tmp_path)


def test_names_do_not_tell_a_stranger_who_is_known(tmp_path: Path) -> None:
    """A key that is known, and one that is not, get the same answer when they are not welcome."""

    async def main() -> None:
        ada, bo = make_node(tmp_path, "Ada"), make_node(tmp_path, "Bo")
        await start(ada)
        await start(bo)
        await befriend(ada, bo)
        await ada.contact_block(contact="Bo")
        nobody = Identity(bytes([42]) * 32)
        said = []
        for card in (bo.core.require_card(), sign(stranger_card(nobody), nobody)):
            with pytest.raises(RefusedError) as refused:
                ada.contacts.admit(card, invitation_id=b"", proof=b"", th1=bytes(32))
            said.append(refused.value.message)
        assert said[0] == said[1]
        await ada.close()
        await bo.close()

    asyncio.run(main())
