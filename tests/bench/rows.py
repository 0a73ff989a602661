"""What is measured, as data: paths, payloads, bars, and the arithmetic that joins them.

Rules: a bar is a number that stands here once; a row says all that a run needs to know; nothing here measures anything.
A transfer of B bytes over a path takes at most B / (0.98 c) + 12 round trips, where c = link x payload / MTU x (1 - loss)
and payload is what a datagram has left for the file after IP, UDP, the lane's header and its authentication tag.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from labxchange.net.lane_socket import BUFFER_BYTES

MIB = 1 << 20
GIB = 1 << 30

OVERHEAD_BYTES = 20 + 8 + 20 + 16
"""IPv4, UDP, the header of a lane's datagram, the tag of AES-256-GCM."""

FLOOR = "primitives"
"""The name of what no transfer can do without, measured beside us where nothing but the machine sets a limit."""

OF_CEILING = 0.98
ROUND_TRIPS = 12
SOCKET_BYTES = 212_992
"""``net.core.rmem_max`` of a Linux machine that nobody tuned: what an unprivileged process has up to 1 Gbit/s."""
TUNED_BYTES = BUFFER_BYTES
"""The same where `labxchange doctor` has nothing to say of it: for everybody, on paths without a limit."""

_SETTLE_S = 10.0

Kind = Literal["file", "tree", "ten", "flow"]


class Path(msgspec.Struct, frozen=True, kw_only=True):
    """An emulated path; rate 0: no limit but the machine's. ``joins``: the receiving kernel really joins single datagrams."""

    rate_mbit: float = 0.0
    rtt_ms: float = 0.0
    loss: float = 0.0
    queue_ms: float = 0.0
    mtu: int = 1500
    joins: bool = False

    @property
    def ceiling_mbit(self) -> float:
        """What of the link can be file bytes."""
        return self.rate_mbit * (self.mtu - OVERHEAD_BYTES) / self.mtu * (1 - self.loss)


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """What a row must reach; 0 where it does not apply. ``bound``: the time bound of the module's docstring."""

    bound: bool = False
    of_link: float = 0.0
    goodput_mbit: float = 0.0
    seconds: float = 0.0
    cpu_s_per_gib: float = 0.0
    process_mib: float = 0.0
    datagrams_per_call: float = 0.0
    spread: float = 0.0
    share: float = 0.0


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table.

    ``known``: the sender has its digests before the clock starts; otherwise it hashes while it sends. ``beside``: the congestion
    control of the kernel's TCP flow that shares the link. ``socket_bytes``: the most that our sockets may ask for on a limited
    path.
    """

    name: str
    title: str
    kind: Kind
    path: Path
    bar: Bar
    files: int = 1
    smallest_bytes: int = 2 * GIB
    largest_bytes: int = 2 * GIB
    socket_bytes: int = 0
    known: bool = False
    peers: bool = False
    beside: str = ""
    duration_s: float = 0.0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One bar against what was measured; ``got`` is none where the node does not tell it."""

    bar: str
    limit: float
    got: float | None
    holds: bool


def bound_s(path: Path, count_bytes: int) -> float:
    """Seconds that a transfer may take; infinite on a path without a limit."""
    if not path.rate_mbit:
        return float("inf")
    return count_bytes * 8 / (OF_CEILING * path.ceiling_mbit * 1e6) + ROUND_TRIPS * path.rtt_ms / 1000


def drops_allowed(path: Path, count_bytes: int) -> float:
    """Packets that a sender may lose to its own excess: 1.5 times what the path holds, and 1 % of what it sends."""
    held = path.rate_mbit * 1e3 * path.rtt_ms / 8 / path.mtu
    return 1.5 * held + 0.01 * count_bytes / (path.mtu - OVERHEAD_BYTES)


def scaled(row: Row, scale: float) -> Row:
    """The row with less to move: smaller files where it is one file, fewer files where there are many, a shorter time beside
    another flow, but long enough for two of them to settle."""
    if row.kind == "flow":
        duration_s = max(row.duration_s * scale, _SETTLE_S)
        size = int(1.2 * row.path.rate_mbit * 1e6 / 8 * duration_s)
        return msgspec.structs.replace(row, smallest_bytes=size, largest_bytes=size, duration_s=duration_s)
    if row.files == 1 or row.kind == "ten":
        size = max(int(row.largest_bytes * scale), MIB)
        return msgspec.structs.replace(row, smallest_bytes=size, largest_bytes=size)
    return msgspec.structs.replace(row, files=max(int(row.files * scale), 10))


_LAN = Path(rate_mbit=1000, rtt_ms=1, queue_ms=5)
_MEMORY = 300.0


