"""What else moves files between two machines: which of it is installed, and how each is started, fed and timed.

Fairness: servers run and answer before the clock starts; the clock starts with the client's command and stops when the client has
ended and the destination holds everything; then every byte is compared. A client that is not done after the window is stopped
and its time is extrapolated from the second half. Peers keep the machine's socket buffers and run with all privileges (ours do
not). TCP peers run once for each congestion control, set on both hosts. Settings: as they come, but aria2 with 16 connections,
and uftp, which has no congestion control, with 95 % of the link as its rate, given by hand.

Programs are looked for on PATH, modules in the python3 found there. Commands may use {a} {b} (addresses), {src} {dst} {etc}
(folders), {files}, {bytes}, {rate} (kbit/s), {mtu}, {known} (whether the sender has its digests), {python} (this one).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.bench import payload
from tests.bench.network import Network
from tests.bench.processes import Process, Side, machine_busy_s, sample
from tests.bench.rows import FLOOR, Row

_READY_S = 20.0
_UDP_READY_S = 0.7
_SETTLE_S = 5.0
_LOOK_S = 0.1
_LOOK_SHARE = 20.0
"""Looking at many files takes a while: not more than this part of the time."""

_SSH = "-F none -p 2222 -i {etc}/id -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
_HERE = Path(__file__).parent


class Server(msgspec.Struct, frozen=True):
    """A command on a host: ready when it listens on TCP ``port``, when the file ``ready`` is in {etc}, or after a moment. A
    ``late`` one starts with the client."""

    host: str
    command: str
    port: int = 0
    ready: str = ""
    late: bool = False


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """One tool. ``client`` is the host of the client's command; ``needs``: programs, or modules as ``module:name``;
    ``unlimited``: fit for paths without a limit only."""

    name: str
    needs: tuple[str, ...]
    servers: tuple[Server, ...]
    client: str
    file: str
    tree: str = ""
    tcp: bool = True
    unlimited: bool = False
    note: str = ""

    def joins(self, row: Row) -> bool:
        """True where it can be measured beside us."""
        if self.unlimited:
            return row.files == 1 and row.kind == "file" and not row.path.rate_mbit and not row.path.joins
        return row.peers and (row.files == 1 or bool(self.tree))


_SSHD = Server("b", "{etc}/sshd {etc}", port=2222)
_NGINX = Server("a", "nginx -c {etc}/nginx.conf", port=8443)
_SYNCTHING = "syncthing serve --home {etc}/st-HOST --no-browser --no-restart --logfile {etc}/st-HOST.log"
_MAILBOX = "twist wormhole-mailbox --port=tcp:4000 --channel-db=:memory: --usage-db=:memory:"
_PRIMITIVES = "{python} -m tests.bench.primitives {side} {{b}} {path} {{bytes}} {{mtu}} {{etc}} {{known}}"
_WORMHOLE = "wormhole --relay-url ws://{b}:4000/v1 --transit-helper tcp:{b}:4001"

PEERS = (
    Peer(
        name="scp",
        needs=("scp", "sshd"),
        servers=(_SSHD,),
        client="a",
        file="scp -q " + _SSH.replace("-p ", "-P ") + " {src}/file.bin bench@{b}:{dst}/",
        tree="scp -qr " + _SSH.replace("-p ", "-P ") + " {src}/tree bench@{b}:{dst}/",
    ),
    Peer(
        name="rsync",
        needs=("rsync", "ssh", "sshd"),
        servers=(_SSHD,),
        client="a",
        file="rsync -a -e 'ssh " + _SSH + "' {src}/file.bin bench@{b}:{dst}/",
        tree="rsync -a -e 'ssh " + _SSH + "' {src}/tree bench@{b}:{dst}/",
    ),
    Peer(
        name="curl-tls",
        needs=("curl", "nginx", "openssl"),
        servers=(_NGINX,),
        client="b",
        file="curl -sSk -o {dst}/file.bin https://{a}:8443/file.bin",
        tree="cd {dst} && curl -sSk --create-dirs --parallel --parallel-max 50 -K {etc}/curl.list",
        note="from nginx",
    ),
    Peer(
        name="aria2-16",
        needs=("aria2c", "nginx", "openssl"),
        servers=(_NGINX,),
        client="b",
        file="aria2c -q -x16 -s16 -k1M --file-allocation=none --check-certificate=false -d {dst} https://{a}:8443/file.bin",
        tree="aria2c -q -j16 --file-allocation=none --check-certificate=false -i {etc}/aria2.list",
        note="16 connections over TLS, from nginx",
    ),
    Peer(
        name="uftp",
        needs=("uftp", "uftpd"),
        servers=(Server("b", "uftpd -d -D {dst} -B 4000000 -L {etc}/uftpd.log"),),
        client="a",
        tcp=False,
        file="uftp -q -R {rate} -B 4000000 -Y aes256-gcm -h sha256 -M {b} {src}/file.bin",
        tree="uftp -q -R {rate} -B 4000000 -Y aes256-gcm -h sha256 -M {b} {src}/tree",
        note="rate given by hand; no congestion control",
    ),
    Peer(
        name="syncthing",
        needs=("syncthing", "curl"),
        servers=tuple(
            Server(
                host,
                _SYNCTHING.replace("HOST", host),
                22000,
            )
            for host in "ab"
        ),
        client="b",
        file="{python} -m tests.bench.peer_syncthing {src}/file.bin {etc}/st-source 1 {a} {b}",
        tree="{python} -m tests.bench.peer_syncthing {src}/tree {etc}/st-source {files} {a} {b}",
        note="hashes while it sends, as it comes",
    ),
    Peer(
        name="wormhole",
        needs=("wormhole", "twist"),
        servers=(
            Server("b", _MAILBOX, port=4000),
            Server("b", "twist transitrelay --port=tcp:4001", port=4001),
            Server("b", "cd {dst} && " + _WORMHOLE + " receive --accept-file --hide-progress 7-lab-test", late=True),
        ),
        client="a",
        file=_WORMHOLE + " send --hide-progress --code 7-lab-test {src}/file.bin",
        tree=_WORMHOLE + " send --hide-progress --code 7-lab-test {src}/tree",
        note="a folder goes as a zip",
    ),
    Peer(
        name="udt",
        needs=("c++", "header:udt.h"),
        servers=(Server("b", "{etc}/udt receive 9001 {dst}/file.bin"),),
        client="a",
        tcp=False,
        file="{etc}/udt send {b} 9001 {src}/file.bin",
        note="the UDT 4 library; no encryption",
    ),
    Peer(
        name="iroh",
        needs=("module:iroh",),
        servers=(Server("a", "python3 -m tests.bench.peer_iroh send {a} {src} {etc}", ready="iroh-ticket"),),
        client="b",
        tcp=False,
        file="python3 -m tests.bench.peer_iroh receive {a},{b} {dst} {etc}",
        tree="python3 -m tests.bench.peer_iroh receive {a},{b} {dst} {etc}",
        note="QUIC and BLAKE3, import and export included",
    ),
    Peer(
        name=FLOOR,
        needs=(),
        servers=(
            Server("b", _PRIMITIVES.format(python="{python}", side="receive", path="{dst}/file.bin"), ready="receiving"),
            Server("a", _PRIMITIVES.format(python="{python}", side="send", path="{src}/file.bin"), ready="sending"),
        ),
        client="a",
        tcp=False,
        unlimited=True,
        file="echo > {etc}/go; cat {etc}/done",
        note="the calls that a transfer of ours cannot do without, and nothing else",
    ),
)

BY_NAME = {peer.name: peer for peer in PEERS}


def missing(peer: Peer) -> list[str]:
    """What of a peer this machine does not have."""
    return [need for need in peer.needs if not _there(need)]


def _there(need: str) -> bool:
    kind, _, name = need.rpartition(":")
    if kind == "module":
        return not subprocess.run(["python3", "-c", f"import {name}"], cwd="/", capture_output=True, check=False).returncode
    if kind == "header":
        return any(Path("/usr/include", folder, name).exists() for folder in ("", Path(name).stem))
    return shutil.which(name) is not None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """``seconds`` from the client's start; ``intact`` only when it ended."""

    complete: bool
    intact: bool
    seconds: float
    samples: tuple[tuple[float, int], ...]
    busy_s: float
    error: str = ""

    def done_bytes(self, total: int) -> int:
        """Of the payload, as far as blocks say."""
        return total if self.complete else min(self.samples[-1][1], total)


