"""What a verified contact who keeps no rule can do to the node of a sender: nothing but be refused, in bounded time and space.

Control messages and statements of every kind, right ones, mutated ones (by field before signing, by bit after), truncated,
reordered and unasked for, against the very handler that real streams reach. Each is handled within a second of processor time,
no exception escapes, refusals are signed, memory and the trail stay bounded. ``LABXCHANGE_FUZZ`` sizes it, the seed is printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from labxchange.dataset.listing import Listing
from labxchange.dataset.manifest import Manifest
from labxchange.errors import LabxchangeError, PeerError
from labxchange.identity.card import Card, parse_card
from labxchange.identity.keys import Identity
from labxchange.identity.statement import Signed, parse, peek_kind
from labxchange.net.channel import Channel, Stream
from labxchange.net.endpoint import Endpoint
from labxchange.net.network import UdpAddress
from labxchange.net.sockets import SocketNetwork
from labxchange.node.node import Node
from labxchange.node.serving import possession_proof
from labxchange.node.witnessing import STOPPED
from labxchange.settings import WRITES_BURST, WRITES_PER_SECOND
from labxchange.sharing.exchange import Accept, Cut, Progress, Receipt, ReceiptAck, Refusal
from labxchange.sharing.grant import ExtensionRequest, Grant, Revocation
from labxchange.sharing.share import Offer, Share
from labxchange.store import shares, statements, transfers
from labxchange.wire.control import messages
from labxchange.wire.control.messages import (
    Accepting,
    Begin,
    Consistency,
    Deliver,
    Fetch,
    GetDigests,
    GetPage,
    Nonce,
    Refused,
    Taken,
    Waiting,
    Witness,
    encode,
)
from tests.fuzz.evil import (
    FULL,
    FUZZ,
    MIB,
    SEED,
    Faults,
    Pool,
    ScriptedChannel,
    ScriptedStream,
    Statements,
    Watchdog,
    check_refusal,
    flip,
    must_not_fail,
    note_of,
    resident_bytes,
    twisted,
)
from tests.support.nodes import befriend, ended, make_node, share, start, wait_for
from tests.support.world import Machine, World, simulate

KINDS: dict[str, type[Any]] = {
    kind.kind: kind
    for kind in (Accept, Card, Cut, ExtensionRequest, Grant, Listing, Manifest, Offer, Progress, Receipt, ReceiptAck, Refusal)
} | {"revocation": Revocation, "share": Share}
WARM = 10_000


def folder_with(root: Path, files: int, size: int) -> Path:
    root.mkdir(parents=True)
    chance = random.Random(size)
    for number in range(files):
        (root / f"visit-{number:03}.csv").write_bytes(chance.randbytes(size + number))
    return root


class Scene:
    """Ada's node after honest days with Bo, whose keys an attacker has now."""

    def __init__(self, chance: random.Random, ada: Node, identity: Identity, channel: ScriptedChannel) -> None:
        self.chance = chance
        self.ada = ada
        self.identity = identity
        self.channel = channel
        self.key = identity.public.hex()
        self.pool = Pool(chance)
        self.statements = Statements(chance, identity, self.pool)
        self.statements.now = ada.core.clock.now
        self.shares: list[str] = []
        self.transfers: list[str] = []
        self.running: list[str] = []
        self.offers: list[Offer] = []
        self.codes: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()

    def learn(self) -> None:
        """Take up all that the node and the contact have said to each other."""
        with self.ada.core.database.begin() as tx:
            for name, kind in KINDS.items():
                for envelope in statements.of_kind(tx, name):
                    signed = parse(envelope, kind)
                    self.statements.learn(signed)
                    if isinstance(signed.body, Offer) and signed.body.issuer == self.ada.core.me:
                        self.offers.append(signed)
            self.shares = [row.share for row in shares.all_shares(tx)]
            self.transfers = [row.transfer for row in transfers.all_transfers(tx)]
        # kinds that honest days did not need
        me, now = self.key, self.ada.core.clock.now()
        given = {"issuer": me, "issued": now}
        with self.ada.core.database.begin() as tx:
            mine = list(shares.grants_owned(tx, self.ada.core.me))
            theirs = list(shares.grants_foreign(tx, self.ada.core.me))
            incoming = [row.transfer for row in transfers.incoming(tx)]
            outgoing = [row.transfer for row in transfers.all_transfers(tx) if row.direction == "out"]
        for grant in mine:
            self.statements.add(ExtensionRequest(**given, grant=grant.grant, until=now + 10**9, reason="more time"))
        for grant in theirs[:1]:
            self.statements.add(Revocation(**given, grant=grant.grant, reason="no more"))
        for transfer in incoming:
            self.statements.add(
                Cut(**given, transfer=transfer, code="grant-expired", side="sender", files=1, bytes=2, arrived=[(0, 1)], more=0)
            )
        for transfer in outgoing:
            self.statements.add(
                Cut(**given, transfer=transfer, code="cancelled", side="recipient", files=1, bytes=2, arrived=[], more=0)
            )
            self.statements.add(Progress(**given, transfer=transfer, chunks=1, files=1, bytes=10, reused=0))
        self.statements.add(
            Refusal(**given, to=self.ada.core.me, request="offer", code="no", sentence="I will not.", hint="Do not ask.")
        )

    # --- what the peer says -------------------------------------------------------------------------------------------
    def transfer(self) -> str:
        return self.chance.choice([*self.transfers, *self.running[-5:]]) if self.chance.random() < 0.85 else self.pool.id()

    def share_id(self) -> str:
        return self.chance.choice(self.shares) if self.chance.random() < 0.9 else self.pool.id()

    def delivery(self) -> list[Any]:
        count = self.chance.choice([*[1] * 20, 2, 3, 64])
        return [encode(Deliver(statements=[self.statements.one() for _ in range(count)]))]

    def waiting(self) -> list[Any]:
        return [encode(Waiting(offers=self.chance.choice([0, 1, 1_000_000])))]

    def page(self) -> list[Any]:
        body = self.chance.choice(["listing", "manifest", "digests"])
        number = self.chance.choice([0, 0, 0, 1, 2**32])
        version = self.chance.choice([1, 1, 1, 2, 1_000_000])
        return [encode(GetPage(body=body, share=self.share_id(), version=version, number=number))]  # type: ignore[arg-type]

    def digests(self) -> list[Any]:
        version, first = self.chance.choice([1, 1, 1, 2, 1_000_000]), self.chance.choice([0, 1, 40, 41, 2**53 - 1])
        return [encode(GetDigests(share=self.share_id(), version=version, first_chunk=first))]

    def fetch(self) -> list[Any]:
        pick = self.chance.choice
        chunks = [(pick([0, 0, 1, 5, 2**53 - 1]), pick([0, 1, 5, 39, 2**40])) for _ in range(pick([1, 1, 1, 2, 4096]))]
        if self.chance.random() < 0.5:
            chunks = [(first, min(first + last, 39)) for first, last in chunks]
        return [encode(Fetch(transfer=self.transfer(), chunks=chunks))]

    def begin(self) -> list[Any]:
        transfer, offer = self.transfer(), self.chance.choice(self.offers)

        def accepting(said: list[bytes]) -> bytes:
            try:
                nonce = msgspec.msgpack.decode(said[-1], type=Nonce).nonce
            except (msgspec.DecodeError, IndexError):
                nonce = bytes(32)
            body = Accept(
                issuer=self.key,
                issued=self.ada.core.clock.now(),
                transfer=transfer,
                offer=offer.id,
                grant=offer.body.grant,
                listing=offer.body.listing,
                proof=possession_proof(nonce, self.channel.th2),
                checkpoint=note_of(self.identity),
            )
            self.statements.templates[0] = ("accept", msgspec.to_builtins(body))
            with_proof = msgspec.to_builtins(body)
            if self.chance.random() < 0.5:
                with_proof = self.pool.mutated(with_proof)
            envelope = _sealed(self.identity, "accept", with_proof)
            self.running.append(transfer)
            return encode(Accepting(statement=envelope))

        return [encode(Begin(transfer=transfer)), accepting]

    def witness(self) -> list[Any]:
        trail = self.ada.core.trail
        assert trail is not None
        size = self.chance.choice([0, 1, 2, 5, 100, 2**40, 2**53 - 1, 2**63, 10**30])
        epoch = self.chance.choice([1, 1, 2, 10**12, 2**53 - 1, 2**63, 10**30])
        note = note_of(self.identity, size=size, epoch=epoch, root=self.chance.randbytes(32))
        if self.chance.random() < 0.3:
            note = flip(self.chance, note.encode()).decode(errors="replace")
        second = Consistency(
            old=self.chance.choice([0, 1, 2, min(size, 2**53 - 1)]),
            proof=[self.chance.randbytes(32) for _ in range(self.chance.choice([0, 1, 5, 64]))],
            first_leaf=self.chance.choice([b"", b"{}", self.chance.randbytes(100), b"[" * 60_000]),
            first_proof=[self.chance.randbytes(32) for _ in range(self.chance.choice([0, 1, 64]))],
        )
        return [encode(Witness(note=note[:8000])), encode(second)]

    def unasked(self) -> list[Any]:
        """Answers where a request was due, or noise."""
        chance = self.chance
        return [
            chance.choice(
                [
                    encode(Taken()),
                    encode(Nonce(nonce=bytes(32))),
                    encode(Accepting(statement=self.statements.one("accept"))),
                    encode(Refused(statement=self.statements.one("refusal"))),
                    encode(Consistency(old=0, proof=[])),
                    chance.randbytes(chance.choice([0, 1, 20, 5000])),
                    b"\x91" * chance.choice([10, 5000, 200_000]),
                    b"\xdd\xff\xff\xff\xff",
                    b"\x92\xa7deliver\xdd\xff\xff\xff\xff",
                    b"\x92\xa7deliver\x91\xc6\xff\xff\xff\xff",
                ]
            )
        ]

    def script(self) -> list[Any]:
        """A whole stream of the peer."""
        kinds: list[Callable[[], list[Any]]] = [
            *[self.delivery] * 8,
            *[self.fetch] * 2,
            *[self.begin] * 2,
            *[self.page] * 2,
            self.digests,
            self.witness,
            self.waiting,
            self.unasked,
        ]
        script = self.chance.choice(kinds)()
        way = self.chance.random()
        if way < 0.25:
            at = self.chance.randrange(len(script))
            item = script[at]
            if isinstance(item, bytes):
                script[at] = twisted(self.chance, self.pool, item)
            else:
                script[at] = lambda said: twisted(self.chance, self.pool, item(said))
        elif way < 0.3:
            script.insert(self.chance.randrange(len(script) + 1), self.chance.choice(self.unasked() + self.waiting()))
        elif way < 0.33:
            script.reverse()
        elif way < 0.36:
            script = script[:-1]
        if way < 0.36:
            script = [item if isinstance(item, bytes) or callable(item) else b"" for item in script]
        return script

    # --- what must hold -----------------------------------------------------------------------------------------------
    def check(self, stream: ScriptedStream) -> None:
        """Everything that was answered is well-formed, signed and for the peer."""
        for data in stream.sent:
            try:
                answer = messages.decode_answer(data)
            except LabxchangeError as error:
                raise AssertionError("the node sent what its peer cannot read") from error
            self.answers[type(answer).__name__] += 1
            if isinstance(answer, Refused):
                self.codes[check_refusal(answer.statement, by=self.ada.core.me, to=self.key)] += 1
            elif isinstance(answer, Taken):
                for envelope in answer.statements:
                    if peek_kind(envelope) == "refusal":
                        self.codes[check_refusal(envelope, by=self.ada.core.me, to=self.key)] += 1
        if stream.was_reset:
            self.answers["reset"] += 1


