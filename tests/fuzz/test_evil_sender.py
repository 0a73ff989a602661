"""What a sender who keeps no rule can do to the node of a recipient who asked for a share.

The sender answers each request of the recipient's node, rightly or not: answers damaged, left out, doubled, in another order or
of another kind, wrong data, too much of it, none at all, a little each second. Time is virtual, so what stalls takes no time.
Only what the manifest says ever gets its name, in the destination and nowhere else; every attempt ends or waits; memory stays.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3

from labxchange.dataset.listing import Listing, encode_files, listed_file
from labxchange.dataset.manifest import Manifest, encode_digests, root
from labxchange.errors import PeerError
from labxchange.identity.card import parse_card
from labxchange.identity.keys import Identity
from labxchange.identity.statement import Signed, sign
from labxchange.node.node import Node
from labxchange.sharing.exchange import Cut, Refusal
from labxchange.sharing.grant import Grant
from labxchange.sharing.share import Offer, Share
from labxchange.wire.control import messages
from labxchange.wire.control.messages import (
    PAGE_BYTES,
    PIECE_BYTES,
    Announced,
    Begin,
    Fetch,
    Fetched,
    GetDigests,
    GetPage,
    Gone,
    Nonce,
    PageOf,
    Piece,
    Pieces,
    Refused,
    Started,
    Taken,
    encode,
)
from labxchange.wire.control.pages import deflated
from tests.fuzz.evil import (
    FULL,
    FUZZ,
    MIB,
    SEED,
    Faults,
    Pool,
    ScriptedChannel,
    ScriptedStream,
    Watchdog,
    resident_bytes,
    twisted,
)
from tests.support.world import World, simulate

DAY_MS = 86_400_000
WARM = 10_000
_BOMB = zlib.compress(bytes(64 << 20))


class EvilShare:
    """A share version as its sender may sign it: nothing here checks a name."""

    def __init__(self, identity: Identity, files: dict[str, bytes], *, chance: random.Random, now: int) -> None:
        self.identity = identity
        self.me = identity.public.hex()
        self.contents = dict(sorted(files.items(), key=lambda item: item[0].encode()))
        self.share = chance.randbytes(16).hex()
        self.now = now
        self.hashing = chance.random() < 0.3
        """At the start of a transfer there is no manifest yet; it comes with the digests, of which some come at a time."""
        self.files = [listed_file(path, len(data), 1_700_000_000_000) for path, data in self.contents.items()]
        self.listing_body = encode_files(self.files)
        given = {"issuer": self.me, "issued": now}
        total = sum(file.size for file in self.files)
        self.listing: Signed[Listing] = sign(
            Listing(
                **given,
                share=self.share,
                version=1,
                files=len(self.files),
                bytes=total,
                body=sha256(self.listing_body).hexdigest(),
            ),
            identity,
        )
        self.chunks: list[bytes] = []
        digests: list[Any] = []
        for file, data in zip(self.files, self.contents.values(), strict=True):
            parts = [data[start : start + file.chunk_bytes] for start in range(0, file.size, file.chunk_bytes)]
            self.chunks += parts
            digests.append((sha256(data).digest(), sha256(b"".join(blake3(part).digest() for part in parts)).digest()))
        self.chunk_digests = b"".join(blake3(part).digest() for part in self.chunks)
        self.manifest_body = encode_digests(digests)
        self.manifest: Signed[Manifest] = sign(
            Manifest(
                **given,
                listing=self.listing.id,
                root=root(self.files, digests).hex(),
                files=len(self.files),
                left_out=0,
                bytes=total,
                body=sha256(self.manifest_body).hexdigest(),
            ),
            identity,
        )
        head = Share(
            **given,
            share=self.share,
            version=1,
            listing=self.listing.id,
            title="Results",
            note="",
            study="",
            site="",
            category="",
        )
        self.head: Signed[Share] = sign(head, identity)

    def offer(self, recipient: str, *, chance: random.Random, until: int) -> list[bytes]:
        """The statements of one more offer of it."""
        grant: Signed[Grant] = sign(
            Grant(
                issuer=self.me,
                issued=self.now,
                grant=chance.randbytes(16).hex(),
                revision=1,
                share=self.share,
                version=1,
                listing=self.listing.id,
                recipients=[recipient],
                rights=["list", "read"],
                purpose="",
                not_before=0,
                not_after=until,
                downloads=1,
            ),
            self.identity,
        )
        offer = Offer(
            issuer=self.me,
            issued=self.now,
            recipient=recipient,
            share=self.share,
            version=1,
            listing=self.listing.id,
            grant=grant.id,
            root="",
        )
        return [self.head.envelope, self.listing.envelope, grant.envelope, sign(offer, self.identity).envelope]

    def answers(self, request: Any) -> list[bytes]:
        """What an honest sender says, message by message."""
        if isinstance(request, GetPage):
            body = {"listing": self.listing_body, "manifest": self.manifest_body, "digests": self.chunk_digests}[request.body]
            data = body[request.number * PAGE_BYTES : (request.number + 1) * PAGE_BYTES]
            last = len(body) <= (request.number + 1) * PAGE_BYTES
            return [encode(deflated(data, last=last) if request.body == "listing" else PageOf(data=data, last=last))]
        if isinstance(request, Begin):
            return [encode(Nonce(nonce=bytes(32))), encode(Started(manifest=b"" if self.hashing else self.manifest.envelope))]
        if isinstance(request, GetDigests):
            first = 32 * request.first_chunk
            some = self.chunk_digests[first : first + 32 * max(1, len(self.chunks) // 2)]
            is_all = first + len(some) >= len(self.chunk_digests)
            return [encode(Announced(data=some, manifest=self.manifest.envelope if is_all else b""))]
        if isinstance(request, Fetch):
            pieces = [
                Piece(chunk, start, self.chunks[chunk][start : start + PIECE_BYTES])
                for first, last in request.chunks
                for chunk in range(first, last + 1)
                for start in range(0, len(self.chunks[chunk]), PIECE_BYTES)
            ]
            small = max(1, len(pieces) // 3)
            groups = [pieces[start : start + small] for start in range(0, len(pieces), small)]
            sizes = [sum(len(piece.data) for piece in group) for group in groups]
            if max(sizes, default=0) > PAGE_BYTES:
                groups = [[piece] for piece in pieces]
            return [encode(Pieces(pieces=group)) for group in groups] + [encode(Fetched(gone=[]))]
        return [encode(Taken())]


class EvilStream(ScriptedStream):
    """A stream whose other end answers requests, and may take its time."""

    def __init__(self, sender: EvilSender) -> None:
        super().__init__(sender.channel, [])
        self._sender = sender
        self._given: Iterator[Any] | None = None

    async def receive(self, within_s: float | None = None) -> bytes | None:
        if self._given is None:
            self._given = iter(self._sender.script(messages.decode_request(self.sent[0])))
        try:
            async with asyncio.timeout(within_s):
                item = next(self._given, None)
                while isinstance(item, float):
                    self._sender.seen["paused"] += 1
                    await asyncio.sleep(item)
                    item = next(self._given, None)
        except TimeoutError:
            raise PeerError("peer-stalled", "The other node stopped sending.") from None
        self.channel.messages += item is not None
        return item


class EvilSender:
    """Answers for a share; ``evil`` of all streams are answered otherwise than they should be."""

    def __init__(self, chance: random.Random, channel: ScriptedChannel, share: EvilShare, *, evil: float = 0.4) -> None:
        self.chance = chance
        self.channel = channel
        self.share = share
        self.evil = evil
        self.pool = Pool(chance)
        self.seen: Counter[str] = Counter()
        channel.open = self._open  # type: ignore[method-assign]

    async def _open(self) -> ScriptedStream:
        self.channel.opened += 1
        return EvilStream(self)

    def script(self, request: Any) -> list[Any]:
        """Messages, pauses (a float, in seconds) and the end."""
        honest: list[Any] = list(self.share.answers(request))
        if self.chance.random() >= self.evil:
            self.seen["honest"] += 1
            return honest
        ways: list[Callable[[list[Any]], list[Any]]] = [
            *[self.damaged] * 4,
            self.fewer,
            self.doubled,
            self.shuffled,
            self.other,
            self.refused,
            self.late,
        ]
        if isinstance(request, Fetch):
            ways += [*[self.wrong_data] * 3, self.too_much, self.gone, self.dribbled, self.empty, self.elsewhere]
        way = self.chance.choice(ways)
        self.seen[way.__name__] += 1
        return way(honest)

    def _at(self, honest: list[Any]) -> int:
        return self.chance.randrange(len(honest))

    def damaged(self, honest: list[Any]) -> list[Any]:
        at = self._at(honest)
        honest[at] = twisted(self.chance, self.pool, honest[at])
        return honest

    def fewer(self, honest: list[Any]) -> list[Any]:
        return honest[: self._at(honest)] if self.chance.random() < 0.5 else honest[:1] + honest[2:]

    def doubled(self, honest: list[Any]) -> list[Any]:
        at = self._at(honest)
        return honest[: at + 1] + honest[at:]

    def shuffled(self, honest: list[Any]) -> list[Any]:
        self.chance.shuffle(honest)
        return honest

    def other(self, honest: list[Any]) -> list[Any]:
        kinds = [
            encode(Taken(statements=[b"x"])),
            encode(Nonce(nonce=bytes(32))),
            encode(Started(manifest=b"")),
            encode(Started(manifest=self.share.listing.envelope)),
            encode(PageOf(data=bytes(PAGE_BYTES), last=False)),
            encode(PageOf(data=b"", last=False)),
            encode(PageOf(data=b"", last=True)),
            encode(PageOf(data=_BOMB, last=False, deflated=True)),
            encode(PageOf(data=b"no zlib", last=True, deflated=True)),
            encode(Fetched(gone=[])),
            encode(Pieces(pieces=[])),
            b"",
            self.chance.randbytes(30),
        ]
        honest[self._at(honest)] = self.chance.choice(kinds)
        return honest

    def refused(self, honest: list[Any]) -> list[Any]:
        given = {"issuer": self.share.me, "issued": self.share.now}
        code = self.chance.choice(["grant-expired", "contact-unverified", "", "no", "x" * 64, "disk-full", "too-much-at-once"])
        refusal = Refusal(**given, to="0" * 64, request="\x1b[2J", code=code, sentence="\x1b[31mNo\u202e", hint="rm -rf /\n")
        cut = Cut(**given, transfer="0" * 32, code=code, side="sender", files=2**53 - 1, bytes=0, arrived=[(5, 1)], more=0)
        envelope = sign(self.chance.choice([refusal, cut]), self.share.identity).envelope
        honest[self._at(honest)] = encode(Refused(statement=envelope))
        return honest

    def late(self, honest: list[Any]) -> list[Any]:
        honest.insert(self._at(honest), self.chance.choice([1.0, 59.0, 61.0, 10.0**6]))
        return honest

    # --- of a fetch ---------------------------------------------------------------------------------------------------
    def _pieces(self, honest: list[Any]) -> list[list[Piece]]:
        return [msgspec.msgpack.decode(item, type=Pieces).pieces for item in honest[:-1]]

    def wrong_data(self, honest: list[Any]) -> list[Any]:
        groups = self._pieces(honest)
        group = self.chance.choice(groups)
        at = self.chance.randrange(len(group))
        data = bytearray(group[at].data)
        data[self.chance.randrange(len(data))] ^= 1 << self.chance.randrange(8)
        group[at] = Piece(group[at].chunk, group[at].offset, bytes(data))
        return [encode(Pieces(pieces=group)) for group in groups] + honest[-1:]

    def too_much(self, honest: list[Any]) -> list[Any]:
        groups = self._pieces(honest)
        group = self.chance.choice(groups)
        at = self.chance.randrange(len(group))
        group[at] = Piece(group[at].chunk, group[at].offset, group[at].data + b"!" * self.chance.choice([1, 1000, 2**19]))
        return [encode(Pieces(pieces=group)) for group in groups] + honest[-1:]

    def elsewhere(self, honest: list[Any]) -> list[Any]:
        groups = self._pieces(honest)
        group = self.chance.choice(groups)
        at = self.chance.randrange(len(group))
        chunk = self.chance.choice([0, group[at].chunk + 1, 2**40, 2**53 - 1])
        offset = self.chance.choice([0, 1, group[at].offset + 1, 2**53 - 1])
        group[at] = Piece(chunk, offset, group[at].data)
        return [encode(Pieces(pieces=group)) for group in groups] + honest[-1:]

    def gone(self, honest: list[Any]) -> list[Any]:
        files = [self.chance.choice([0, 1, len(self.share.files), 2**53 - 1]) for _ in range(self.chance.choice([1, 2, 4096]))]
        keep = honest[:-1] if self.chance.random() < 0.5 else []
        return [*keep, encode(Fetched(gone=[Gone(file, "changed") for file in files]))]

    def dribbled(self, honest: list[Any]) -> list[Any]:
        """One byte a second."""
        first = self._pieces(honest)[0][0]
        out: list[Any] = []
        for offset, byte in enumerate(first.data[:600]):
            out += [1.0, encode(Pieces(pieces=[Piece(first.chunk, offset, bytes([byte]))]))]
        return out

    def empty(self, honest: list[Any]) -> list[Any]:
        """Messages without anything in them, as many as the recipient will read."""
        out: list[Any] = []
        for _ in range(300):
            out += [self.chance.choice([0.1, 1.0]), encode(Pieces(pieces=[]))]
        return out


async def recipient(world: World) -> tuple[Node, Identity, ScriptedChannel]:
    """Ada, who verified Bo; Bo's keys are the attacker's now."""
    ada, bo = await world.pair()
    await asyncio.sleep(5)
    identity, card = bo.node.core.require(), bo.node.core.require_card()
    await bo.stop()
    world.cut_wire(ada, bo)
    channel = ScriptedChannel(parse_card(card.envelope))

    async def connect(key: str) -> ScriptedChannel:
        return channel

    ada.node.receiving._connect = connect  # type: ignore[assignment]
    return ada.node, identity, channel


def give(node: Node, share: EvilShare, chance: random.Random, *, days: int) -> None:
    until = node.core.clock.now() + (1000 + days) * DAY_MS
    for envelope in share.offer(node.core.me, chance=chance, until=until):
        assert node.taking.take(share.me, envelope) == []


def tree(root: Path) -> dict[str, bytes]:
    """Every name below ``root`` with its content; what is no file counts by its form."""
    out = {}
    for path in sorted(root.rglob("*")):
        out[str(path.relative_to(root))] = path.read_bytes() if path.is_file() and not path.is_symlink() else b"<other>"
    return out


def attack(folder: Path, count: int) -> None:
    print(f"seed {SEED:x}")
    chance = random.Random(f"sender {SEED}")
    files = {f"visit/{number:02}.csv": chance.randbytes(100 + number) for number in range(12)}
    files |= {"empty.csv": b"", "scan.bin": chance.randbytes((2 << 20) + 5000)}

    async def story(world: World) -> None:
        node, identity, channel = await recipient(world)
        share = EvilShare(identity, files, chance=chance, now=node.core.clock.now())
        sender = EvilSender(chance, channel, share)
        for task in node._tasks:
            task.cancel()
        faults, dog = Faults(), Watchdog(limit_s=2.0)  # of all that comes within twenty seconds
        states: Counter[str] = Counter()
        baseline = number = 0
        place = folder / "received"
        place.mkdir()
        while channel.messages < count:
            number += 1
            if not baseline and channel.messages >= min(WARM, count // 2):
                baseline = resident_bytes()
            if number % 5 == 0:  # its lists are fetched anew
                share = sender.share = EvilShare(identity, files, chance=chance, now=node.core.clock.now())
            give(node, share, chance, days=number)
            into = place / "here"
            info = await node.receive(share=share.share, destination=str(into))
            for _ in range(chance.choice([20, 200, 500])):
                with dog.watch(f"transfer {number}"):
                    await asyncio.sleep(20)
                info = await node.transfer_show(transfer=info.transfer)
                if info.state not in ("waiting", "running"):
                    break
            states[f"{info.state} {info.reason}"] += 1
            if info.state in ("waiting", "running", "paused", "cut", "failed"):
                await node.transfer_cancel(transfer=info.transfer)
            here = tree(into) if into.exists() else {}
            for name, data in here.items():
                assert data == files.get(name, b"<other>" if name == "visit" else None), name
            assert info.state != "verified" or len([name for name in here if name != "visit"]) == len(files)
            assert set(tree(place)) == ({"here"} | {f"here/{name}" for name in here} if into.exists() else set())
            _clear(into)
            assert not node.receiving._running or all(item.task.done() for item in node.receiving._running.values())
            if number % 50 == 0:
                faults.check()
        faults.check()
        grown = resident_bytes() - baseline
        print(f"{channel.messages} messages over {channel.opened} streams in {number} transfers; {dict(states.most_common())}")
        print(f"{dict(sender.seen)}; {dog.longest_s:.2f} s at most for 20 s, {grown / MIB:+.1f} MiB")
        assert grown < 30 * MIB
        assert states["verified "] > 0
        await world.close()

    simulate(story, folder, seed=SEED, delay_s=0.005)


def _clear(folder: Path) -> None:
    import shutil

    if folder.exists():
        shutil.rmtree(folder)


def test_answers_of_an_evil_sender(tmp_path: Path) -> None:
    attack(tmp_path, 5 * FUZZ)


@pytest.mark.campaign
def test_all_answers_of_an_evil_sender(tmp_path: Path) -> None:
    attack(tmp_path, 12 * FULL)
