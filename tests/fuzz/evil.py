"""An authenticated peer that keeps no rule: streams and channels it holds in its hand, and mutations of whatever it may say.

Everything is drawn from one ``random.Random``. Bodies are mutated before they are signed with the peer's own key, so they pass
the signature and meet the code behind it; envelopes and messages are mutated afterwards, by field and by bit.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from labxchange.audit.checkpoint import Checkpoint, sign_note
from labxchange.encoding import b64encode
from labxchange.errors import LabxchangeError, PeerError
from labxchange.identity.card import Card
from labxchange.identity.fingerprint import fingerprint
from labxchange.identity.keys import Identity
from labxchange.identity.statement import Signed, Statement, parse, pre_authentication
from labxchange.wire.control import messages

MIB = 1 << 20
SEED = int(os.environ.get("LABXCHANGE_SEED", "6"), 16)
FUZZ = int(os.environ.get("LABXCHANGE_FUZZ", "400"))
"""The size of a CI run; the amounts of issue and campaign are those of 4,000."""
FULL = 4000

T = TypeVar("T")
Incoming = bytes | None | Callable[[list[bytes]], bytes | None]
"""What the peer says next: bytes, the end, or what it makes of all that was said to it so far."""
Answer = Callable[[list[bytes], list[bytes]], bytes | None]
"""(all that was said to the peer, all that it answered) -> its next message; None ends the stream."""


def resident_bytes() -> int:
    """This process's resident memory, from the kernel, after the allocator gave back what is free: one large message leaves a
    heap that is larger and holds nothing more."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Hang(BaseException):
    """Something took more than its second of processor time."""


class Watchdog:
    """Interrupts what uses the processor for longer than ``limit_s``; remembers the longest."""

    def __init__(self, limit_s: float = 1.0) -> None:
        self.limit_s = limit_s
        self.longest_s = 0.0

    @contextmanager
    def watch(self, what: object) -> Iterator[None]:
        def bark(*_: object) -> None:
            raise Hang(f"more than {self.limit_s} s: {what!r:.2000}")

        old = signal.signal(signal.SIGPROF, bark)
        signal.setitimer(signal.ITIMER_PROF, self.limit_s)
        begun = time.process_time()
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, old)
            self.longest_s = max(self.longest_s, time.process_time() - begun)


class Faults:
    """Exceptions that nobody caught, in tasks and callbacks of the running loop."""

    def __init__(self) -> None:
        self.found: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.found.append(repr(context)))

    def check(self) -> None:
        gc.collect()
        assert not self.found, self.found[:3]


class ScriptedStream:
    """A ``net.channel.Stream`` whose other end is a script."""

    def __init__(self, channel: ScriptedChannel, script: list[Incoming] | Answer) -> None:
        self.channel = channel
        self.id = 0
        self.sent: list[bytes] = []
        self.said: list[bytes] = []
        self.was_reset = False
        self._ended = False
        self._script = script

    async def receive(self, within_s: float | None = None) -> bytes | None:
        if callable(self._script):
            data = self._script(self.sent, self.said)
        else:
            item = self._script.pop(0) if self._script else None
            data = item(self.sent) if callable(item) else item
        if data is not None:
            self.said.append(data)
            self.channel.messages += 1
        return data

    async def send(self, data: bytes, *, end: bool = False) -> None:
        if self._ended:
            raise RuntimeError("the stream was ended")
        assert len(data) <= messages.MESSAGE_MAX_BYTES
        self._ended = end
        self.sent.append(data)

    def end(self) -> None:
        self._ended = True

    def reset(self, code: int = 1) -> None:
        self.was_reset = self._ended = True

    def close(self) -> None:
        self._ended = True

    async def __aenter__(self) -> ScriptedStream:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended = True


class ScriptedChannel:
    """A ``net.channel.Channel`` to the evil peer. ``answer`` makes the script of each stream that the node opens."""

    def __init__(self, card: Signed[Card], *, answer: Callable[[], Answer] | None = None) -> None:
        self.peer_key = bytes.fromhex(card.body.issuer)
        self.card = card
        self.th2 = bytes(range(32))
        self.dialled = False
        self.remote_address = ("192.0.2.1", 1)
        self.messages = 0
        self.opened = 0
        self._answer = answer
        self._over = asyncio.Event()

    @property
    def is_open(self) -> bool:
        return not self._over.is_set()

    def incoming(self, *script: Incoming) -> ScriptedStream:
        """A stream that the peer opens."""
        return ScriptedStream(self, list(script))

    async def open(self) -> ScriptedStream:
        assert self._answer is not None
        self.opened += 1
        return ScriptedStream(self, self._answer())

    def close(self, code: str = "") -> None:
        self._over.set()

    async def closed(self) -> None:
        await self._over.wait()