def _wide(name: str, title: str, path: Path, *, size: int = 2 * GIB) -> Row:
    bar = Bar(bound=True, process_mib=_MEMORY)
    return Row(
        name=name,
        title=title,
        kind="file",
        path=path,
        bar=bar,
        smallest_bytes=size,
        largest_bytes=size,
        socket_bytes=SOCKET_BYTES,
        peers=True,
    )


def _veth(mtu: int, *, known: bool, goodput_mbit: float, cpu_s_per_gib: float = 0.0) -> Row:
    return Row(
        name=f"veth{mtu}{'-known' if known else ''}",
        title=f"no limit, MTU {mtu}{', digests known' if known else ''}",
        kind="file",
        path=Path(mtu=mtu),
        bar=Bar(goodput_mbit=goodput_mbit, cpu_s_per_gib=cpu_s_per_gib),
        known=known,
        peers=not known,
    )


def _beside(control: str, bdp: float) -> Row:
    return Row(
        name=f"beside-{control}-{bdp:g}",
        title=f"100 Mbit/s, 50 ms, queue {bdp:g} BDP, beside one {control} flow",
        kind="flow",
        path=Path(rate_mbit=100, rtt_ms=50, queue_ms=50 * bdp),
        bar=Bar(share=0.25 if bdp < 1 else 1 / 3),
        smallest_bytes=900 * MIB,
        largest_bytes=900 * MIB,
        socket_bytes=SOCKET_BYTES,
        beside=control,
        duration_s=60.0,
    )


ROWS = (
    _wide("lan", "1 Gbit/s, 1 ms", _LAN),
    _wide("wan", "1 Gbit/s, 100 ms, 0.01 %", Path(rate_mbit=1000, rtt_ms=100, loss=0.0001, queue_ms=50)),
    _wide("loss1", "1 Gbit/s, 100 ms, 1 %", Path(rate_mbit=1000, rtt_ms=100, loss=0.01, queue_ms=50)),
    _wide("loss5", "1 Gbit/s, 200 ms, 5 %", Path(rate_mbit=1000, rtt_ms=200, loss=0.05, queue_ms=50)),
    _wide("far", "200 Mbit/s, 250 ms, 2 %", Path(rate_mbit=200, rtt_ms=250, loss=0.02, queue_ms=50)),
    _wide("slow", "20 Mbit/s, 600 ms, 1 %", Path(rate_mbit=20, rtt_ms=600, loss=0.01, queue_ms=100), size=256 * MIB),
    Row(
        name="tree",
        title="20,000 files of 4-64 KiB, 1 Gbit/s, 100 ms",
        kind="tree",
        path=Path(rate_mbit=1000, rtt_ms=100, queue_ms=50),
        bar=Bar(of_link=0.80, process_mib=_MEMORY),
        files=20_000,
        smallest_bytes=4096,
        largest_bytes=65_536,
        socket_bytes=SOCKET_BYTES,
        peers=True,
    ),
    _veth(1500, known=False, goodput_mbit=4000, cpu_s_per_gib=2.2),
    _veth(1500, known=True, goodput_mbit=5000, cpu_s_per_gib=2.2),
    _veth(9000, known=False, goodput_mbit=6000),
    _veth(9000, known=True, goodput_mbit=8000),
    Row(
        name="joined",
        title="no limit, MTU 1500, the receiving kernel joins single datagrams",
        kind="file",
        path=Path(joins=True),
        bar=Bar(datagrams_per_call=8),
        known=True,
    ),
    Row(
        name="million",
        title="1,000,000 files of 100 bytes, listed, sent, verified",
        kind="tree",
        path=Path(),
        bar=Bar(seconds=300, process_mib=1024),
        files=1_000_000,
        smallest_bytes=100,
        largest_bytes=100,
    ),
    Row(
        name="ten",
        title="ten transfers at once through one node, 1 Gbit/s, 1 ms",
        kind="ten",
        path=_LAN,
        bar=Bar(spread=0.20),
        known=True,  # or each begins when its turn to be hashed comes, and hardly two are at the same point
        files=10,
        smallest_bytes=256 * MIB,
        largest_bytes=256 * MIB,
        socket_bytes=SOCKET_BYTES,
    ),
    *(_beside(control, bdp) for control in ("cubic", "bbr") for bdp in (0.5, 1.0, 2.0)),
    Row(name="loopback", title="loopback, no limit", kind="file", path=Path(), bar=Bar(), peers=True),
)
"""All rows, in the order of the table."""

BY_NAME = {row.name: row for row in ROWS}
