"""What both ends of a lane share: packet numbers, the window of what came, the path, and how long the other end was silent.

Contract (the same for ``sender`` and ``receiver``): ``receive(batch, now)``, ``poll_transmit(now)``, ``next_timer()``,
``on_timer(now)``, ``next_event()``; a batch is one buffer, a size of datagrams and an address. Rules:

- a number is judged before its datagram is opened and marked after; a forged datagram dies alone. After 2**20 of them the lane
  asks for a new id (``Worn``) and goes on;
- both ends begin with a challenge (8 random bytes, sealed): it shows the side that listens where the other is, and gives the
  first round trip. At most three times what came from an address is sent to it until it has answered; an address that changes
  is challenged again, at most once a second;
- a number is never used twice: the lane is worn long before numbers or bytes run out, and dead before the first could repeat.

The buffer of a batch that ``poll_transmit`` gave is good until the next call. Sockets and threads are left to the lane worker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labxchange.errors import PeerError
from labxchange.wire.data.datagram import (
    BATCH_DATAGRAMS,
    OVERHEAD_BYTES,
    SIZE_MAX,
    SIZES,
    Cuts,
    Kind,
    LaneKey,
    Opener,
    Sealer,
    batch_rows,
    headers_of,
    number_of,
)
from labxchange.wire.data.events import Address, Event, Failed, Moved, Up, Worn
from labxchange.wire.data.seen import Seen

FORGED_MAX: Final = 1 << 20
WORN_BYTES: Final = 64 << 30
WORN_S: Final = 3600.0
WORN_NUMBER: Final = 0xF0000000
NUMBER_END: Final = (1 << 32) - 2 * BATCH_DATAGRAMS
"""A batch begins below it, so that no number ever comes round again."""
TOKEN_BYTES: Final = 8
AMPLIFICATION: Final = 3
CHALLENGE_S: Final = 0.25
_CHALLENGE_MAX_S: Final = 4.0
KEEPALIVE_S: Final = 4.0
"""A challenge so often keeps both ends, and what is between them, aware of a lane on which nothing moves."""
ADDRESS_CHANGE_S: Final = 1.0
NEVER: Final = float("inf")
_FIRST: Final = np.zeros(1, np.int64)


class Batch(NamedTuple):
    """Datagrams of ``size`` bytes one after the other, the last may be shorter; where to, or whence (None: a connected peer); of
    received ones, when they came to this machine (0: now), which may be a while before they are looked at, and the cuts of the
    memory that they lie at the beginning of."""

    data: memoryview
    size: int
    address: Address | None = None
    at: float = 0.0
    cuts: Cuts | None = None


class Keys(NamedTuple):
    """What a lane writes with and reads with."""

    write: LaneKey
    read: LaneKey


class Opened(NamedTuple):
    """The authentic rows of a batch: the payload of row r is ``room`` bytes at ``r * room``, of the last row ``rest``."""

    headers: NDArray[np.void]
    rows: NDArray[np.int64]
    payload: memoryview
    room: int
    rest: int
    at: float

    def length(self, row: int) -> int:
        return self.rest if row == len(self.headers) - 1 else self.room

    def of(self, row: int) -> memoryview:
        return self.payload[row * self.room : row * self.room + self.length(row)]

    def words(self) -> list[tuple[int, memoryview]]:
        """Kind and payload of each datagram that carries no bytes of the line."""
        kinds = self.headers["kind"].tolist()
        return [(kinds[row], self.of(row)) for row in self.rows.tolist() if kinds[row] != Kind.DATA]


class Lane:
    """Common state; see the module.

    Args:
        slot: the worker slot that the other end listens with; 0 towards the side that dialled.
        address: where the other end is, or None when its socket is connected or not known yet.
        proven: True when the address answered already (the side that dialled knows that its peer is there).
        known_host: a host that has answered at the other end of the session; an address of it needs no challenge first.
        random_bytes: for challenges.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        slot: int,
        now: float,
        random_bytes: Callable[[int], bytes],
        address: Address | None = None,
        proven: bool,
        known_host: str = "",
    ) -> None:
        self.address = address
        self.size = SIZES[0]
        self.forged = 0
        self.received_datagrams = 0
        self.sent_datagrams = 0
        self.received_bytes = 0
        self.sent_bytes = 0
        self.heard_at = now
        self.is_up = False
        self.is_dead = False
        self._began = now
        self._random_bytes = random_bytes
        self._sealer = Sealer(keys.write, slot=slot)
        self._opener = Opener(keys.read)
        self._seen = Seen()
        self._proven = proven
        self._known_host = known_host
        self._knows_address = proven
        self._tokens: dict[bytes, float] = {}
        self._challenge_at = now
        self._challenge_gap = CHALLENGE_S
        self._credit = 0
        self._moved_at = -NEVER
        self._worn = False
        self._replies: deque[tuple[Kind, bytes]] = deque()
        self._events: deque[Event] = deque()

    # --- what the ends fill in ----------------------------------------------------------------------------------------
    def _take_number(self, payload_bytes: int, now: float) -> int:
        raise NotImplementedError

    def _on_opened(self, opened: Opened, now: float) -> None:
        raise NotImplementedError

    def _on_new_path(self, now: float) -> None:
        raise NotImplementedError

    # --- in -----------------------------------------------------------------------------------------------------------
    def receive(self, batch: Batch, now: float) -> None:
        """Take a batch of this lane's id (others in it are dropped)."""
        if self.is_dead:
            return
        if batch.address is not None and batch.address == self.address:
            self._credit += AMPLIFICATION * len(batch.data)
        if batch.size > SIZE_MAX:
            return
        try:
            if len(batch.data) <= batch.size:
                self._open_one(batch, now)
            else:
                self._open_many(batch, now)
        except PeerError as error:
            self.is_dead = True
            self._events.append(Failed(error.code, error.message))

    def _open_one(self, batch: Batch, now: float) -> None:
        """What a report is. For so little numpy costs more than the rest."""
        data = batch.data
        if len(data) < OVERHEAD_BYTES:
            return
        number = number_of(data)
        if not self._seen.is_fresh(number):
            return
        payload = self._opener.unseal_one(data, number=number)
        if payload is None:
            self._note_forged(1)
            return
        newest = self._seen.newest
        self._seen.mark_one(number)
        headers, room = headers_of(data, batch.size), batch.size - OVERHEAD_BYTES
        self._on_authentic(batch, Opened(headers, _FIRST, payload, room, len(payload), batch.at or now), newest, now)

    def _open_many(self, batch: Batch, now: float) -> None:
        headers, count = headers_of(batch.data, batch.size), batch_rows(batch.size)
        for start in range(0, len(headers), count):
            part = batch.data[start * batch.size : (start + count) * batch.size]
            self._open(headers[start : start + count], part, batch, now, cuts=batch.cuts if not start else None)

    def _open(self, headers: NDArray[np.void], data: memoryview, batch: Batch, now: float, *, cuts: Cuts | None) -> None:
        numbers = headers["number"].astype(np.int64)
        fresh = self._seen.fresh(numbers)
        if not len(fresh):
            return
        good, payload = self._opener.unseal(data, size=batch.size, rows=fresh, numbers=numbers[fresh], cuts=cuts)
        if len(good) < len(fresh):
            fresh = self._open_behind(data, batch.size, numbers, tried=fresh, good=good)
        if not len(fresh):
            return
        newest = self._seen.newest
        self._seen.mark(numbers[fresh])
        room = batch.size - OVERHEAD_BYTES
        rest = min(room, len(data) - (len(headers) - 1) * batch.size - OVERHEAD_BYTES)
        self._on_authentic(batch, Opened(headers, fresh, payload, room, rest, batch.at or now), newest, now)

    def _on_authentic(self, batch: Batch, opened: Opened, newest: int, now: float) -> None:
        """The newest number before was ``newest``."""
        count, last = len(opened.rows), int(opened.rows[-1])
        self.received_datagrams += count
        self.received_bytes += count * OVERHEAD_BYTES + (count - 1) * opened.room + opened.length(last)
        self.heard_at = now
        if not self.is_up:
            self.is_up = True
            self._events.append(Up())
        if batch.address != self.address and self._seen.newest > newest:
            self._move(batch, now)
        self._on_opened(opened, now)

    def _open_behind(
        self, data: memoryview, size: int, numbers: NDArray[np.int64], *, tried: NDArray[np.int64], good: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Some of a batch were forged: what stands behind them under their numbers is tried too. All that are authentic."""
        self._note_forged(len(tried) - len(good))
        while len(tried) < len(numbers):
            rest = np.setdiff1d(np.arange(len(numbers)), tried)
            rest = rest[~np.isin(numbers[rest], numbers[good])]
            rest = rest[self._seen.fresh(numbers[rest])]
            if not len(rest):
                break
            opened, _ = self._opener.unseal(data, size=size, rows=rest, numbers=numbers[rest])
            self._note_forged(len(rest) - len(opened))
            tried, good = np.concatenate((tried, rest)), np.sort(np.concatenate((good, opened)))
        return good

    def _note_forged(self, count: int) -> None:
        self.forged += count
        if self.forged >= FORGED_MAX and not self._worn:
            self._wear("forged")

    def _wear(self, why: str) -> None:
        self._worn = True
        self._events.append(Worn(why))

    def _check_wear(self, number: int, now: float) -> None:
        if number >= NUMBER_END:
            self.is_dead = True
            self._events.append(Failed("lane-worn", "The lane has used up its packet numbers."))
        if self._worn:
            return
        if number > WORN_NUMBER or self.sent_bytes + self.received_bytes > WORN_BYTES:
            self._wear("bytes")
        elif now - self._began > WORN_S:
            self._wear("time")

    def _on_word(self, kind: int, payload: memoryview, at: float, now: float) -> None:
        """A challenge, or the answer to one, that came at ``at``; other kinds are not for both ends."""
        if kind not in (Kind.CHALLENGE, Kind.RESPONSE):
            return
        token = bytes(payload)
        if len(token) != TOKEN_BYTES:
            raise PeerError("malformed-status", "The other node sent a challenge that does not parse.")
        if kind == Kind.CHALLENGE and len(self._replies) < 8:
            self._replies.append((Kind.RESPONSE, token))
        elif kind == Kind.RESPONSE and token in self._tokens:
            rtt_s = max(at - self._tokens[token], 0.0)
            self._tokens, self._proven = {}, True
            self._challenge_at, self._challenge_gap = now + KEEPALIVE_S, CHALLENGE_S
            self._on_answer(rtt_s)

    def _on_answer(self, rtt_s: float) -> None:
        raise NotImplementedError

    def _move(self, batch: Batch, now: float) -> None:
        if now - self._moved_at < ADDRESS_CHANGE_S:
            return
        first, self._knows_address = not self._knows_address, True
        self._moved_at = now
        before, self.address = self.address, batch.address
        self._credit = AMPLIFICATION * len(batch.data)
        self._proven, self._tokens = self._is_known(batch.address), {}
        self._challenge_at, self._challenge_gap = now, CHALLENGE_S
        if not first:
            self.size = SIZES[0]
            self._on_new_path(now)
            self._events.append(Moved(before, batch.address))

    def _is_known(self, address: Address | None) -> bool:
        """True for the machine that answered over QUIC: what comes from it, and opens, is not aimed at a stranger."""
        return address is not None and address[0].removeprefix("::ffff:") == self._known_host

    # --- out ----------------------------------------------------------------------------------------------------------
    def _may_send(self, size: int) -> bool:
        """An address that has not answered gets at most three times what came from it; an unknown one nothing."""
        return self._knows_address and (self._proven or self._credit >= size)

    def _sent(self, batch: Batch, count: int) -> Batch:
        self.sent_datagrams += count
        self.sent_bytes += len(batch.data)
        if not self._proven:
            self._credit -= len(batch.data)
        return batch

    def _transmit_control(self, now: float) -> Batch | None:
        """A challenge that is due, or an answer."""
        if self._challenge_at <= now and self._knows_address:
            token = self._random_bytes(TOKEN_BYTES)
            self._tokens[token] = now
            self._challenge_at = now + self._challenge_gap
            self._challenge_gap = min(2 * self._challenge_gap, _CHALLENGE_MAX_S)
            self._replies.append((Kind.CHALLENGE, token))
        if self._replies and self._may_send(OVERHEAD_BYTES + TOKEN_BYTES):
            kind, payload = self._replies.popleft()
            return self._one(kind, memoryview(payload), now)
        return None

    def _one(self, kind: Kind, payload: memoryview, now: float) -> Batch:
        """One datagram of its own."""
        size = len(payload) + OVERHEAD_BYTES
        number = self._take_number(len(payload), now)
        sealed = self._sealer.seal_one(payload, kind=kind, number=number)
        self._check_wear(number, now)
        return self._sent(Batch(sealed, size, self.address), 1)

    def next_event(self) -> Event | None:
        """What happened, in order; None when there is nothing more."""
        return self._events.popleft() if self._events else None

    def _control_timer(self) -> float:
        if self._replies and self._may_send(OVERHEAD_BYTES + TOKEN_BYTES):
            return 0.0
        return self._challenge_at if self._knows_address else NEVER
