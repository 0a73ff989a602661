"""Whole nodes on simulated machines: a network that fails, clocks that jump, power that goes off - on a virtual clock.

A ``Machine`` has a disk (a folder), a wall clock that can be wrong, one address, and at most one node that runs on it. ``crash``
takes the disk as it is at that moment and the power away: nothing of the old node runs on, sends or is written after it.
``World`` holds the network, the machines and what must hold after every story (``settle``, ``check``).
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from labxchange.audit.verifier import Result, Verdict, verify
from labxchange.errors import LabxchangeError
from labxchange.identity.fingerprint import fingerprint
from labxchange.identity.statement import parse
from labxchange.net.network import Datagrams, Listening, OnBatch, UdpAddress
from labxchange.net.simulated import SimulatedHost, SimulatedNetwork, SimulatedPort, run_virtual
from labxchange.node.node import Node
from labxchange.node.values import TransferInfo
from labxchange.sharing.exchange import Receipt
from labxchange.store import shares, statements, transfers
from tests.support.nodes import befriend, make_node, share, start, wait_for

T = TypeVar("T")
EPOCH_MS = 1_800_000_000_000
DAY_MS = 86_400_000


class _Plug:
    """A machine's connection to the network (``network.Network``) until the power goes."""

    def __init__(self, host: SimulatedHost) -> None:
        self._host = host
        self._ports: list[SimulatedPort] = []
        self.pulled = False

    async def resolve(self, host: str, port: int) -> list[UdpAddress]:
        return await self._host.resolve(host, port)

    def open_udp(self, host: str, port: int, on_batch: OnBatch) -> _PluggedPort:
        opened = self._host.open_udp(host, port, lambda batch: None if self.pulled else on_batch(batch))
        self._ports.append(opened)
        return _PluggedPort(self, opened)

    def open_group(self, host: str, port: int, on_batch: OnBatch, *, workers: int) -> Listening:
        return Listening(self.open_udp(host, port, on_batch), {})

    def pull(self) -> None:
        self.pulled = True
        for port in self._ports:
            port.close()


class _PluggedPort:
    def __init__(self, plug: _Plug, port: SimulatedPort) -> None:
        self._plug = plug
        self._port = port

    @property
    def address(self) -> UdpAddress:
        return self._port.address

    def send(self, datagrams: Datagrams) -> None:
        if not self._plug.pulled:
            self._port.send(datagrams)

    def close(self) -> None:
        if not self._plug.pulled:
            self._port.close()


class Machine:
    """One person's computer."""

    def __init__(self, folder: Path, name: str, host: SimulatedHost, chance: random.Random) -> None:
        self.folder = folder
        self.name = name
        self.host = host
        self.clock_ms = 0
        self._chance = chance
        self._plug = _Plug(host)
        self._node: Node | None = None
        self._dead: list[Node] = []
        self._crashes = 0

    @property
    def node(self) -> Node:
        assert self._node is not None, f"{self.name}'s machine is off"
        return self._node

    @property
    def on(self) -> bool:
        return self._node is not None

    @property
    def home(self) -> Path:
        return self.folder / self.name

    def wall(self) -> int:
        return EPOCH_MS + self.elapsed() + self.clock_ms

    def elapsed(self) -> int:
        return int(asyncio.get_running_loop().time() * 1000)

    async def boot(self, *, unlock: bool = True) -> Node:
        """Start the node on what the disk holds; without ``unlock`` it stays locked."""
        assert self._node is None
        self._plug = _Plug(self.host)
        node = make_node(
            self.folder,
            self.name,
            network=self._plug,
            host=self.host.address,
            wall=self.wall,
            elapsed=self.elapsed,
            random_bytes=self._chance.randbytes,
        )
        self._node = node
        if unlock:
            await start(node, credential=True)
        else:
            await node.open(unlock=False)
        return node

    async def stop(self) -> None:
        """A clean stop."""
        node, self._node = self.node, None
        await node.close()

    def crash(self) -> None:
        """The power goes: the disk keeps what is written, nothing else remains."""
        node, self._node = self.node, None
        self._plug.pull()
        self._crashes += 1
        grave = self.folder / f"{self.name} before crash {self._crashes}"
        self.home.rename(grave)
        shutil.copytree(grave, self.home, symlinks=True)
        self._dead.append(node)
        node.peers.closing = True
        for task in tasks_of(node):
            task.cancel()

    async def bury(self) -> None:
        """Close the databases of crashed nodes."""
        for node in self._dead:
            await asyncio.gather(*tasks_of(node), return_exceptions=True)
            await node.peers.endpoint.close()
        for _ in range(10):
            await asyncio.sleep(0)
        for node in self._dead:
            node.core.database.close()
        self._dead.clear()


