"""What a path loses whatever is sent: each packet alone, or in bursts. Seeded, and only asked about each packet once."""

from __future__ import annotations

import math
import random
from typing import Protocol


class Loss(Protocol):
    """A loss model."""

    def lost(self, packets: int, now: float) -> list[int]:
        """Which of the next ``packets`` are lost, by their place."""
        ...


class Nothing:
    """Loses nothing."""

    def lost(self, packets: int, now: float) -> list[int]:
        return []


class Random:
    """Each packet is lost with the same probability."""

    def __init__(self, probability: float, seed: int) -> None:
        self._scale = math.log1p(-probability) if probability else -math.inf
        self._random = random.Random(seed)
        self._next = self._gap()

    def _gap(self) -> int:
        return int(math.log(1.0 - self._random.random()) / self._scale) if self._scale != -math.inf else 1 << 60

    def lost(self, packets: int, now: float) -> list[int]:
        places = []
        while self._next < packets:
            places.append(self._next)
            self._next += 1 + self._gap()
        self._next -= packets
        return places


class Bursts:
    """Gilbert's model: runs of lost packets of geometric length, between runs of packets that pass."""

    def __init__(self, probability: float, burst_packets: float, seed: int) -> None:
        self._leave_bad = 1.0 / burst_packets
        self._leave_good = probability * self._leave_bad / (1.0 - probability)
        self._random = random.Random(seed)
        self._bad = False
        self._left = self._run()

    def _run(self) -> int:
        leave = self._leave_bad if self._bad else self._leave_good
        return 1 + int(math.log(1.0 - self._random.random()) / math.log1p(-leave)) if leave < 1.0 else 1

    def lost(self, packets: int, now: float) -> list[int]:
        places: list[int] = []
        at = 0
        while at < packets:
            run = min(self._left, packets - at)
            if self._bad:
                places.extend(range(at, at + run))
            at += run
            self._left -= run
            if not self._left:
                self._bad = not self._bad
                self._left = self._run()
        return places


class Silence:
    """Loses everything between two times, and otherwise what another model loses."""

    def __init__(self, start: float, end: float, otherwise: Loss) -> None:
        self._start, self._end, self._otherwise = start, end, otherwise

    def lost(self, packets: int, now: float) -> list[int]:
        return list(range(packets)) if self._start <= now < self._end else self._otherwise.lost(packets, now)


class Then:
    """One model until a time, another after it."""

    def __init__(self, first: Loss, at: float, second: Loss) -> None:
        self._first, self._at, self._second = first, at, second

    def lost(self, packets: int, now: float) -> list[int]:
        return (self._first if now < self._at else self._second).lost(packets, now)
