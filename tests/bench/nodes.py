"""Two real nodes, a who sends and b who receives, each a process of its own with a new home on a tmpfs.

Rules: nodes run as an unprivileged account inside their host; the harness reaches them over their local sockets from outside. b
invites and a dials, so the side that listens is the one that receives. Times are the recipient's own: from the entry
``transfer.accepted``, written before its first request leaves, to ``transfer.verified``, written when the last chunk is verified
and journalled; both are in its trail to the millisecond, so the harness looks only a few times a second and costs little.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

from labxchange.node.client import Client
from labxchange.node.home import HOME_VARIABLE, Home
from labxchange.node.starting import answers
from labxchange.node.values import Me, ShareInfo, TransferInfo
from labxchange.node.verbs import Verbs
from tests.bench.network import Network
from tests.bench.processes import Account, Process, Side

ROOT = Path(__file__).resolve().parents[2]
_LOOK_S = 0.25
_MEET_S = 60.0
_DONE = ("verified", "completed")
_OVER = (*_DONE, "failed", "cut", "cancelled", "paused")


class Stuck(Exception):
    """Something that had to happen did not."""


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """One transfer: ``seconds`` by the recipient's trail when it is complete, else how long it was watched.

    ``samples``: (seconds since the start, bytes verified and journalled), as seen from outside.
    """

    complete: bool
    seconds: float
    done_bytes: int
    samples: tuple[tuple[float, int], ...]
    destination: str
    plane: str = ""
    plane_reason: str = ""
    datagrams_per_call: float | None = None


class _HomeOf(Home):
    """The home of a node that runs as another account: its socket is named after that account."""

    def __init__(self, root: Path, *, uid: int, runtime: Path) -> None:
        super().__init__(root)
        self._uid, self._runtime = uid, runtime

    @property
    def socket(self) -> Path:
        name = f"labxchange-{self._uid}-{sha256(str(self.root).encode()).hexdigest()[:16]}"
        return self._runtime / name / "node.sock"


class BenchNode:
    """A node on a host of the network, and the client that speaks to it."""

    def __init__(self, place: Path, host: str, *, side: Side, network: Network, account: Account) -> None:
        self.host, self.side = host, side
        self._place, self._network, self._account = place / host, network, account
        self.inbox = self._place / "inbox"
        self.home = _HomeOf(self._place / "home", uid=account.uid, runtime=self._place)
        self.client = Client(self.home, start=False)
        self.process: Process | None = None
        self.me: Me | None = None

    async def start(self, name: str) -> None:
        """Start the process and make an identity."""
        for folder in (self._place, self.home.root, self.inbox):
            folder.mkdir(mode=0o700)
            os.chown(folder, self._account.uid, self._account.gid)
        given = {
            HOME_VARIABLE: str(self.home.root),
            "XDG_RUNTIME_DIR": str(self._place),
            "LABXCHANGE_LISTEN": self._network.address(self.host),
            "HOME": str(self._place),
        }
        words = [*self._account.prefix, sys.executable, "-m", "labxchange.node.daemon"]
        env = os.environ | given
        self.process = self.side.start(self._network.command(self.host, words), log=self.log, cwd=Path("/"), env=env)
        await until(f"node {self.host} to answer", self._answers)
        credential = str(self._place / "credential")
        self.me = await self.client.call(Verbs.key_create, name=name, organisation="Bench", credential_file=credential)

    @property
    def log(self) -> Path:
        return self._place.parent / f"{self.host}.log"

    async def _answers(self) -> bool:
        if self.process is not None and self.process.ended():
            raise Stuck(f"node {self.host} ended: {self.log.read_text(errors='replace')[-500:]}")
        return answers(self.home)

    async def close(self) -> None:
        await self.client.close()


async def until(what: str, ask: Callable[[], Awaitable[bool]], *, timeout_s: float = _MEET_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not await ask():
        if time.monotonic() > deadline:
            raise Stuck(f"{what}: not within {timeout_s:.0f} s")
        await asyncio.sleep(0.05)


async def meet(a: BenchNode, b: BenchNode) -> None:
    """Both start, b invites, a accepts and so dials, and each verifies the other."""
    await asyncio.gather(a.start("Ada"), b.start("Ben"))
    assert a.me is not None
    assert b.me is not None
    made = await b.client.call(Verbs.contact_invite)
    await a.client.call(Verbs.contact_accept, text=made.text)
    key = a.me.key

    async def known() -> bool:
        return any(item.key == key for item in await b.client.call(Verbs.contact_list))

    await until("b to know a", known)
    await a.client.call(Verbs.contact_verify, contact=b.me.key, words=list(b.me.words))
    await b.client.call(Verbs.contact_verify, contact=key, words=list(a.me.words))


async def offer(a: BenchNode, b: BenchNode, source: Path, *, title: str, known: bool) -> ShareInfo:
    """Share with b and wait until the offer is there; with ``known`` also until a has its digests."""
    made = await a.client.call(Verbs.share_create, paths=[str(source)], to=["Ben"], title=title)

    async def offered() -> bool:
        return any(item.share == made.share for item in await b.client.call(Verbs.inbox_list))

    await until("the offer", offered, timeout_s=600)
    if known:
        await a.client.call(Verbs.share_hashed, share=made.share)
    return made


async def fetch(b: BenchNode, share: ShareInfo, *, window_s: float) -> Moved:
    """Receive a share and watch until it is verified, or until the window ends."""
    began = time.monotonic()
    info = await b.client.call(Verbs.receive, share=share.share, destination=str(b.inbox / share.title))
    samples, joined = [(0.0, 0)], 0.0
    while info.state not in _OVER and time.monotonic() - began < window_s:
        await asyncio.sleep(_LOOK_S)
        info = await b.client.call(Verbs.transfer_show, transfer=info.transfer)
        samples.append((time.monotonic() - began, info.done_bytes))
        joined = max(joined, info.path.datagrams_per_call if info.path is not None else 0.0)
    watched_s = time.monotonic() - began
    if info.state in _OVER and info.state not in _DONE:
        raise Stuck(f"the transfer is {info.state}: {info.reason}")
    complete = info.state in _DONE
    plane, reason = await _plane(b, info, complete=complete)
    return Moved(
        complete=complete,
        seconds=await _seconds(b, info, watched_s=watched_s) if complete else watched_s,
        done_bytes=info.done_bytes,
        samples=tuple(samples),
        destination=info.destination,
        datagrams_per_call=joined or None,
        plane=plane,
        plane_reason=reason,
    )


async def _seconds(b: BenchNode, info: TransferInfo, *, watched_s: float) -> float:
    """By the recipient's trail, and not longer than was seen from outside."""
    at = {}
    for event in ("transfer.accepted", "transfer.verified"):
        entries = await b.client.call(Verbs.audit_list, event=event, about=info.transfer)
        at[event] = entries[-1 if event == "transfer.accepted" else 0].utc
    seconds = (at["transfer.verified"] - at["transfer.accepted"]) / 1000
    if not 0 <= seconds <= watched_s + 0.1:
        raise Stuck(f"the trail says {seconds:.3f} s, but it was seen to end within {watched_s:.3f} s")
    return seconds


async def _plane(b: BenchNode, info: TransferInfo, *, complete: bool) -> tuple[str, str]:
    """What carried the bytes, as the receipt says - lanes, or streams of the control connection - and why it fell back if it did.
    A transfer that is not complete has no receipt: there only the entry of a fallback tells."""
    entries = await b.client.call(Verbs.audit_list, event="transfer.fallback", about=info.transfer, limit=1)
    reason = entries[0].result_code if entries else ""
    if not complete:
        return ("quic-stream" if entries else "", reason)
    path = (await b.client.call(Verbs.receipt_show, transfer=info.transfer)).path.split(", ")
    return (path[1] if len(path) > 1 else "", reason)


def rate_at_the_end(samples: Sequence[tuple[float, int]]) -> float:
    """Bytes a second in the second half of what was watched."""
    last_s, last = samples[-1]
    first_s, first = next(sample for sample in samples if sample[0] >= last_s / 2)
    return (last - first) / (last_s - first_s) if last_s > first_s else 0.0
