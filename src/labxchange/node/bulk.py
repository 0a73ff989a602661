"""Lanes for the transfers of this node: whether there are any, their opening on both sides, and falling back when they fail.

A transfer goes over lanes wherever they can be opened. Where not - the other node has none, a firewall lets only QUIC's flow
through, a worker keeps dying - it goes over sealed QUIC streams, slower, and the reason is written into trail and receipt. After
two failures in a row one attempt goes over QUIC. What may be sent is judged in ``serving``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec

from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.dataset.listing import Line
from labxchange.errors import PeerError, RefusedError, UnavailableError
from labxchange.files.quarantine import Quarantine
from labxchange.files.scan import Sources
from labxchange.net.channel import Channel, Stream
from labxchange.net.endpoint import Endpoint
from labxchange.node.catalog import Loaded
from labxchange.node.core import Core
from labxchange.node.refusals import Stated, refused
from labxchange.sharing.exchange import Path
from labxchange.store import statements
from labxchange.store.transfers import TransferRow
from labxchange.transfer.digests import ChunkDigests
from labxchange.transfer.lanes.fetching import LaneFetching
from labxchange.transfer.lanes.leg import Leg, chosen_cipher
from labxchange.transfer.lanes.process import Workers
from labxchange.transfer.lanes.sending import SendingLanes
from labxchange.transfer.streams import Fetching, Streams
from labxchange.wire.control.messages import OpenLanes, encode

_KEYS = "under X25519+ML-KEM-768"
QUIC_CIPHER = f"AES-256-GCM {_KEYS}, in QUIC (TLS 1.3)"
_CIPHERS = {"aes-256-gcm": f"AES-256-GCM {_KEYS}", "chacha20-poly1305": f"ChaCha20-Poly1305 {_KEYS}"}
_FALLS_BACK = frozenset({"lane-silent", "no-lane-port", "lane-keys-changed", "worker-ended", "peer-unreachable", "lane-closed"})
LANES_OFF = "no-lanes"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a person chose for a transfer: bytes a second (0: none), and how many lanes (0: as many as make it quick)."""

    rate_bytes_s: int = 0
    lanes: int = 0


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
        self._core = core
        self._workers = Workers(workers) if workers else None
        self._entry = entry
        self._failures: Counter[str] = Counter()
        self._receiving: dict[str, LaneFetching] = {}
        self._sending: dict[str, list[SendingLanes]] = {}
        self._limits: dict[str, Limits] = {}

    def listening(self, endpoint: Endpoint, port: int) -> None:
        """The listening port is open."""
        if self._workers is not None:
            self._workers.listen_on(endpoint.lane_sockets, port)
            self._workers.warm()

    def legs(self, transfer: str) -> list[Leg]:
        """The lanes of a transfer, for display."""
        fetching = self._receiving.get(transfer)
        return fetching.legs if fetching else [leg for lanes in self._sending.get(transfer, []) for leg in lanes.legs]

    async def limit(self, transfer: str, limits: Limits) -> None:
        """What a person chose; acts at once on what runs."""
        self._limits[transfer] = limits
        if transfer in self._receiving:
            await self._receiving[transfer].set_rate(limits.rate_bytes_s)
        for lanes in self._sending.get(transfer, []):
            lanes.set_own_rate(limits.rate_bytes_s)

    # --- receiving ----------------------------------------------------------------------------------------------------
    async def fetching(
        self, channel: Channel, row: TransferRow, line: Line, digests: ChunkDigests, quarantine: Quarantine
    ) -> tuple[Fetching, Path]:
        """A way to fetch, opened, and what the receipt says of it.

        Raises:
            RefusedError: the sender ended the transfer. PeerError: it broke the rules.
        """
        reason = LANES_OFF
        if self._workers is not None and self._failures[row.peer] < 2:
            lanes = self._lanes(channel, row, line, digests, quarantine)
            try:
                await lanes.open()
            except Stated as error:
                lanes.close()
                if error.code != LANES_OFF:
                    raise
            except UnavailableError as error:
                lanes.close()
                if error.code not in _FALLS_BACK:
                    raise
                reason = error.code
            except BaseException:
                lanes.close()
                raise
            else:
                self._receiving[row.transfer] = lanes
                return lanes, _path("lanes", "", _CIPHERS[lanes.cipher])
        elif self._workers is not None:
            self._failures[row.peer], reason = 0, "lane-failed"
        if self._workers is not None and reason != LANES_OFF:
            self._core.record(self._entry(Event.TRANSFER_FALLBACK, row, result="error", result_code=reason))
        quarantine.written_elsewhere = False
        streams = Streams(row.transfer, channel, line=line, digests=digests, quarantine=quarantine, refused=refused)
        return streams, _path("quic-stream", reason, QUIC_CIPHER)

    def _lanes(
        self, channel: Channel, row: TransferRow, line: Line, digests: ChunkDigests, quarantine: Quarantine
    ) -> LaneFetching:
        assert self._workers is not None
        limits = self._limits.get(row.transfer, Limits())
        return LaneFetching(
            row.transfer,
            channel,
            workers=self._workers,
            count=limits.lanes or 1,
            rate_bytes_s=limits.rate_bytes_s,
            random_bytes=self._core.random_bytes,
            line=line,
            digests=digests,
            destination=row.destination,
            quarantine=quarantine,
            refused=refused,
        )

    async def fetched(self, transfer: str, peer: str, fetching: Fetching, *, error: BaseException | None) -> None:
        """An attempt is over; ``error`` is how it failed. Returns when no worker writes any more."""
        self._receiving.pop(transfer, None)
        if isinstance(fetching, LaneFetching):
            await fetching.closed()
            failed = isinstance(error, UnavailableError | PeerError) and error.code in {*_FALLS_BACK, "peer-stalled"}
            self._failures[peer] = self._failures[peer] + 1 if failed else 0

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
            RefusedError: ``no-lanes``.
        """
        if self._workers is None:
            raise RefusedError(LANES_OFF, "This node has no lanes.")
        with self._core.database.begin() as tx:
            listing = statements.body(tx, loaded.listing.body.body) or b""
        lanes = SendingLanes(
            workers=self._workers,
            channel=channel,
            line=loaded.line,
            sources=msgspec.msgpack.encode(sources),
            listing=listing,
        )
        if opened and channel.dialled:  # these take the place of worn ones
            await channel.rekey()
        own = self._limits.get(request.transfer, Limits()).rate_bytes_s
        kept = self._sending.setdefault(request.transfer, [])
        opened.append(lanes)
        kept.append(lanes)
        try:
            answer = lanes.open(request, cipher=chosen_cipher(request.ciphers), own_rate_bytes_s=own)
            await stream.send(encode(answer))
            await lanes.follow(stream)
        except UnavailableError as error:
            raise RefusedError(LANES_OFF, error.message) from error
        finally:
            lanes.close()
            opened.remove(lanes)
            kept.remove(lanes)
            if not kept:
                self._sending.pop(request.transfer, None)

    def close(self) -> None:
        """The workers end."""
        if self._workers is not None:
            self._workers.close()


def _path(plane: str, reason: str, cipher: str) -> Path:
    return Path(route="direct", relay="", plane=plane, plane_reason=reason, cipher=cipher)  # type: ignore[arg-type]
