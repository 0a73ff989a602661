"""Lanes for the transfers of this node: whether there are any, their opening on both sides, and falling back when they fail.

A transfer goes over lanes wherever they can be opened. Where not - the other node has none, a firewall lets only QUIC's flow
through, a worker keeps dying - it goes over sealed QUIC streams, slower, and the reason is written into trail and receipt. After
lanes on which nothing was heard, or two failures of another kind, one attempt goes over QUIC. What may be sent is judged in
``serving``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

import msgspec

from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.errors import LabxchangeError, PeerError, RefusedError, UnavailableError
from labxchange.files.scan import Sources
from labxchange.net.channel import Channel, Stream
from labxchange.net.endpoint import Endpoint
from labxchange.node.catalog import Loaded
from labxchange.node.core import Core
from labxchange.node.refusals import Stated, refused
from labxchange.sharing.exchange import Path
from labxchange.store import statements, transfers
from labxchange.store.transfers import Limits, TransferRow
from labxchange.transfer.lanes.fetching import LaneFetching
from labxchange.transfer.lanes.leg import LaneView, view
from labxchange.transfer.lanes.process import Workers
from labxchange.transfer.lanes.sending import Outgoing, SendingLanes
from labxchange.transfer.pace import Pace
from labxchange.transfer.streams import Content, Fetching, Streams
from labxchange.wire.control.messages import OpenLanes, encode

_KEYS = "under X25519+ML-KEM-768"
QUIC_CIPHER = f"AES-256-GCM {_KEYS}, in QUIC (TLS 1.3)"
_CIPHERS = {"aes-256-gcm": f"AES-256-GCM {_KEYS}", "chacha20-poly1305": f"ChaCha20-Poly1305 {_KEYS}"}
_FALLS_BACK = frozenset({"lane-silent", "no-lane-port", "lane-keys-changed", "worker-ended", "peer-unreachable", "lane-closed"})
LANES_OFF = "no-lanes"
_FAILURES_MAX = 2
_LANES_OF_A_PEER = 64
"""Each costs a few MiB here."""
AUTOMATIC_LANES: Final = 1
"""One lane fills a path; more are for people who know that theirs is shaped by flow."""

log = logging.getLogger("labxchange")


class Bulk:
    """The lanes of a node.

    Args:
        workers: how many lane workers; 0: this node has no lanes.
    """

    def __init__(
        self,
        core: Core,
        workers: int,
        *,
        entry: Callable[..., Entry],
    ) -> None:
        self.moved: dict[str, tuple[str, str]] = {}
        self.forged: Counter[str] = Counter()
        self.outgoing: dict[str, Outgoing] = {}
        self._core = core
        self._workers = Workers(workers) if workers else None
        self._entry = entry
        self._failures: dict[str, list[str]] = {}
        self._receiving: dict[str, Fetching] = {}
        self._paths: dict[str, Path] = {}
        self._paces: WeakValueDictionary[str, Pace] = WeakValueDictionary()

    def listening(self, endpoint: Endpoint, port: int) -> None:
        """The listening port is open."""
        if self._workers is not None:
            self._workers.listen_on(endpoint.lane_sockets, port)
            self._workers.warm()

    def limits(self, transfer: str) -> Limits:
        """What a person chose for a transfer."""
        with self._core.database.begin() as tx:
            return transfers.limits(tx, transfer)

    async def apply(self, chosen: Limits) -> None:
        """What a person chose acts at once on what runs; a connection that is lost meanwhile hears of it when it is back."""
        transfer = chosen.transfer
        if (pace := self._paces.get(transfer)) is not None:
            pace.set_rate(chosen.rate_bytes_s)
        if (outgoing := self.outgoing.get(transfer)) is not None:
            outgoing.choose(chosen.rate_bytes_s, chosen.priority)
        fetching = self._receiving.get(transfer)
        if isinstance(fetching, LaneFetching):
            try:
                await fetching.set_rate(chosen.rate_bytes_s, chosen.priority)
                await fetching.set_lanes(chosen.lanes or AUTOMATIC_LANES)
            except LabxchangeError as error:
                log.info("transfer %s goes on as it was for now: %s (%s)", transfer, error.message, error.code)

    # --- looking ------------------------------------------------------------------------------------------------------
    def path(self, transfer: str) -> Path | None:
        """How the bytes of a running transfer travel, as far as this side knows; None: none do."""
        return self._paths.get(transfer)

    def lanes(self, transfer: str) -> LaneView | None:
        """How the lanes of a transfer do; None when it has none."""
        fetching, outgoing = self._receiving.get(transfer), self.outgoing.get(transfer)
        if isinstance(fetching, LaneFetching):
            return view(fetching.legs)
        return view(outgoing.legs) if outgoing is not None else None

    def pace(self, transfer: str) -> Pace:
        """What holds a transfer to its rate over QUIC, and measures it; there as long as somebody keeps it."""
        found = self._paces.get(transfer)
        if found is None:
            found = self._paces[transfer] = Pace(self.limits(transfer).rate_bytes_s)
        return found

    def streaming(self, transfer: str) -> Pace | None:
        """The same, when the transfer goes over QUIC just now."""
        return self._paces.get(transfer)

    def moves(self) -> list[Entry]:
        """Of transfers whose lanes have another address at the other end: the first and the last since this was asked."""
        moves, self.moved = self.moved, {}
        with self._core.database.begin() as tx:
            rows = [(transfers.transfer(tx, transfer), old, new) for transfer, (old, new) in moves.items()]
        return [self._entry(Event.TRANSFER_PATH_CHANGED, row, old=old, new=new) for row, old, new in rows if row is not None]

    def forgeries(self) -> Counter[str]:
        """How many datagrams bore the id of a peer's lane and did not open, since this was asked."""
        forged, self.forged = self.forged, Counter()
        return forged

    # --- receiving ----------------------------------------------------------------------------------------------------
    async def fetching(self, channel: Channel, row: TransferRow, content: asyncio.Future[Content]) -> tuple[Fetching, Path]:
        """A way to fetch, opened, and what the receipt says of it; ``content`` may still be to come.

        Raises:
            RefusedError: the sender ended the transfer. PeerError: it broke the rules.
        """
        reason = LANES_OFF
        failures = self._failures.get(row.peer, [])
        if self._workers is not None and "lane-silent" not in failures and len(failures) < _FAILURES_MAX:
            chosen = self.limits(row.transfer)
            lanes = self._lanes(channel, row, content, chosen)
            try:
                await lanes.open()
            except Stated as error:
                lanes.close()
                if error.code not in (LANES_OFF, "lane-keys-changed"):
                    raise
                reason = error.code
            except UnavailableError as error:
                lanes.close()
                if error.code not in _FALLS_BACK:
                    raise
                reason = error.code
            except BaseException:
                lanes.close()
                raise
            else:
                path = self._begun(row, lanes, _path("lanes", "", _CIPHERS[lanes.cipher]))
                if (now := self.limits(row.transfer)) != chosen:
                    await self.apply(now)
                return lanes, path
        elif self._workers is not None:
            reason = self._failures.pop(row.peer)[-1]
        line, digests, quarantine = await content
        if self._workers is not None and reason != LANES_OFF:
            self._core.record(self._entry(Event.TRANSFER_FALLBACK, row, result="error", result_code=reason))
        quarantine.written_elsewhere = False
        streams = Streams(
            row.transfer,
            channel,
            line=line,
            digests=digests,
            quarantine=quarantine,
            refused=refused,
            pace=self.pace(row.transfer),
        )
        return streams, self._begun(row, streams, _path("quic-stream", reason, QUIC_CIPHER))

    def _begun(self, row: TransferRow, fetching: Fetching, path: Path) -> Path:
        self._receiving[row.transfer], self._paths[row.transfer] = fetching, path
        return path

    def _lanes(self, channel: Channel, row: TransferRow, content: asyncio.Future[Content], chosen: Limits) -> LaneFetching:
        assert self._workers is not None
        return LaneFetching(
            row.transfer,
            channel,
            workers=self._workers,
            count=chosen.lanes or AUTOMATIC_LANES,
            rate_bytes_s=chosen.rate_bytes_s,
            priority=chosen.priority,
            watch=_Watch(self, transfer=row.transfer, peer=row.peer),
            random_bytes=self._core.random_bytes,
            content=content,
            destination=row.destination,
            refused=refused,
        )

    async def fetched(self, transfer: str, peer: str, fetching: Fetching, *, error: BaseException | None) -> None:
        """An attempt is over; ``error`` is how it failed. Returns when no worker writes any more."""
        self._receiving.pop(transfer, None)
        self._paths.pop(transfer, None)
        if isinstance(fetching, LaneFetching):
            await fetching.closed()
            if isinstance(error, UnavailableError | PeerError) and error.code in {*_FALLS_BACK, "peer-stalled"}:
                self._failures.setdefault(peer, []).append(error.code)
            elif error is None:
                self._failures.pop(peer, None)

    # --- sending ------------------------------------------------------------------------------------------------------
    async def serve(
        self,
        channel: Channel,
        stream: Stream,
        request: OpenLanes,
        *,
        loaded: Loaded,
        sources: Sources,
        opened: list[SendingLanes],
    ) -> None:
        """Open what a recipient asked for, and keep it open until they end it; meanwhile it is in ``opened``.

        Raises:
            RefusedError: ``no-lanes``, ``lane-keys-changed``.
        """
        if self._workers is None:
            raise RefusedError(LANES_OFF, "This node has no lanes.")
        with self._core.database.begin() as tx:
            listing = statements.body(tx, loaded.listing.body.body) or b""
        if channel.dialled and any(others.generation == request.generation for others in opened):
            await channel.rekey()  # these may take the place of worn ones: they are asked for again, under new keys
        peer = channel.peer_key.hex()
        if sum(len(item.legs) for item in self.outgoing.values() if item.peer == peer) + len(request.lanes) > _LANES_OF_A_PEER:
            raise RefusedError("too-much-at-once", "You have too many lanes open at this node.", hint="It goes on by itself.")
        outgoing = self.outgoing.get(request.transfer) or Outgoing(peer=peer, address=channel.remote_address[0])
        lanes = SendingLanes(
            outgoing=outgoing,
            workers=self._workers,
            channel=channel,
            line=loaded.line,
            sources=msgspec.msgpack.encode(sources),
            listing=listing,
            watch=_Watch(self, transfer=request.transfer, peer=peer),
        )
        opened.append(lanes)
        own = self.limits(request.transfer)
        outgoing.choose(own.rate_bytes_s, own.priority)
        self.outgoing[request.transfer] = outgoing
        try:
            answer = lanes.open(request)
            self._paths[request.transfer] = _path("lanes", "", _CIPHERS[request.cipher])
            await stream.send(encode(answer))
            await lanes.follow(stream)
        except UnavailableError as error:
            code = error.code if error.code == "lane-keys-changed" else LANES_OFF
            raise RefusedError(code, error.message) from error
        finally:
            lanes.close()
            opened.remove(lanes)
            if not outgoing.groups and self.outgoing.get(request.transfer) is outgoing:
                del self.outgoing[request.transfer]
                self._paths.pop(request.transfer, None)

    def close(self) -> None:
        """The workers end."""
        if self._workers is not None:
            self._workers.close()


class _Watch(NamedTuple):
    """Counts what happens to the lanes of a transfer; the node writes it into the trail now and then, however much it is."""

    bulk: Bulk
    transfer: str
    peer: str

    def forged(self, count: int) -> None:
        self.bulk.forged[self.peer] += count

    def moved(self, before: str, address: str) -> None:
        first, _ = self.bulk.moved.get(self.transfer, (before, ""))
        self.bulk.moved[self.transfer] = (first, address)


def _path(plane: str, reason: str, cipher: str) -> Path:
    return Path(route="direct", relay="", plane=plane, plane_reason=reason, cipher=cipher)  # type: ignore[arg-type]