def tasks_of(node: Node) -> list[asyncio.Task[Any]]:
    """What a node does by itself."""
    running = (item.task for item in node.receiving._running.values())
    peers = (*node.peers._tasks, *node.peers._keepers.values())
    return [*node._tasks, *peers, *running, *node.hashing.tasks()]


class World:
    """Machines on one network. ``seed`` decides everything that is left to chance."""

    def __init__(self, folder: Path, seed: object, **network: Any) -> None:
        self.folder = folder
        self.chance = random.Random(f"world {seed}")
        self.network = SimulatedNetwork(seed=self.chance.getrandbits(32), **network)
        self.machines: dict[str, Machine] = {}

    def machine(self, name: str) -> Machine:
        """A new machine; its node is not started."""
        host = self.network.host(f"10.0.0.{len(self.machines) + 1}", name=f"{name.lower()}.example")
        made = self.machines[name] = Machine(self.folder, name, host, self.chance)
        return made

    async def pair(self, *, verify: bool = True) -> tuple[Machine, Machine]:
        """Ada, who invites, and Bo; both run and know each other."""
        ada, bo = self.machine("Ada"), self.machine("Bo")
        await ada.boot()
        await bo.boot()
        await befriend(ada.node, bo.node, verify=verify)
        return ada, bo

    def cut_wire(self, one: Machine, other: Machine) -> None:
        self.network.partition(one.host, other.host)

    def mend_wire(self, one: Machine, other: Machine) -> None:
        self.network.heal(one.host, other.host)

    def calm(self) -> None:
        """From now on the network does its work."""
        network = self.network
        network.loss = network.duplicate = network.corrupt = network.jitter_s = 0.0
        machines = list(self.machines.values())
        for machine in machines:
            machine.host.asleep = False
            for other in machines:
                self.mend_wire(machine, other)

    def abandon(self) -> None:
        """A story failed: let nothing start anew while the loop ends."""
        for machine in self.machines.values():
            if machine.on:
                machine.node.peers.closing = True

    async def close(self) -> None:
        """End every node."""
        for machine in self.machines.values():
            if machine.on:
                await machine.stop()
            await machine.bury()


def simulate(
    story: Callable[[World], Coroutine[Any, Any, None]], folder: Path, *, seed: object = 1, days: int = 7, **network: Any
) -> None:
    """Run ``story`` in a world of its own, at most so many virtual days."""
    settings = {"delay_s": 0.02} | network

    async def main() -> None:
        world = World(folder, seed, **settings)
        try:
            async with asyncio.timeout(days * 86_400):
                await story(world)
                await world.close()
        finally:
            world.abandon()

    run_virtual(main())


def now() -> float:
    """Virtual seconds."""
    return asyncio.get_running_loop().time()


def write_files(folder: Path, files: dict[str, bytes]) -> dict[str, bytes]:
    """Make files, and folders for names that end in "/", an hour old; returns the files."""
    for name, data in files.items():
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return {name: data for name, data in files.items() if not name.endswith("/")}


def many_files(count: int, size: int, *, seed: int = 1) -> dict[str, bytes]:
    """Files of random bytes."""
    chance = random.Random(f"files {seed}")
    return {f"part-{number:03d}.bin": chance.randbytes(size) for number in range(count)}


async def midway(node: Node, transfer: str, *, least_bytes: int = 1) -> TransferInfo:
    """The transfer, running, when some of it is verified and some is not."""

    async def there() -> TransferInfo | None:
        info = await node.transfer_show(transfer=transfer)
        assert info.state in ("waiting", "running"), f"it is {info.state} already"
        return info if info.state == "running" and least_bytes <= info.done_bytes < info.bytes else None

    found = await wait_for(there, what="the middle of the transfer")
    assert found is not None
    return found


async def underway(world: World, folder: Path, *, files: int) -> tuple[Machine, Machine, dict[str, bytes], TransferInfo]:
    """Ada and Bo, what Ada shares of ``folder``, and its transfer to Bo in the middle; large enough to be met there."""
    ada, bo = await world.pair()
    made = write_files(folder, many_files(files, 300_000))
    await share(ada.node, bo.node, folder, title="Trial")
    started = await bo.node.receive(share="Trial")
    return ada, bo, made, await midway(bo.node, started.transfer)