# --- mutations --------------------------------------------------------------------------------------------------------
NUMBERS = [0, 1, 2, 3, 7, 64, 255, 256, 999, 1000, 4095, 4096, 65_535, 2**31, 2**32, 2**53 - 2, 2**53 - 1]
BAD_NUMBERS = [-1, -(2**31), 2**53, 2**63 - 1, 2**63, 2**64 - 1]
TEXTS = [
    "",
    "a",
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\x",
    "CON",
    "=1+1",
    "@SUM(A1)",
    "\x1b[31mred\x1b[0m",
    "line\nbreak\r\n",
    "\u202egpj.exe",
    "\x00",
    "\u0085\u2028",
    "e\u0301",
    "x" * 1000,
    "x" * 1001,
    "é" * 500,
    "a" * 64,
    "0" * 64,
    "0" * 32,
    "f" * 64,
    "g" * 64,
    "A" * 64,
    "[bold]x[/bold]",
    "😀" * 20,
]


def flip(chance: random.Random, data: bytes) -> bytes:
    """Damage of some kind."""
    out = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 8])):
        if not out:
            return chance.randbytes(3)
        at = chance.randrange(len(out))
        kind = chance.randrange(7)
        if kind == 0:
            out[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            out[at] = chance.randrange(256)
        elif kind == 2:
            del out[at:]
        elif kind == 3:
            out[at:at] = chance.randbytes(chance.randrange(1, 9))
        elif kind == 4:
            del out[at : at + chance.randrange(1, 9)]
        elif kind == 5:
            out[at:at] = out[at : at + chance.randrange(1, 40)]
        else:
            out += chance.randbytes(chance.randrange(1, 40))
    return bytes(out)


class Pool:
    """Values of each form that were seen somewhere, to be put where they do not belong."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.texts: list[str] = list(TEXTS)
        self.ids: list[str] = []
        self.digests: list[str] = []

    def learn(self, value: Any) -> None:
        """Take up every text of a decoded statement."""
        if isinstance(value, dict):
            for item in value.values():
                self.learn(item)
        elif isinstance(value, list):
            for item in value[:20]:
                self.learn(item)
        elif isinstance(value, str):
            place = {32: self.ids, 64: self.digests}.get(len(value), self.texts)
            if value not in place and len(place) < 500:
                place.append(value)

    def id(self) -> str:
        return self.chance.choice(self.ids) if self.ids and self.chance.random() < 0.9 else self.chance.randbytes(16).hex()

    def digest(self) -> str:
        return (
            self.chance.choice(self.digests) if self.digests and self.chance.random() < 0.9 else self.chance.randbytes(32).hex()
        )

    def number(self) -> int:
        return self.chance.choice(NUMBERS) if self.chance.random() < 0.7 else self.chance.randrange(2**53)

    def like(self, value: Any) -> Any:
        """Another value, mostly of the same form."""
        chance = self.chance
        if chance.random() < 0.15:
            strange = [None, True, 1.5, [], {}, "", -1, [[[[[[[[[]]]]]]]]], {"a": {"b": {}}}, "x" * 70_000, *BAD_NUMBERS]
            return chance.choice(strange)
        if isinstance(value, bool):
            return not value
        if isinstance(value, int):
            return chance.choice([value + 1, max(value - 1, 0), self.number(), self.number()])
        if isinstance(value, str) and len(value) == 32:
            return self.id()
        if isinstance(value, str) and len(value) == 64:
            return self.digest()
        if isinstance(value, str):
            return chance.choice(self.texts)
        if isinstance(value, bytes):
            return flip(chance, value)
        if isinstance(value, list | tuple):
            items = list(value)
            if items and chance.random() < 0.5:
                items[chance.randrange(len(items))] = self.like(chance.choice(items))
            elif chance.random() < 0.5:
                items = items * chance.choice([0, 2, 3, 200])
            else:
                items.append(self.like(items[0] if items else 0))
            return items
        if isinstance(value, dict):
            return self.mutated(value)
        return value

    def mutated(self, fields: dict[str, Any]) -> dict[str, Any]:
        """One to three changes."""
        out = dict(fields)
        for _ in range(self.chance.choice([1, 1, 2, 3])):
            if not out:
                break
            name = self.chance.choice(list(out))
            kind = self.chance.random()
            if kind < 0.05:
                del out[name]
            elif kind < 0.1:
                out["extra"] = out[name]
            else:
                out[name] = self.like(out[name])
        return out


def seal(identity: Identity, kind: str, payload: bytes, *, number: int = 1) -> bytes:
    """An envelope around any bytes, truly signed."""
    payload_type = f"application/vnd.labxchange.{kind}.v{number}+json"
    signature = identity.sign(pre_authentication(payload_type, payload))
    outer = {"payload": b64encode(payload), "payloadType": payload_type, "signatures": [{"sig": b64encode(signature)}]}
    return json.dumps(outer, separators=(",", ":")).encode()


def dumped(chance: random.Random, fields: Any) -> bytes:
    """JSON, sometimes written as nobody should."""
    text = json.dumps(fields, ensure_ascii=chance.random() < 0.5, separators=(",", ":"))
    kind = chance.random()
    if kind < 0.03:
        text = text[:-1] + ',"issued":1}'
    elif kind < 0.05:
        text = "[" * chance.choice([9, 1000, 30_000]) + text
    elif kind < 0.07:
        text = text + " "
    elif kind < 0.08:
        text = text.replace("}", "," + '"a":1,' * 2000 + '"z":1}')
    return text.encode(errors="surrogatepass")


class Statements:
    """Makes statements of every kind, right and wrong, signed by the peer.

    Args:
        templates: (kind, body) of real statements; bodies issued by others are signed anew.
        foreign: envelopes of others: the node's own, and a third person's.
    """

    def __init__(self, chance: random.Random, identity: Identity, pool: Pool) -> None:
        self.chance = chance
        self.identity = identity
        self.pool = pool
        self.templates: list[tuple[str, dict[str, Any]]] = []
        self.foreign: list[bytes] = []
        self.now: Callable[[], int] = lambda: 0

    def learn(self, signed: Signed[Any]) -> None:
        fields = msgspec.to_builtins(signed.body)
        self.templates.append((signed.body.kind, fields))
        self.pool.learn(fields)
        self.pool.learn([signed.id])
        if signed.body.issuer != self.identity.public.hex():
            self.foreign.append(signed.envelope)

    def add(self, body: Statement) -> None:
        self.templates.append((body.kind, msgspec.to_builtins(body)))
        self.pool.learn(msgspec.to_builtins(body))

    def one(self, kind: str = "") -> bytes:
        """The next statement; of ``kind`` where that is given."""
        chance = self.chance
        if not kind and self.foreign and chance.random() < 0.05:
            return chance.choice(self.foreign)
        found = [item for item in self.templates if not kind or item[0] == kind]
        name, fields = chance.choice(found)
        fields = fields | {"issuer": self.identity.public.hex(), "issued": self.now() + chance.randrange(-1000, 1000)}
        number = 1
        way = chance.random()
        if way < 0.2:
            pass
        elif way < 0.75:
            fields = self.pool.mutated(fields)
        elif way < 0.8:
            name, number = chance.choice([(name, 2), (name, 0), ("agreement", 1), ("", 1), (chance.choice(found)[0], 1)])
        payload = dumped(chance, fields)
        if 0.8 <= way < 0.85:
            payload = flip(chance, payload)
        envelope = seal(self.identity, name, payload, number=number)
        if way >= 0.9:
            envelope = flip(chance, envelope)
        return envelope


def twisted(chance: random.Random, pool: Pool, message: bytes) -> bytes:
    """A message with a changed field, a changed form, or damaged."""
    way = chance.random()
    if way < 0.4:
        return flip(chance, message)
    try:
        items = msgspec.msgpack.decode(message)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return flip(chance, message)
    if not isinstance(items, list) or not items:
        return flip(chance, message)
    at = chance.randrange(len(items))
    if way < 0.9:
        items[at] = pool.like(items[at])
    elif way < 0.95:
        del items[at]
    else:
        items.insert(at, pool.like(items[at]))
    try:
        return msgspec.msgpack.encode(items)
    except (OverflowError, ValueError):
        return flip(chance, message)


def note_of(identity: Identity, *, size: int = 1, epoch: int = 1, root: bytes = bytes(32)) -> str:
    """A checkpoint of any trail, truly signed by the peer."""
    origin = f"labxchange/{fingerprint(identity.public)}/{epoch}"
    return sign_note(Checkpoint(origin=origin, size=size, root=root), sign=identity.sign_trail, public=identity.trail_public)


async def must_not_fail(work: Awaitable[T], what: object) -> T:
    """The result, or PeerError, which closes the channel; anything else that escapes fails the test with what caused it."""
    try:
        return await work
    except PeerError:
        raise
    except LabxchangeError as error:
        raise AssertionError(f"{type(error).__name__} {error.code} escaped: {what!r:.1500}") from error
    except Exception as error:
        raise AssertionError(f"{type(error).__name__} {error} escaped: {what!r:.1500}") from error


def check_refusal(envelope: bytes, *, by: str, to: str) -> str:
    """A refusal, or a cut, signed by the node and meant for the peer; returns its code."""
    from labxchange.identity.statement import peek_kind
    from labxchange.sharing.exchange import Cut, Refusal

    if peek_kind(envelope) == "cut":
        cut = parse(envelope, Cut).body
        assert cut.issuer == by
        return cut.code
    body = parse(envelope, Refusal).body
    assert (body.issuer, body.to) == (by, to)
    assert body.code
    assert body.code != "database-damaged", "whatever a peer says, it is not damage here"
    assert body.sentence
    return body.code