def _sealed(identity: Identity, kind: str, fields: Any) -> bytes:
    import json

    from tests.fuzz.evil import seal

    return seal(identity, kind, json.dumps(fields).encode())


async def scene(world: World) -> tuple[Scene, Machine]:
    """Honest days: two shares of Ada's, one received; two of Bo's, one received."""
    ada, bo = await world.pair()
    chance = random.Random(f"recipient {SEED}")
    first = await share(ada.node, bo.node, folder_with(world.folder / "d1", 40, 300), title="First", downloads=3)
    await ended(bo.node, (await bo.node.receive(share=first.share)).transfer)
    await share(ada.node, bo.node, folder_with(world.folder / "d2", 40, 700), title="Second", downloads=1000, study="S-1")
    third = await share(bo.node, ada.node, folder_with(world.folder / "d3", 3, 90), title="Third")
    await ended(ada.node, (await ada.node.receive(share=third.share)).transfer)
    await share(bo.node, ada.node, folder_with(world.folder / "d4", 3, 95), title="Fourth")
    identity, card = bo.node.core.require(), bo.node.core.require_card()
    await bo.stop()
    world.cut_wire(ada, bo)
    await asyncio.sleep(30)
    found = Scene(chance, ada.node, identity, ScriptedChannel(parse_card(card.envelope)))
    found.learn()
    return found, ada


