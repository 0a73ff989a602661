"""What a person chooses for a transfer while it waits or runs, and what a person sees of its way.

Rate, priority and lanes are kept until the transfer is over; each change is an act, with an entry that holds the old and the new
value. Both sides may choose a rate, and the lower one holds; how many lanes there are is the recipient's to say, who opens them.
While transfers of different priority go to one remote address, what its path carries is divided among them ten times a second
(``transfer.lanes.budget``). How a rate is held is left to the lanes, and to ``transfer.pace`` over QUIC.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.errors import InputError
from labxchange.node.bulk import QUIC_CIPHER, Bulk
from labxchange.node.core import Core
from labxchange.node.receipts import Receipts
from labxchange.node.values import LimitsInfo, PathInfo
from labxchange.settings import RATE_MIN_BYTES_S
from labxchange.sharing.exchange import Path, Receipt
from labxchange.store import statements, transfers
from labxchange.store.transfers import OVER, Limits, TransferRow
from labxchange.transfer.lanes.budget import Capacity, Flow, divide
from labxchange.transfer.lanes.leg import LaneView, view
from labxchange.transfer.lanes.sending import Outgoing
from labxchange.transfer.pace import Pace
from labxchange.wire.control.messages import LANES_MAX, Priority

DIVIDE_S = 0.1
_LOOK_S = 0.5
_AT_CAP = 0.8
"""Of a rate that was chosen: whoever moves this much is held by it and by nothing else."""
_WAVER = 0.02
_WANTS_MORE = ("network", "cpu", "cap")


def chosen(transfer: str, *, rate: int, priority: str, lanes: int) -> Limits:
    """What a person asks for.

    Raises:
        InputError: ``rate-too-low``, ``priority-unknown``, ``lanes-count``.
    """
    if rate < 0 or 0 < rate < RATE_MIN_BYTES_S:
        raise InputError(
            "rate-too-low",
            f"A transfer cannot be held below {RATE_MIN_BYTES_S:,} bytes a second.",
            hint="Pause it instead; 0 is no limit.",
        )
    if priority not in ("low", "normal", "high"):
        raise InputError("priority-unknown", "A priority is low, normal or high.")
    if not 0 <= lanes <= LANES_MAX:
        raise InputError("lanes-count", f"A transfer goes over 1 to {LANES_MAX} lanes; 0 leaves it to the node.")
    return Limits(transfer=transfer, rate_bytes_s=rate, priority=priority, lanes=lanes)  # type: ignore[arg-type]


class Controls:
    """Of all transfers of a node."""

    def __init__(self, core: Core, bulk: Bulk, receipts: Receipts) -> None:
        self._core = core
        self._bulk = bulk
        self._receipts = receipts
        self._capacities: dict[str, Capacity] = {}

    # --- choosing -----------------------------------------------------------------------------------------------------
    async def change(
        self, row: TransferRow, *, rate: int | None, priority: str | None, lanes: int | None, reason: str = ""
    ) -> Limits:
        """Choose anew what is given; it acts at once.

        Raises:
            InputError: as ``chosen``; ``transfer-over``, ``lanes-of-recipient``.
        """
        old = self._bulk.limits(row.transfer)
        new = chosen(
            row.transfer,
            rate=old.rate_bytes_s if rate is None else rate,
            priority=old.priority if priority is None else priority,
            lanes=old.lanes if lanes is None else lanes,
        )
        if row.state in OVER:
            raise InputError("transfer-over", f"This transfer is {row.state}.")
        if lanes is not None and row.direction == "out":
            raise InputError(
                "lanes-of-recipient",
                "Only the recipient of a transfer, who opens the lanes, says how many there are.",
                hint="Its rate and its priority can be chosen on both sides.",
            )
        if new != old:
            with self._core.act(self._entry(row, old, new, reason=reason)) as tx:
                transfers.put_limits(tx, new)
            await self._bulk.apply(new)
            self._core.notices.publish("transfer", row.transfer)
        return new

    def _entry(self, row: TransferRow, old: Limits, new: Limits, *, reason: str) -> Entry:
        who = self._core.who()
        return self._receipts.entry(Event.CONFIG_CHANGED, row, who=who, old=str(old), new=str(new), reason_text=reason)

    # --- dividing -----------------------------------------------------------------------------------------------------
    async def watch(self) -> None:
        """Divide the paths that several transfers share, as long as the node runs."""
        while True:
            busy = self.divide(asyncio.get_running_loop().time())
            await asyncio.sleep(DIVIDE_S if busy else _LOOK_S)

    def divide(self, now: float) -> bool:
        """Give each outgoing transfer its part of the path to its remote address; False when there is nothing to divide."""
        paths: dict[str, list[Outgoing]] = defaultdict(list)
        for outgoing in self._bulk.outgoing.values():
            paths[outgoing.address].append(outgoing)
        busy = False
        for address, shared in paths.items():
            priorities = _priorities(shared)
            divided = len(shared) > 1
            if divided:
                self._divide(self._capacities.setdefault(address, Capacity()), shared, priorities, now)
                busy = True
            for outgoing in shared if not divided else ():
                _hold(outgoing, 0.0)
        for address in self._capacities.keys() - paths.keys():
            del self._capacities[address]
        return busy

    def _divide(self, seen: Capacity, shared: list[Outgoing], priorities: list[Priority], now: float) -> None:
        flows = []
        for outgoing, priority in zip(shared, priorities, strict=True):
            lanes = view(outgoing.legs)
            flows.append(
                Flow(
                    priority=priority,
                    rate_bytes_s=lanes.rate_bytes_s if lanes is not None else 0,
                    cap_bytes_s=outgoing.chosen_bytes_s,
                    wants_more=lanes is not None and lanes.limit in _WANTS_MORE,
                )
            )
        capacity = seen.see(sum(flow.rate_bytes_s for flow in flows), now)
        for outgoing, cap in zip(shared, divide(flows, capacity_bytes_s=capacity), strict=True):
            _hold(outgoing, cap)

    # --- looking ------------------------------------------------------------------------------------------------------
    def limits_info(self, transfer: str) -> LimitsInfo:
        """What is chosen for a transfer."""
        kept = self._bulk.limits(transfer)
        return LimitsInfo(rate=kept.rate_bytes_s, priority=kept.priority, lanes=kept.lanes)

    def path_info(self, row: TransferRow) -> PathInfo:
        """The way of a transfer: how it does while it runs; afterwards what the receipt says of it."""
        path = self._bulk.path(row.transfer)
        if (lanes := self._bulk.lanes(row.transfer)) is not None:
            return _over_lanes(lanes, path, own_bytes_s=self._recipient_cap(row))
        if (pace := self._bulk.streaming(row.transfer)) is not None:
            return _over_quic(pace, path, now=asyncio.get_running_loop().time())
        path = path or self._receipt_path(row.transfer)
        return PathInfo(plane=path.plane, reason=path.plane_reason, cipher=path.cipher) if path is not None else PathInfo()

    def _recipient_cap(self, row: TransferRow) -> int:
        """The recipient's own rate, which the sender holds; 0: none."""
        return self._bulk.limits(row.transfer).rate_bytes_s if row.direction == "in" else 0

    def _receipt_path(self, transfer: str) -> Path | None:
        with self._core.database.begin() as tx:
            found = statements.about(tx, transfer, Receipt)
        return found[-1].body.path if found else None