def receipts_of(node: Node) -> dict[str, str]:
    """Every receipt that the node keeps: statement id -> level."""
    with node.core.database.begin() as tx:
        found = [parse(envelope, Receipt) for envelope in statements.of_kind(tx, "receipt")]
    return {item.id: item.body.level for item in found}


def acks_of(node: Node) -> set[bytes]:
    """Every countersignature that the node keeps."""
    with node.core.database.begin() as tx:
        return set(statements.of_kind(tx, "receipt-ack"))


async def told_receipts(node: Node) -> set[str]:
    """Ids of the receipts that the node's trail speaks of."""
    entries = await node.audit_list(event="transfer.receipt", limit=10_000)
    return {entry.fields["object_id"] for entry in entries if entry.object_type == "receipt"}


def check_slots(node: Node) -> None:
    """No grant of this node has given more downloads than it holds."""
    with node.core.database.begin() as tx:
        for grant in shares.grants_owned(tx, node.core.me):
            taken = sum(row.slot in ("reserved", "used") for row in transfers.outgoing_of(tx, grant.grant))
            status = node.grants.recipients(grant)
            assert taken <= sum(item.downloads for item in status), "more downloads than the grant holds"


def check_released(destination: Path, source: dict[str, bytes]) -> int:
    """Whatever has its name in the destination is whole and right; returns how many files are there."""
    count = 0
    for path in destination.rglob("*") if destination.exists() else ():
        inside = path.relative_to(destination)
        if inside.parts[0].startswith(".labxchange-") or path.is_dir():
            continue
        assert path.read_bytes() == source[str(inside)], f"{inside} was released and is not what was shared"
        count += 1
    return count


async def check_exchange(one: Machine, other: Machine) -> None:
    """What both keep and tell of receipts is the same, and both trails are valid and agree."""
    assert receipts_of(one.node) == receipts_of(other.node), "a receipt on one side only"
    assert acks_of(one.node) == acks_of(other.node), "a countersignature on one side only"
    known = set(receipts_of(one.node))
    for machine in (one, other):
        # Also where there is no receipt: after a restart each shows the other its trail, over a slow network in some seconds.
        await wait_for(partial(cosigned_after_receipts, machine.node), what="a cosignature", timeout_s=60)
        assert await told_receipts(machine.node) == known, f"the trail of {machine.name} tells of other receipts"
        check_slots(machine.node)
    await check_trails(one, other)


async def check_trails(*machines: Machine, verdict: Verdict = Verdict.VALID, others: Sequence[Machine] = ()) -> list[Result]:
    """Export every trail and verify it offline, trusting all parties, ``others`` too."""
    trust = [fingerprint(machine.node.core.public) for machine in (*machines, *others)]
    found = []
    for number, machine in enumerate(machines):
        path = machine.folder / f"{machine.name}-{number}-{int(now() * 1000)}.labxtrail"
        await machine.node.audit_export(path=str(path))
        found.append(verify(path, trust=trust))
        assert found[-1].verdict is verdict, f"the trail of {machine.name} is {found[-1].verdict}: {found[-1].reasons}"
        path.unlink()
    return found


async def settle(one: Machine, other: Machine, *, timeout_s: float = 1800.0) -> None:
    """Until nothing is under way or waits for delivery on either side, and both trails are cosigned to their receipts."""

    def quiet() -> bool:
        for machine in (one, other):
            node = machine.node
            with node.core.database.begin() as tx:
                if statements.peers_with_post(tx):
                    return False
                if any(row.state in ("running", "waiting", "verified") for row in transfers.all_transfers(tx)):
                    return False
        return True

    await wait_for(quiet, what="both sides to come to rest", timeout_s=timeout_s)
    with_receipts = bool(receipts_of(one.node))
    if with_receipts:
        await wait_for(lambda: cosigned_after_receipts(one.node), what="the cosignature", timeout_s=timeout_s)
        await wait_for(lambda: cosigned_after_receipts(other.node), what="the cosignature", timeout_s=timeout_s)


def cosigned_after_receipts(node: Node) -> bool:
    """True when somebody cosigned the trail after its newest entry about a receipt."""
    trail = node.core.trail
    assert trail is not None
    with node.core.database.begin() as tx:
        newest = next(trail.newest(tx, event="transfer.receipt"), -1)
        return any(size > newest for size, *_ in trail.cosigned(tx))


async def quietly(work: Coroutine[Any, Any, T], *codes: str) -> T | None:
    """The result; None where a rule or the moment did not allow it (with one of ``codes``, when they are given)."""
    try:
        return await work
    except LabxchangeError as error:
        if codes and error.code not in codes:
            raise
        return None