def attack(folder: Path, count: int) -> None:
    print(f"seed {SEED:x}")

    async def story(world: World) -> None:
        here, ada = await scene(world)
        node, core = ada.node, ada.node.core
        for task in node._tasks:  # their work is done below, without their time
            task.cancel()
        faults, dog = Faults(), Watchdog()
        assert core.trail is not None
        entries, begun = core.trail.size, asyncio.get_running_loop().time()
        baseline = 0
        rounds = accepted = 0
        while here.channel.messages < count:
            rounds += 1
            if not baseline and here.channel.messages >= min(WARM, count // 2):
                baseline = resident_bytes()
            script = here.script()
            stream = here.channel.incoming(*script)
            with dog.watch(stream.said):
                try:
                    await must_not_fail(node.peers._answer(here.channel, stream), stream.said)  # type: ignore[arg-type]
                except PeerError as error:
                    here.codes[f"closed: {error.code}"] += 1
            here.check(stream)
            if node.contacts.get(here.key).trail in STOPPED:  # type: ignore[union-attr]
                await node.contact_accept_trail(contact=here.key, reason="They told me why.")
                accepted += 1
            if rounds % 50 == 0:
                await asyncio.sleep(here.chance.choice([1, 60, 600]))
                node.denials.flush()
            if rounds % 1000 == 0:
                faults.check()
                print(
                    f"  {here.channel.messages} messages, {resident_bytes() / MIB:.0f} MiB, {core.trail.size} entries", flush=True
                )
        grown = resident_bytes() - baseline
        faults.check()
        passed = asyncio.get_running_loop().time() - begun
        wrote = core.trail.size - entries
        allowed = accepted + 4 * (WRITES_BURST + WRITES_PER_SECOND * passed) + 100 * (1 + passed / 60)
        print(
            f"{here.channel.messages} messages in {rounds} streams over {passed:.0f} s: {wrote} entries of {allowed:.0f} allowed,"
        )
        print(f"longest {1000 * dog.longest_s:.0f} ms, {grown / MIB:+.1f} MiB, answers {dict(here.answers)}")
        print(f"refusals {dict(here.codes.most_common())}")
        assert wrote < allowed
        assert grown < 30 * MIB
        assert here.answers["Refused"] > count // 100
        assert here.answers["Started"] > 0
        assert here.answers["Fetched"] > 0
        # the node still does its work
        await world.close()

    simulate(story, folder, seed=SEED, days=60, delay_s=0.005)


class Caller:
    """The contact's keys at an endpoint of their own (an ``Authority``), without a node that would keep the rules."""

    def __init__(self, identity: Identity, card: bytes) -> None:
        self.identity = identity
        self._card = card
        self.endpoint = Endpoint(network=SocketNetwork(), authority=self)

    def card(self) -> bytes:
        return self._card

    def kinds(self) -> dict[str, int]:
        return dict.fromkeys(KINDS, 1)

    async def admit(self, peer_key: bytes, card: Signed[Card], *, invitation_id: bytes, proof: bytes, th1: bytes) -> None:
        return None

    def on_channel(self, channel: Channel) -> None:
        return None

    def on_stranger(self, address: UdpAddress, reason: str) -> None:
        return None


def keep_no_limit(channel: Channel, stream: Stream) -> None:
    """Messages of any length leave on this stream, if it is still there."""
    session = channel._link.session
    if session is not None and stream.id in session._streams:
        session._streams[stream.id].sealer._message_max_bytes = 1 << 30


async def say(here: Scene, channel: Channel) -> None:
    """One script over a real stream."""
    script = here.script()
    heard = here.channel.incoming()
    with contextlib.suppress(LabxchangeError, TimeoutError):
        async with await channel.open() as stream:
            for number, item in enumerate(script):
                data = item(heard.sent) if callable(item) else item
                here.channel.messages += 1
                last = number == len(script) - 1
                keep_no_limit(channel, stream)
                async with asyncio.timeout(5):
                    await stream.send(data, end=last)
                async with asyncio.timeout(5 if last else 0.5):
                    while (answer := await stream.receive()) is not None:
                        heard.sent.append(answer)
                        if not last:
                            break
    here.check(heard)


def attack_channel(folder: Path, count: int) -> None:
    """The same over real connections on the loopback address; who breaks the rules is put out, and comes again."""
    print(f"seed {SEED:x}")

    async def main() -> None:
        ada, bo = make_node(folder, "Ada"), make_node(folder, "Bo")
        await start(ada)
        await start(bo)
        await befriend(ada, bo)
        first = await share(ada, bo, folder_with(folder / "d1", 40, 300), title="First", downloads=3)
        await ended(bo, (await bo.receive(share=first.share)).transfer)
        await share(ada, bo, folder_with(folder / "d2", 40, 700), title="Second", downloads=1000)
        third = await share(bo, ada, folder_with(folder / "d3", 3, 90), title="Third")
        await ended(ada, (await ada.receive(share=third.share)).transfer)
        identity, card = bo.core.require(), bo.core.require_card()
        await bo.close()
        here = Scene(random.Random(f"channel {SEED}"), ada, identity, ScriptedChannel(parse_card(card.envelope)))
        here.learn()
        faults = Faults()
        caller = Caller(identity, card.envelope)
        channel: Channel | None = None
        dialled = baseline = 0
        while here.channel.messages < count:
            if not baseline and here.channel.messages >= count // 2:
                baseline = resident_bytes()
            if channel is None or not channel.is_open:
                channel = await caller.endpoint.dial(f"127.0.0.1:{ada.port}", ada.core.public)
                here.channel.th2 = channel.th2
                dialled += 1
            await say(here, channel)
            row = ada.contacts.get(here.key)
            assert row is not None
            if row.trail in STOPPED:
                await ada.contact_accept_trail(contact=here.key, reason="They told me why.")
        faults.check()
        grown = resident_bytes() - baseline
        print(
            f"{here.channel.messages} messages over {dialled} connections, {grown / MIB:+.1f} MiB, answers {dict(here.answers)}"
        )
        assert grown < 30 * MIB
        assert here.answers["Refused"] > 0
        assert ada.peers.endpoint.gate.faults == 0
        # the node still does its work, once it may write for this contact again
        again = await caller.endpoint.dial(f"127.0.0.1:{ada.port}", ada.core.public)

        async def taken() -> bool:
            async with await again.open() as stream:
                await stream.send(encode(Waiting(offers=0)), end=True)
                return messages.decode_answer(await stream.receive(20)) == Taken()

        await wait_for(taken, what="an answer", timeout_s=120)
        await caller.endpoint.close()
        await ada.close()

    asyncio.run(main())


def test_messages_over_real_connections(tmp_path: Path) -> None:
    attack_channel(tmp_path, FUZZ)


@pytest.mark.campaign
def test_many_messages_over_real_connections(tmp_path: Path) -> None:
    attack_channel(tmp_path, 3 * FULL)


def test_messages_of_an_evil_recipient(tmp_path: Path) -> None:
    attack(tmp_path, 30 * FUZZ)


@pytest.mark.campaign
def test_all_messages_of_an_evil_recipient(tmp_path: Path) -> None:
    attack(tmp_path, 50 * FULL)