def _over_lanes(lanes: LaneView, path: Path | None, *, own_bytes_s: int) -> PathInfo:
    at_cap = own_bytes_s and lanes.limit in ("peer", "network") and lanes.rate_bytes_s >= _AT_CAP * own_bytes_s
    return PathInfo(
        plane="lanes",
        cipher=path.cipher if path is not None else "",
        lanes=lanes.lanes,
        rate=lanes.rate_bytes_s,
        rtt_ms=round(lanes.rtt_ms, 3),
        loss=round(lanes.loss, 6),
        resent_bytes=lanes.resent_bytes,
        datagram_bytes=lanes.datagram_bytes,
        datagrams_per_call=round(lanes.datagrams_per_call, 1),
        dropped_here=lanes.dropped_here,
        limit="cap" if at_cap else lanes.limit,  # type: ignore[arg-type]
    )


def _over_quic(pace: Pace, path: Path | None, *, now: float) -> PathInfo:
    return PathInfo(
        plane="quic-stream",
        reason=path.plane_reason if path is not None else "",
        cipher=QUIC_CIPHER,
        rate=int(pace.meter.per_second(now)),
        limit="cap" if pace.wait_s(now) else "",
    )


def _priorities(shared: Sequence[Outgoing]) -> list[Priority]:
    """What the sender chose counts first; a recipient's word where all that goes to the address is theirs, so that nobody takes
    from others who share it."""
    is_one_peer = len({outgoing.peer for outgoing in shared}) == 1
    return [
        outgoing.own_priority if outgoing.own_priority != "normal" or not is_one_peer else outgoing.peer_priority
        for outgoing in shared
    ]


def _hold(outgoing: Outgoing, budget_bytes_s: float) -> None:
    """Where it is another part than before by more than measuring wavers."""
    before = outgoing.budget_bytes_s
    if bool(before) != bool(budget_bytes_s) or abs(budget_bytes_s - before) > _WAVER * before:
        outgoing.budget_bytes_s = budget_bytes_s
        outgoing.divide()