class Course:
    """One run of one peer in its own folder ``place``: set up, run, compare."""

    def __init__(self, peer: Peer, row: Row, source: Path, *, place: Path, network: Network) -> None:
        self._peer, self._row, self._network = peer, row, network
        self._source, self._log = source, place / "peer.log"
        self._destination, self._settings = place / "dst", place / "etc"
        for folder, mode in ((self._destination, 0o777), (self._settings, 0o755)):
            folder.mkdir()
            folder.chmod(mode)
        self.wanted = payload.written_bytes(source)
        """Blocks that a whole copy takes."""
        rate = row.path.rate_mbit * 950 or 8_000_000
        self._words = {
            "a": network.address("a"),
            "b": network.address("b"),
            "src": str(source),
            "dst": str(self._destination),
            "etc": str(self._settings),
            "rate": str(int(rate)),
            "python": sys.executable,
            "files": str(row.files),
            "bytes": str(row.largest_bytes),
            "mtu": str(row.path.mtu),
            "known": "known" if row.known else "",
        }

    def _start(self, host: str, command: str, sides: dict[str, Side]) -> Process:
        text = command.format(**self._words)
        root = str(_HERE.parents[1])
        return sides[host].start(
            self._network.command(host, ["sh", "-c", text]), log=self._log, cwd=Path(root), env=os.environ | {"PYTHONPATH": root}
        )

    def run(self, sides: dict[str, Side], *, window_s: float) -> Outcome:
        """Servers up, client timed, destination compared."""
        from tests.bench import peer_settings

        peer_settings.write(self._peer.name, self._settings, self._source, self._words)
        for server in self._peer.servers:
            if not server.late:
                self._wait(server, self._start(server.host, server.command, sides))
        peer_settings.connected(self._peer.name, self._network)
        for side in sides.values():
            side.begin()
        began, busy_s = time.monotonic(), machine_busy_s()
        client = self._start(self._peer.client, self._command(), sides)
        running = [client, *(self._start(item.host, item.command, sides) for item in self._peer.servers if item.late)]
        samples = list(self._watch(running, sides, began=began, window_s=window_s))
        seconds, complete = time.monotonic() - began, all(process.ended() for process in running)
        busy_s = machine_busy_s() - busy_s
        sample(sides.values())
        error = self._log.read_text(errors="replace")[-300:] if client.code else ""
        intact = complete and not client.code and self._same()
        return Outcome(
            complete=complete and not error, intact=intact, seconds=seconds, samples=tuple(samples), busy_s=busy_s, error=error
        )

    def _command(self) -> str:
        return self._peer.file if self._row.files == 1 else self._peer.tree

    def _watch(
        self, running: list[Process], sides: dict[str, Side], *, began: float, window_s: float
    ) -> Iterator[tuple[float, int]]:
        """Until all have ended and everything is there: some senders end before the receiver has written the last block."""
        wanted, settled = self.wanted, 0.0
        while (now := time.monotonic()) - began < window_s:
            written = payload.written_bytes(self._destination)
            yield now - began, written
            if not (working := [process for process in running if not process.ended()]):
                settled = settled or now
                if running[0].code or written >= wanted or now - settled > _SETTLE_S:
                    return
                time.sleep(0.01)
                continue
            sample(sides.values())
            looked_s = time.monotonic() - now
            working[0].wait(max(_LOOK_S, _LOOK_SHARE * looked_s))

    def _wait(self, server: Server, process: Process) -> None:
        deadline = time.monotonic() + _READY_S
        if not server.port and not server.ready:
            time.sleep(_UDP_READY_S)
            return
        while not self._ready(server):
            if process.ended() or time.monotonic() > deadline:
                raise OSError(f"{self._peer.name}: no server. {self._log.read_text(errors='replace')[-300:]}")
            time.sleep(0.05)

    def _ready(self, server: Server) -> bool:
        if server.ready:
            return (self._settings / server.ready).exists()
        words = self._network.command(server.host, ["ss", "-Hltn", f"sport = :{server.port}"])
        return bool(subprocess.run(words, capture_output=True, check=False).stdout.strip())

    def _same(self) -> bool:
        name = "file.bin" if self._row.files == 1 else "tree"
        return payload.same(self._source / name, self._destination / name)
