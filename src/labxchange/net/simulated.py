"""A network and a clock that exist only in this process: two nodes in one test, hours in milliseconds, every fault on demand.

``VirtualLoop`` is an asyncio loop whose clock jumps to the next timer instead of waiting; work for threads runs inline. When
nothing is left that could ever happen it raises instead of hanging. ``SimulatedNetwork`` carries datagrams between hosts with
delay, jitter, loss, duplicates, damage, cuts and address changes, all drawn from one seed: print it, and the run comes again
(keys and connection ids stay random, as in life; no decision of the network depends on them). Code under test sees only
``network.Network`` and its loop's ``time()``.

    network = SimulatedNetwork(seed=7, delay_s=0.05, loss=0.01)
    run_virtual(scenario(network.host("10.0.0.1"), network.host("10.0.0.2")))
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

from labxchange.errors import UnavailableError
from labxchange.net.network import Datagrams, Listening, OnBatch, UdpAddress

T = TypeVar("T")
Tap = Callable[[bytes, UdpAddress, UdpAddress], Sequence[bytes]]
"""datagram, source, destination -> what goes on in its place: an attacker on the path."""

_FIRST_EPHEMERAL = 49_152
_TURN_S = 1e-9
"""What a turn of the loop takes. On a clock that stands still while nothing waits, a timer that is due but for a rounding error
of its last digit would fire for ever: asyncio runs it a nanosecond early, and finds it set again to the same time."""


class _Selector(selectors.BaseSelector):
    """Never ready; waiting moves the clock."""

    def __init__(self, advance: Callable[[float], None]) -> None:
        self._advance = advance
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = self._keys[fileobj] = selectors.SelectorKey(fileobj, -1, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("the simulation waits for something that can never happen")
        self._advance(max(timeout, _TURN_S))
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop on a virtual clock, which starts at 1,000 s."""

    def __init__(self) -> None:
        self._virtual_now = 1000.0
        super().__init__(_Selector(self._pass_time))

    def time(self) -> float:
        """Virtual seconds."""
        return self._virtual_now

    def run_in_executor(self, executor: Executor | None, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Run it now, in this thread."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _pass_time(self, seconds: float) -> None:
        self._virtual_now += seconds


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run`` on a ``VirtualLoop``."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


class SimulatedPort:
    """See ``network.UdpPort``."""

    def __init__(self, host: SimulatedHost, port: int, on_batch: OnBatch) -> None:
        self._host = host
        self._port = port
        self._on_batch = on_batch

    @property
    def address(self) -> UdpAddress:
        """Where it is bound."""
        return self._host.address, self._port

    def send(self, datagrams: Datagrams) -> None:
        """Put each on the network."""
        for data, destination in datagrams:
            self._host.network.send(data, self.address, destination)

    def close(self) -> None:
        """Close it."""
        self._host.ports.pop(self._port, None)

    def deliver(self, data: bytes, source: UdpAddress) -> None:
        """A datagram arrived."""
        self._on_batch([(data, source)])


class SimulatedHost:
    """One machine; see ``network.Network``."""

    def __init__(self, network: SimulatedNetwork, address: str, name: str) -> None:
        self.network = network
        self.address = address
        self.name = name
        self.asleep = False
        self.ports: dict[int, SimulatedPort] = {}

    async def resolve(self, host: str, port: int) -> list[UdpAddress]:
        """Addresses of hosts by name or address; any other numeric address is one where nobody lives."""
        for other in self.network.hosts:
            if host in (other.name, other.address):
                return [(other.address, port)]
        if host.replace(".", "").isdigit() or ":" in host:
            return [(host, port)]
        raise UnavailableError("unknown-host", f"No machine is known under the name {host!r}.")

    def open_udp(self, host: str, port: int, on_batch: OnBatch) -> SimulatedPort:
        """Bind; every host has one address, so ``host`` is not looked at."""
        if port == 0:
            port = next(number for number in range(_FIRST_EPHEMERAL, 65_536) if number not in self.ports)
        if port in self.ports:
            raise UnavailableError("port-unavailable", f"UDP port {port} is in use.")
        opened = self.ports[port] = SimulatedPort(self, port, on_batch)
        return opened

    def open_group(self, host: str, port: int, on_batch: OnBatch, *, workers: int) -> Listening:
        """Bind; workers are processes and have no place in a simulation, so no lane is offered."""
        return Listening(self.open_udp(host, port, on_batch), {})


class SimulatedNetwork:
    """What lies between hosts. Probabilities are per datagram, times in seconds; all may be changed while it runs."""

    def __init__(
        self,
        *,
        seed: int,
        delay_s: float = 0.01,
        jitter_s: float = 0.0,
        loss: float = 0.0,
        duplicate: float = 0.0,
        corrupt: float = 0.0,
    ) -> None:
        self.seed = seed
        self.delay_s = delay_s
        self.jitter_s = jitter_s
        self.loss = loss
        self.duplicate = duplicate
        self.corrupt = corrupt
        self.tap: Tap | None = None
        self.hosts: list[SimulatedHost] = []
        self.carried_datagrams = 0
        self.carried_bytes = 0
        self._random = random.Random(seed)  # noqa: S311
        self._cut: set[frozenset[str]] = set()

    def host(self, address: str, *, name: str = "") -> SimulatedHost:
        """A new machine at a numeric address, with a name that ``resolve`` knows."""
        host = SimulatedHost(self, address, name or address)
        self.hosts.append(host)
        return host

    def partition(self, a: SimulatedHost, b: SimulatedHost) -> None:
        """Nothing passes between the two."""
        self._cut.add(frozenset((a.name, b.name)))

    def heal(self, a: SimulatedHost, b: SimulatedHost) -> None:
        """It passes again."""
        self._cut.discard(frozenset((a.name, b.name)))

    def move(self, host: SimulatedHost, address: str) -> None:
        """The host has another address from now on, as after a change of network."""
        host.address = address

    def send(self, data: bytes, source: UdpAddress, destination: UdpAddress) -> None:
        """Carry a datagram, with what the settings do to it; an attacker sends with any source."""
        for datagram in (data,) if self.tap is None else self.tap(data, source, destination):
            self._carry(datagram, source, destination)

    def inject(self, data: bytes, source: UdpAddress, destination: UdpAddress) -> None:
        """Carry a datagram past ``tap``."""
        self._carry(data, source, destination)

    def _carry(self, data: bytes, source: UdpAddress, destination: UdpAddress) -> None:
        self.carried_datagrams += 1
        self.carried_bytes += len(data)
        copies = 1 + (self._random.random() < self.duplicate)
        for _ in range(copies):
            if self._random.random() < self.loss:
                continue
            carried = data
            if data and self._random.random() < self.corrupt:
                damaged = bytearray(data)
                damaged[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
                carried = bytes(damaged)
            delay_s = self.delay_s + self.jitter_s * self._random.random()
            asyncio.get_running_loop().call_later(delay_s, self._arrive, carried, source, destination)

    def _arrive(self, data: bytes, source: UdpAddress, destination: UdpAddress) -> None:
        host = next((host for host in self.hosts if host.address == destination[0]), None)
        if host is None or host.asleep:
            return
        sender = next((other for other in self.hosts if other.address == source[0]), None)
        if sender is not None and (sender.asleep or frozenset((sender.name, host.name)) in self._cut):
            return
        port = host.ports.get(destination[1])
        if port is not None:
            port.deliver(data, source)
