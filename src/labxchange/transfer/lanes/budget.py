"""One budget for each remote address: what its path carries, divided among the transfers that go there by their priorities.

Transfers of one priority share a path by themselves; where one of them falls behind, those that have more than their part are
held to it until it has caught up. Where priorities differ and the path is full, the classes get it in
the proportion of their weights: the highest class stays free, so that it finds out what the path can carry, and each transfer
below is held to its part. What a transfer does not use, because its disk, its peer or its own cap holds it back, is left to the
others, a little at a time, so that nobody is pushed aside while they try. Pure: no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from labxchange.wire.control.messages import Priority

WEIGHTS: Final[dict[Priority, int]] = {"low": 1, "normal": 4, "high": 16}
FLOOR_BYTES_S: Final = 10_000.0
"""What is left to the lowest, so that it is not taken for dead."""
MEMORY_S: Final = 5.0
_GROWTH: Final = 1.25
"""A class may go so far beyond its part while those above it want nothing more."""
_RETREAT: Final = 0.5
"""And goes back to its part in steps of this, because those above may want only a little more."""
_CONTENT: Final = 0.9
"""A transfer that moves this much of its own cap has what it wants."""
_BEHIND: Final = 0.95
"""A transfer that wants more and moves less than this of its part is behind others of its priority."""
_ROOM, _YIELD = 0.9, 0.7
"""Those that have more then leave it a tenth of their part, and give up a third of what they have at a time: it may be slow to
catch up."""
_IDLE_SHARE: Final = 0.1
"""Classes that move less than this of the path are in nobody's way."""


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """A transfer to the address: what it moves, what a person allows it (0: anything), and whether it could use more."""

    priority: Priority
    rate_bytes_s: float
    cap_bytes_s: float = 0.0
    wants_more: bool = True


def divide(flows: Sequence[Flow], *, capacity_bytes_s: float) -> list[float]:
    """A cap for each flow, in the same order, besides those that people chose; 0: none.

    Args:
        capacity_bytes_s: what the path was last seen to carry, of all flows together.
    """
    weights = [WEIGHTS[flow.priority] for flow in flows]
    parts = _fill(weights, [_demand(flow) for flow in flows], capacity_bytes_s)
    evenly = _fill(weights, [_demand(flow) for flow in flows], sum(flow.rate_bytes_s for flow in flows))
    behind = {its for flow, its, part in zip(flows, weights, evenly, strict=True) if _is_behind(flow, part)}
    caps = []
    for flow, weight, part, even in zip(flows, weights, parts, evenly, strict=True):
        above = [other for other, its in zip(flows, weights, strict=True) if its > weight]
        moving = sum(other.rate_bytes_s for other in above)
        if any(_is_hungry(other) for other in above):
            caps.append(max(part, flow.rate_bytes_s * _RETREAT, FLOOR_BYTES_S))
        elif moving >= _IDLE_SHARE * capacity_bytes_s > 0:
            caps.append(max(part * _GROWTH, FLOOR_BYTES_S))
        elif weight in behind and flow.rate_bytes_s > even:
            caps.append(max(_ROOM * even, _YIELD * flow.rate_bytes_s, FLOOR_BYTES_S))
        else:
            caps.append(0.0)
    return caps


def _is_hungry(flow: Flow) -> bool:
    return flow.wants_more and (not flow.cap_bytes_s or flow.rate_bytes_s < _CONTENT * flow.cap_bytes_s)


def _is_behind(flow: Flow, part: float) -> bool:
    return _is_hungry(flow) and flow.rate_bytes_s < _BEHIND * part


def _demand(flow: Flow) -> float:
    """At most so much would it take."""
    return (flow.cap_bytes_s or float("inf")) if flow.wants_more else flow.rate_bytes_s


def _fill(weights: Sequence[int], demands: Sequence[float], capacity: float) -> list[float]:
    """Weighted max-min fair parts: nobody gets more than they want, and what is over goes to the rest by weight."""
    parts = [0.0] * len(weights)
    left, open_ = capacity, set(range(len(weights)))
    while open_ and left > 0:
        unit = left / sum(weights[index] for index in open_)
        content = {index for index in open_ if demands[index] <= unit * weights[index]}
        for index in content or open_:
            parts[index] = demands[index] if content else unit * weights[index]
        left -= sum(parts[index] for index in content)
        open_ = open_ - content if content else set()
    return parts


class Capacity:
    """What a path was seen to carry: the most of the last seconds. Time is an argument."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def see(self, rate_bytes_s: float, now: float) -> float:
        """So much goes over it now; returns the most that went."""
        while self._seen and self._seen[-1][1] <= rate_bytes_s:
            self._seen.pop()
        self._seen.append((now, rate_bytes_s))
        while now - self._seen[0][0] > MEMORY_S:
            self._seen.popleft()
        return self._seen[0][1]
