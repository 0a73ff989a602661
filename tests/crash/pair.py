"""A sender and a recipient that are killed and started again, and what must hold after each kill.

``Pair`` runs both nodes as processes of a ``zygote``. A kill comes at a trap (a counted point inside the node) or from outside at
a random moment. At every restart what the node had vouched for is compared with what its disk holds; whatever has its name in the
destination must be whole and right; and the bytes that were sent in vain are counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from labxchange.audit.verifier import Verdict, verify
from tests.crash.traps import RECIPIENT, SENDER
from tests.crash.zygote import FETCH_BYTES, JOURNAL_BYTES, Order
from tests.support.nodes import wait_for

ROOT = Path(__file__).parents[2]
CHUNK_BYTES = 1 << 20
IN_FLIGHT_BYTES = 4 * (FETCH_BYTES + CHUNK_BYTES)
"""Four requests, each of at least one chunk."""
LOST_MAX_BYTES = 2 * JOURNAL_BYTES + IN_FLIGHT_BYTES
"""A window that is being flushed, the next one that fills meanwhile, and what is under way."""
_PATIENCE_S = 60.0
_COUNTS = {
    "hash": 40,
    "write": 25,
    "flush": 3,
    "rename": 30,
    "release": 2,
    "discard": 1,
    "sync": 8,
    "commit": 14,
    "seal": 5,
    "send": 12,
}
"""Up to how many times a point is passed before the kill."""


class Died(Exception):
    """The process is gone."""


class Refused(Exception):
    """The node answered with an error; its code is the text."""


class Hosted:
    """One life of a node's process."""

    def __init__(self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid = pid
        self.heads: dict[int, str] = {}
        self.arrived: dict[str, set[int]] = {}
        self.released: dict[str, set[int]] = {}
        self.again: list[Any] = []
        self.ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.dead = asyncio.Event()
        self._writer = writer
        self._answers: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._calls = asyncio.Lock()
        self._task = asyncio.ensure_future(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while (line := await reader.readline()).endswith(b"\n"):
                self._hear(msgspec.json.decode(line))
        except ConnectionError:
            pass
        finally:
            self.dead.set()
            self._answers.put_nowait(None)
            if not self.ready.done():
                self.ready.set_exception(Died())
                self.ready.exception()
            self._writer.close()

    def _hear(self, told: dict[str, Any]) -> None:
        if "head" in told:
            size, root = told["head"]
            self.heads[size] = root
        elif "again" in told:
            self.again.append(told)
        elif "ready" in told:
            self.ready.set_result(told)
        elif "transfer" in told:
            for name in ("arrived", "released"):
                numbers = {n for first, last in told.get(name, ()) for n in range(first, last + 1)}
                getattr(self, name).setdefault(told["transfer"], set()).update(numbers)
        else:
            self._answers.put_nowait(told)

    async def call(self, verb: str, **given: Any) -> Any:
        """Raises Died, Refused."""
        async with self._calls:
            if self.dead.is_set():
                raise Died
            try:
                self._writer.write(msgspec.json.encode({"verb": verb} | given) + b"\n")
                answer = await asyncio.wait_for(self._answers.get(), _PATIENCE_S)
            except ConnectionError:
                raise Died from None
        if answer is None:
            raise Died
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["answer"]

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        await self._task


class Pair:
    """Both sides, the seed, and the count of what happened."""

    def __init__(self, folder: Path, seed: object) -> None:
        self.folder = folder
        self.chance = random.Random(f"kills {seed}")
        self.kills: Counter[str] = Counter()
        self.in_start = 0
        self.lost_bytes: list[int] = []
        self.heads_checked = 0
        self.nodes: dict[str, Hosted] = {}
        self.held: dict[str, Any] = {}
        # Loopback addresses of their own, so that no other node takes a port while this one is dead.
        place = f"127.{os.getpid() % 250 + 1}.{random.SystemRandom().randint(1, 254)}"
        self._hosts = {"Ada": f"{place}.1", "Bo": f"{place}.2"}
        self._connected: asyncio.Queue[Hosted] = asyncio.Queue()

    async def __aenter__(self) -> Pair:
        path = str(self.folder / "s")
        self._server = await asyncio.start_unix_server(self._connect, path, limit=1 << 24)
        environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
        self._zygote = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.crash.zygote", path, stdin=asyncio.subprocess.PIPE, cwd=ROOT, env=environment
        )
        for name in ("Ada", "Bo"):
            (self.folder / f"{name}.sent").write_bytes(bytes(8))
            await self.spawn(name)
        await self._befriend()
        return self

    async def __aexit__(self, *_: object) -> None:
        for hosted in self.nodes.values():
            if not hosted.dead.is_set():
                await hosted.kill()
        assert self._zygote.stdin is not None
        self._zygote.stdin.close()
        await self._zygote.wait()
        self._server.close()
        await self._server.wait_closed()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = msgspec.json.decode(await reader.readline())
        self._connected.put_nowait(Hosted(hello["pid"], reader, writer))

    async def spawn(self, name: str, trap: tuple[str, int, bool] | None = None) -> bool:
        """Start a node; False when its trap killed it before it was ready."""
        counter = str(self.folder / f"{name}.sent")
        order = Order(folder=str(self.folder), name=name, host=self._hosts[name], counter=counter, trap=trap)
        assert self._zygote.stdin is not None
        self._zygote.stdin.write(msgspec.json.encode(order) + b"\n")
        hosted = await asyncio.wait_for(self._connected.get(), _PATIENCE_S)
        before = self.nodes.get(name)
        self.nodes[name] = hosted
        try:
            held = await asyncio.wait_for(asyncio.shield(hosted.ready), _PATIENCE_S)
        except Died:
            if before is not None:  # what the life before had vouched for still has to be found
                hosted.heads = before.heads | hosted.heads
                for kind in ("arrived", "released"):
                    merged, old = getattr(hosted, kind), getattr(before, kind)
                    for transfer, numbers in old.items():
                        merged.setdefault(transfer, set()).update(numbers)
            return False
        self.held = held
        if before is not None:
            self._compare(name, before, held)
        return True

    def _compare(self, name: str, before: Hosted, held: dict[str, Any]) -> None:
        """Nothing acknowledged is lost."""
        assert not before.again, f"chunks came again that {name}'s journal held: {before.again[:3]}"
        for size, root in before.heads.items():
            assert held["roots"].get(str(size)) == root, f"{name}'s trail lost or changed an acknowledged entry below {size}"
        self.heads_checked += len(before.heads)
        for kind in ("arrived", "released"):
            for transfer, numbers in getattr(before, kind).items():
                found = {n for first, last in held[kind].get(transfer, ()) for n in range(first, last + 1)}
                assert numbers <= found, f"{name} lost {len(numbers - found)} acknowledged {kind} of {transfer}"

    async def _befriend(self) -> None:
        ada, bo = self.nodes["Ada"], self.nodes["Bo"]
        invitation = await ada.call("contact_invite")
        await bo.call("contact_accept", text=invitation["text"])
        self.me = {name: await hosted.call("key_show") for name, hosted in self.nodes.items()}
        for name, other in (("Ada", "Bo"), ("Bo", "Ada")):
            await self.nodes[name].call("contact_verify", contact=self.me[other]["key"], words=self.me[other]["words"])
        for hosted in self.nodes.values():

            async def cosigned(hosted: Hosted = hosted) -> Any:
                return await hosted.call("audit_list", event="trail.cosigned", limit=1)

            await patiently(cosigned, "the first cosignature")

    def sent_bytes(self) -> int:
        return int(struct.unpack("<Q", (self.folder / "Ada.sent").read_bytes())[0])

    # --- kills --------------------------------------------------------------------------------------------------------
    def trap(self, name: str) -> tuple[str, int, bool]:
        kind = self.chance.choice(SENDER if name == "Ada" else RECIPIENT)
        return kind, self.chance.randint(1, _COUNTS[kind]), self.chance.random() < 0.5

    async def arm(self, name: str, trap: tuple[str, int, bool]) -> None:
        kind, count, after = trap
        await self.nodes[name].call("trap", kind=kind, count=count, after=after)

    async def rise(self, name: str, destination: Path, source: dict[str, bytes], *, again: bool = True) -> int:
        """After a kill: check the disk, start again (sometimes into the next kill); returns the number of kills at the start."""
        killed = 0
        while True:
            check_released(destination, source)
            trap = self.trap(name) if again and self.chance.random() < 0.15 else None
            if trap is not None:
                trap = ("commit", self.chance.randint(1, 8), trap[2]) if trap[0] in ("hash", "discard") else trap
            if await self.spawn(name, trap):
                if trap is not None:
                    await self._disarm(name)
                return killed
            killed += 1
            self.in_start += 1
            self.kills[f"{name} start {trap[0] if trap else ''}"] += 1

    async def _disarm(self, name: str) -> None:
        with contextlib.suppress(Died):
            await self.arm(name, ("", 0, False))

    def account(self, sent: int, journalled: int, kills: int) -> int:
        """Bytes sent that are not in the journal came in vain; at most what the design says for each kill."""
        lost = sent - journalled
        assert lost <= kills * LOST_MAX_BYTES, f"{lost} bytes were sent in vain by {kills} kills"
        return lost


def make_source(folder: Path, chance: random.Random, *, small: int, large: int) -> dict[str, bytes]:
    """Files of every kind that goes its own way: small in batches, of several chunks, empty, nested."""
    out = {f"small/{n:04d}.dat": chance.randbytes(chance.randint(1, 20_000)) for n in range(small)}
    for number in range(large):
        out[f"large {number}.bin"] = chance.randbytes(chance.randint(1, 3) * CHUNK_BYTES + chance.randint(0, 9999))
    out |= {"empty.txt": b"", "a/b/c/deep.txt": b"deep", "one chunk.bin": chance.randbytes(CHUNK_BYTES)}
    for name, data in out.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (folder / "empty folder").mkdir()
    return out


def check_released(destination: Path, source: dict[str, bytes], *, complete: bool = False) -> None:
    """Whatever has its name is whole and right; ``complete``: and nothing else is there. A node may be at work meanwhile: what is
    not released yet comes and goes."""
    found = set()
    for top, folders, names in os.walk(destination):
        hidden = [name for name in folders if name.startswith(".labxchange-")]
        assert not complete or not hidden, f"{hidden} was left behind"
        folders[:] = [name for name in folders if name not in hidden]
        for name in names:
            path = Path(top, name)
            inside = str(path.relative_to(destination))
            assert path.read_bytes() == source[inside], f"{inside} has its name and is not what was shared"
            found.add(inside)
    assert not complete or found == set(source), f"missing: {sorted(set(source) - found)[:5]}"


async def check_trails(pair: Pair) -> tuple[int, int]:
    """Both trails verify, trusting both; returns their sizes."""
    trust = [me["fingerprint"] for me in pair.me.values()]
    sizes = []
    for name in ("Ada", "Bo"):
        path = pair.folder / f"{name} {time.monotonic_ns()}.labxtrail"
        await pair.nodes[name].call("audit_export", path=str(path))
        result = verify(path, trust=trust)
        assert result.verdict is Verdict.VALID, f"{name}'s trail is {result.verdict}: {result.reasons[:3]}"
        sizes.append(result.size)
        path.unlink()
    return sizes[0], sizes[1]


async def patiently(condition: Callable[[], Any], what: str) -> Any:
    return await wait_for(condition, what=what, timeout_s=_PATIENCE_S)
