"""The clock and the bottleneck: one drop-tail queue, one rate that may change, a delay, a loss model behind the queue.

Packets travel in trains (what a sender writes at once: at most 44 packets or a millisecond of its rate), so that a minute at
100 Mbit/s takes seconds. A train that does not fit into the queue loses its end. What was queued when the rate changes arrives at
the times that the old rate gave it, since those are fixed when it is queued.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.support.path.loss import Loss, Nothing


@dataclass(slots=True)
class Train:
    """Packets of one size that were sent at once."""

    packets: int
    packet_bytes: int
    content: Any = None


class Flow(Protocol):
    """Both ends of a flow. ``on_deliver`` and ``report`` are the receiver's, the others the sender's."""

    def start(self, now: float) -> None:
        """The flow begins."""
        ...

    def next_send_time(self) -> float | None:
        """When ``send`` is to be called (to send, or because a timer of the sender ends); None: not before the next report."""
        ...

    def send(self, now: float) -> Train | None:
        """What the sender writes now."""
        ...

    def on_deliver(self, now: float, train: Train, kept: Sequence[int]) -> float | None:
        """These of a train's packets arrived, the last one now. Returns when ``report`` is to be called, if it is."""
        ...

    def report(self, now: float) -> Any:
        """What the receiver tells the sender."""
        ...

    def on_ack(self, now: float, report: Any) -> None:
        """The report reached the sender."""
        ...


@dataclass(slots=True)
class Tally:
    """What happened to a flow's packets so far, in bytes."""

    sent: int = 0
    dropped: int = 0
    lost: int = 0
    delivered: int = 0


@dataclass(slots=True)
class Sample:
    """How it stood at one time."""

    now: float
    queue_s: float
    tallies: list[Tally]
    notes: list[Any] = field(default_factory=list)


class Link:
    """A bottleneck of ``rate_bytes_s`` behind a drop-tail queue of ``queue_bytes``, and half of ``rtt_s`` either way.

    Reports come up to ``jitter_s`` late, as they do to a sender that was busy.
    """

    def __init__(
        self, *, rate_bytes_s: float, rtt_s: float, queue_bytes: float, loss: Loss | None = None, jitter_s: float = 0.0
    ) -> None:
        self.now = 0.0
        self.rate_bytes_s = rate_bytes_s
        self.rtt_s = rtt_s
        self.queue_bytes = queue_bytes
        self.loss: Loss = loss or Nothing()
        self.flows: list[Flow] = []
        self.tallies: list[Tally] = []
        self.samples: list[Sample] = []
        self._jitter_s = jitter_s
        self._random = random.Random(7)
        self._acks_at: list[float] = []
        self._free_at = 0.0
        self._wakes: list[int] = []
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0

    def at(self, when: float, what: Callable[..., None], *arguments: Any) -> None:
        """Call something at a time."""
        self._order += 1
        heapq.heappush(self._heap, (when, self._order, what, arguments))

    def add(self, flow: Flow, *, start: float = 0.0) -> int:
        """A flow that begins at a time; returns its place."""
        self.flows.append(flow)
        self.tallies.append(Tally())
        self._wakes.append(0)
        self._acks_at.append(0.0)
        place = len(self.flows) - 1
        self.at(start, self._start, place)
        return place

    def set_rate(self, rate_bytes_s: float) -> None:
        """The rate of the bottleneck from now on."""
        self._free_at = self.now + max(self._free_at - self.now, 0.0) * self.rate_bytes_s / rate_bytes_s
        self.rate_bytes_s = rate_bytes_s

    def run(
        self, until: float, *, each_s: float = 0.1, note: Callable[[], list[Any]] = list, stop: Callable[[], bool] | None = None
    ) -> None:
        """Let time pass, noting how it stands each ``each_s``."""
        sample_at = self.now
        while self._heap and self._heap[0][0] <= until:
            when, _, what, arguments = heapq.heappop(self._heap)
            while sample_at <= when:
                self.now = sample_at
                self._sample(note)
                sample_at += each_s
            self.now = when
            what(*arguments)
            if stop is not None and stop():
                break
        else:
            self.now = until
        self._sample(note)

    def queue_s(self) -> float:
        """How long a packet that comes now waits."""
        return max(self._free_at - self.now, 0.0)

    def _sample(self, note: Callable[[], list[Any]]) -> None:
        copies = [Tally(tally.sent, tally.dropped, tally.lost, tally.delivered) for tally in self.tallies]
        self.samples.append(Sample(self.now, self.queue_s(), copies, note()))

    def _start(self, place: int) -> None:
        self.flows[place].start(self.now)
        self._pump(place)

    def _wake(self, place: int, stamp: int) -> None:
        if stamp == self._wakes[place]:
            self._pump(place)

    def _pump(self, place: int) -> None:
        """Let a flow send what it may, then wait for the time that it names."""
        flow = self.flows[place]
        self._wakes[place] += 1
        while (due := flow.next_send_time()) is not None:
            if due > self.now:
                self.at(due, self._wake, place, self._wakes[place])
                return
            train = flow.send(self.now)
            if train is not None:
                self._queue(place, train)

    def _queue(self, place: int, train: Train) -> None:
        tally = self.tallies[place]
        tally.sent += train.packets * train.packet_bytes
        room = self.queue_bytes - max(self._free_at - self.now, 0.0) * self.rate_bytes_s
        fit = min(train.packets, max(int(room // train.packet_bytes), 0))
        tally.dropped += (train.packets - fit) * train.packet_bytes
        if not fit:
            return
        self._free_at = max(self._free_at, self.now) + fit * train.packet_bytes / self.rate_bytes_s
        gone = self.loss.lost(fit, self.now)
        kept: Sequence[int] = range(fit)
        if gone:
            tally.lost += len(gone) * train.packet_bytes
            kept = sorted(set(kept) - set(gone))
        if kept:
            self.at(self._free_at + self.rtt_s / 2, self._deliver, place, train, kept)

    def _deliver(self, place: int, train: Train, kept: Sequence[int]) -> None:
        self.tallies[place].delivered += len(kept) * train.packet_bytes
        due = self.flows[place].on_deliver(self.now, train, kept)
        if due is not None:
            self.at(max(due, self.now), self._report, place)

    def _report(self, place: int) -> None:
        late_s = self._jitter_s * self._random.random()
        self._acks_at[place] = max(self._acks_at[place], self.now + self.rtt_s / 2 + late_s)
        self.at(self._acks_at[place], self._ack, place, self.flows[place].report(self.now))

    def _ack(self, place: int, report: Any) -> None:
        self.flows[place].on_ack(self.now, report)
        self._pump(place)
