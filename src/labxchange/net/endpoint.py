"""One node's end of the network: a listening port, the calls it makes, and the gate before both.

Rules kept here: no state for an address that did not answer a Retry; at most 256 connections before m4, 8 an address (/64 for
IPv6), 10 s each, the oldest dropped without a word; no reply larger than what asked for it; whatever a stranger sends ends at
most its own connection. Who is welcome is decided by the node (``Authority.admit``); lanes share the port but not this code:
datagrams without QUIC's fixed bit are ignored.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections import Counter
from collections.abc import Mapping
from typing import Literal, Protocol

import msgspec
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE
from aioquic.quic.packet import (
    QuicPacketType,
    QuicProtocolVersion,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.retry import QuicRetryTokenHandler
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from labxchange.errors import InputError, LabxchangeError, PeerError, RefusedError, UnavailableError
from labxchange.identity.card import Card
from labxchange.identity.invitation import Invitation
from labxchange.identity.keys import Identity
from labxchange.identity.statement import Signed
from labxchange.net.channel import Channel
from labxchange.net.link import Link
from labxchange.net.network import Datagrams, Network, OnBatch, Slot, UdpAddress, UdpPort
from labxchange.net.quic import BoundedConnection, client_configuration, server_configuration
from labxchange.wire.control import session as wire
from labxchange.wire.control.handshake import NONCE_BYTES, Initiator, Peer, Responder, answer_rekey

HALF_OPEN_MAX = 256
HALF_OPEN_PER_SOURCE = 8
DIAL_TIMEOUT_S = 10.0
_FIXED_BIT = 0x40
_LONG_HEADER = 0x80
_RETRY_BITS = 0xF0
_ID_BYTES = 8
_ADDRESSES_MAX = 4


class Authority(Protocol):
    """What the node decides for its endpoint."""

    @property
    def identity(self) -> Identity:
        """The unlocked keys; raises NodeLocked, and then callers are dropped without a word."""
        ...

    def card(self) -> bytes:
        """The envelope of the newest own card."""
        ...

    def kinds(self) -> dict[str, int]:
        """Highest version of each statement kind that is known here."""
        ...

    async def admit(self, peer_key: bytes, card: Signed[Card], *, invitation_id: bytes, proof: bytes, th1: bytes) -> None:
        """A caller proved its key: return, or raise RefusedError with the code it is told."""
        ...

    def on_channel(self, channel: Channel) -> None:
        """A caller was admitted. (A dialled channel is ``dial``'s result.)"""
        ...

    def on_stranger(self, address: UdpAddress, reason: str) -> None:
        """A caller was dropped before it proved a welcome key; comes often under attack: count, do not log each."""
        ...


class _Call:
    """A dial under way."""

    def __init__(self, expected_key: bytes, invitation: Invitation | None) -> None:
        self.expected_key = expected_key
        self.invitation = invitation
        self.heard = False
        self.ready: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()


class Gate(msgspec.Struct):
    """Counters of the listening port."""

    retries: int = 0
    accepted: int = 0
    dropped: int = 0
    faults: int = 0


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "host:port" or "[ipv6]:port"; raises InputError ``address-malformed``."""
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise InputError("address-malformed", f"{address!r} is not an address of the form host:port.")
    return host, int(port)


def _source(address: UdpAddress) -> bytes:
    ip = ipaddress.ip_address(address[0].partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.packed[:8]


def _connection_id(data: bytes) -> bytes:
    if len(data) > 6 and data[0] & _LONG_HEADER:
        return data[6 : 6 + data[5]]
    return data[1 : 1 + _ID_BYTES]


def _encapsulate(key: bytes) -> tuple[bytes, bytes]:
    return MLKEM768PublicKey.from_public_bytes(key).encapsulate()


def _answer_rekey(lane: bytes, offer: bytes) -> tuple[bytes, bytes]:
    return answer_rekey(lane, offer, x25519=X25519PrivateKey.generate(), encapsulate=_encapsulate)


class Endpoint:
    """Listens and dials; see the module."""

    def __init__(self, *, network: Network, authority: Authority) -> None:
        self._network = network
        self._authority = authority
        self._server = server_configuration()
        self._retry = QuicRetryTokenHandler()
        self._port: UdpPort | None = None
        self._lane_sockets: Mapping[int, Slot] = {}
        self._links: dict[bytes, Link] = {}
        self._ids: dict[Link, set[bytes]] = {}
        self._half_open: dict[Link, bytes] = {}
        self._sources: Counter[bytes] = Counter()
        self._calls: dict[Link, _Call] = {}
        self._dialled: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.gate = Gate()

    # what the node asks

    async def listen(self, host: str, port: int, *, workers: int = 0) -> int:
        """Open the listening port, with a socket for each lane worker, and return its number.

        Raises:
            UnavailableError: ``port-unavailable``.
        """
        if self._port is not None:
            raise RuntimeError("an endpoint listens once")
        self._port, self._lane_sockets = self._network.open_group(host, port, self._on_batch, workers=workers)
        return self._port.address[1]

    @property
    def lane_sockets(self) -> Mapping[int, Slot]:
        """By worker slot (from 1): the socket that every process in this slot inherits, and its port. Empty: no lanes here.

        They are open from ``listen`` to ``close``, whatever becomes of a worker; in between nobody may close one.
        """
        return self._lane_sockets

    async def dial(
        self,
        address: str,
        expected_key: bytes,
        *,
        invitation: Invitation | None = None,
        timeout_s: float = DIAL_TIMEOUT_S,
    ) -> Channel:
        """Connect to the node with ``expected_key`` at "host:port", trying up to four addresses of the host.

        Raises:
            InputError: ``address-malformed``, ``own-key``, ``invitation-other-key``.
            UnavailableError: ``unknown-host``, ``peer-unreachable`` (nothing came back), ``peer-silent`` (its port answers, the
                handshake does not end), ``peer-closed`` (it ended the handshake without a word: another node, or busy).
            RefusedError: the code that the other node gave.
            PeerError: ``wrong-peer``, ``handshake-failed``.
        """
        host, port = split_address(address)
        self._initiator(_Call(expected_key, invitation), certificate_digest=b"")
        addresses = (await self._network.resolve(host, port))[:_ADDRESSES_MAX]
        failure: LabxchangeError = UnavailableError("unknown-host", f"No machine is known under the name {host!r}.")
        for position, resolved in enumerate(addresses):
            share_s = timeout_s / (len(addresses) - position)
            started_at = asyncio.get_running_loop().time()
            try:
                return await self._dial_one(resolved, _Call(expected_key, invitation), timeout_s=share_s)
            except UnavailableError as error:
                failure = error
            timeout_s -= asyncio.get_running_loop().time() - started_at
        raise failure

    async def probe(self, address: str, *, timeout_s: float = 3.0) -> Literal["retry", "nothing"]:
        """Knock at a node's port: does it answer as one of ours would? It leaves no state there."""
        host, port = split_address(address)
        answered = asyncio.Event()

        def on_batch(batch: Datagrams) -> None:
            if any(data and data[0] & _RETRY_BITS == _RETRY_BITS for data, _ in batch):
                answered.set()

        for resolved in (await self._network.resolve(host, port))[:_ADDRESSES_MAX]:
            udp = self._open_towards(resolved, on_batch)
            quic = BoundedConnection(configuration=client_configuration())
            try:
                now = asyncio.get_running_loop().time()
                quic.connect(resolved, now=now)
                initial = quic.datagrams_to_send(now=now)
                for _ in range(3):
                    udp.send(initial)
                    try:
                        async with asyncio.timeout(timeout_s / 3):
                            await answered.wait()
                    except TimeoutError:
                        continue
                    return "retry"
            finally:
                udp.close()
                quic.discard()
        return "nothing"

    async def close(self) -> None:
        """End every connection and close every port."""
        for link in [*self._ids, *self._dialled]:
            if link.channel is not None:
                link.channel.close("")
            link.discard("closed")
        for task in list(self._tasks):
            task.cancel()
        if self._port is not None:
            self._port.close()
            self._port = None
        for slot in self._lane_sockets.values():
            slot.socket.close()
        self._lane_sockets = {}

    # dialling

    def _open_towards(self, address: UdpAddress, on_batch: OnBatch) -> UdpPort:
        host = "::" if ":" in address[0] else "0.0.0.0"  # noqa: S104
        return self._network.open_udp(host, 0, on_batch)

    async def _dial_one(self, address: UdpAddress, call: _Call, *, timeout_s: float) -> Channel:
        links: list[Link] = []

        def on_batch(batch: Datagrams) -> None:
            call.heard = True
            for data, source in batch:
                self._receive(links[0], data, source)
            self._pump(links[0])

        port = self._open_towards(address, on_batch)
        quic = BoundedConnection(configuration=client_configuration())
        link = Link(self, quic, port, dialled=True, deadline_s=timeout_s + 1.0)
        links.append(link)
        self._calls[link] = call
        self._dialled.add(link)
        quic.connect(address, now=link.started_at)
        link.pump()
        try:
            async with asyncio.timeout(timeout_s):
                return await call.ready
        except TimeoutError:
            if call.heard:
                raise UnavailableError(
                    "peer-silent",
                    f"The node at {address[0]} port {address[1]} was heard but did not go on.",
                    hint="Try again later.",
                ) from None
            raise UnavailableError(
                "peer-unreachable",
                f"Nothing came back from {address[0]} port {address[1]} (UDP).",
                hint="Check that the node runs there and that its UDP port is open in the firewall.",
            ) from None
        finally:
            self._calls.pop(link, None)
            if link.channel is None or not link.channel.is_open:
                link.close("")
                link.discard("not-connected")

    def _initiator(self, call: _Call, *, certificate_digest: bytes) -> Initiator:
        return Initiator(
            self._authority.identity,
            card=self._authority.card(),
            kinds=self._authority.kinds(),
            responder_key=call.expected_key,
            certificate_digest=certificate_digest,
            nonce=secrets.token_bytes(NONCE_BYTES),
            x25519=X25519PrivateKey.generate(),
            mlkem=MLKEM768PrivateKey.generate(),
            invitation=call.invitation,
        )

    # listening

    def _on_batch(self, batch: Datagrams) -> None:
        touched: dict[Link, None] = {}
        for data, address in batch:
            if not data or not data[0] & _FIXED_BIT:
                continue
            link = self._links.get(_connection_id(data)) or self._new_link(data, address)
            if link is not None:
                self._receive(link, data, address)
                touched[link] = None
        for link in touched:
            self._pump(link)

    def _receive(self, link: Link, data: bytes, address: UdpAddress) -> None:
        try:
            link.receive(data, address)
        except Exception:
            self._fault(link)

    def _pump(self, link: Link) -> None:
        try:
            link.pump()
        except Exception:
            self._fault(link)

    def _fault(self, link: Link) -> None:
        # aioquic failed on what a stranger or a peer sent: that costs this connection and nothing else.
        self.gate.faults += 1
        link.discard("quic-fault")

    def _new_link(self, data: bytes, address: UdpAddress) -> Link | None:
        if len(data) < SMALLEST_MAX_DATAGRAM_SIZE or not data[0] & _LONG_HEADER or self._port is None:
            return None
        try:
            header = pull_quic_header(Buffer(data=data), host_cid_length=_ID_BYTES)
        except ValueError:
            return None
        if header.packet_type == QuicPacketType.VERSION_NEGOTIATION or header.version is None:
            return None
        if header.version != QuicProtocolVersion.VERSION_1:
            answer = encode_quic_version_negotiation(
                source_cid=header.destination_cid,
                destination_cid=header.source_cid,
                supported_versions=self._server.supported_versions,
            )
            self._port.send([(answer, address)])
            return None
        if header.packet_type != QuicPacketType.INITIAL:
            return None
        now = asyncio.get_running_loop().time()
        if not header.token:
            self._send_retry(header.source_cid, header.destination_cid, address, now=now)
            return None
        try:
            original_id = self._retry.validate_token(
                address=address, destination_cid=header.destination_cid, token=header.token, now=now
            )
        except ValueError:
            return None
        return self._accept(original_id, header.destination_cid, address)

    def _send_retry(self, source_cid: bytes, destination_cid: bytes, address: UdpAddress, *, now: float) -> None:
        assert self._port is not None
        chosen = secrets.token_bytes(_ID_BYTES)
        token = self._retry.create_token(
            address=address,
            original_destination_connection_id=destination_cid,
            retry_source_connection_id=chosen,
            now=now,
        )
        answer = encode_quic_retry(
            version=QuicProtocolVersion.VERSION_1,
            source_cid=chosen,
            destination_cid=source_cid,
            original_destination_cid=destination_cid,
            retry_token=token,
        )
        self.gate.retries += 1
        self._port.send([(answer, address)])

    def _accept(self, original_id: bytes, retry_id: bytes, address: UdpAddress) -> Link:
        assert self._port is not None
        source = _source(address)
        if self._sources[source] >= HALF_OPEN_PER_SOURCE:
            next(link for link, other in self._half_open.items() if other == source).discard("too-many-callers")
        elif len(self._half_open) >= HALF_OPEN_MAX:
            next(iter(self._half_open)).discard("too-many-callers")
        quic = BoundedConnection(
            configuration=self._server,
            original_destination_connection_id=original_id,
            retry_source_connection_id=retry_id,
        )
        link = Link(self, quic, self._port, dialled=False, deadline_s=wire.HANDSHAKE_TIMEOUT_S)
        link.address = address
        self._half_open[link] = source
        self._sources[source] += 1
        self.gate.accepted += 1
        self._ids[link] = set()
        for connection_id in (retry_id, quic.host_cid):
            self.link_id(link, connection_id, valid=True)
        return link

    async def _decide(self, link: Link, peer: Peer) -> None:
        try:
            await self._authority.admit(peer.key, peer.card, invitation_id=peer.invitation_id, proof=peer.proof, th1=peer.th1)
            code = ""
        except LabxchangeError as error:
            code = error.code if isinstance(error, RefusedError) else "unavailable"
        session = link.session
        if session is None or session.phase is not wire.Phase.DECIDING:
            return
        if code:
            session.refuse(code)
        else:
            session.accept()
        self._pump(link)

    # told by links

    def link_session(self, link: Link) -> wire.Session:
        """TLS is done: begin the handshake, on the side that this is."""
        digest = link.quic.certificate_digest
        machine: Initiator | Responder
        if link.dialled:
            call = self._calls.get(link)
            if call is None:
                raise UnavailableError("channel-closed", "The call was given up.")
            machine = self._initiator(call, certificate_digest=digest)
        else:
            machine = Responder(
                self._authority.identity,
                card=self._authority.card(),
                kinds=self._authority.kinds(),
                certificate_digest=digest,
                nonce=secrets.token_bytes(NONCE_BYTES),
                x25519=X25519PrivateKey.generate(),
                encapsulate=_encapsulate,
            )
        return wire.Session(machine, now=link.started_at, make_rekey_answer=_answer_rekey)

    def link_proven(self, link: Link, peer: Peer) -> None:
        """Ask the node whether the caller is welcome."""
        task = asyncio.get_running_loop().create_task(self._decide(link, peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def link_ready(self, link: Link, channel: Channel) -> None:
        """A channel exists: hand it to the dialler or to the node."""
        self._no_longer_half_open(link)
        call = self._calls.get(link)
        if call is not None and not call.ready.done():
            call.ready.set_result(channel)
        elif not link.dialled:
            self._authority.on_channel(channel)

    def link_ended(self, link: Link) -> None:
        """A link ends: a dial that waits for it fails."""
        call = self._calls.get(link)
        if call is not None and not call.ready.done():
            call.ready.set_exception(link.error or _ended_early(link))

    def link_over(self, link: Link) -> None:
        """A link is gone: forget its ids, close its port."""
        for connection_id in self._ids.pop(link, ()):
            self._links.pop(connection_id, None)
        if self._no_longer_half_open(link):
            self.gate.dropped += 1
            refused = link.closed is not None and link.closed.whose == "us"
            if not refused:
                reason = link.error.code if link.error is not None else link.closed.code if link.closed is not None else ""
                self._authority.on_stranger(link.address, reason or "gave-up")
        if link.dialled:
            self._dialled.discard(link)
            link.port.close()

    def link_id(self, link: Link, connection_id: bytes, *, valid: bool) -> None:
        """Connection ids of links of the listening port."""
        ids = self._ids.get(link)
        if ids is None:
            return
        if valid:
            ids.add(connection_id)
            self._links[connection_id] = link
        else:
            ids.discard(connection_id)
            self._links.pop(connection_id, None)

    def _no_longer_half_open(self, link: Link) -> bool:
        source = self._half_open.pop(link, None)
        if source is None:
            return False
        self._sources[source] -= 1
        if not self._sources[source]:
            del self._sources[source]
        return True


def _ended_early(link: Link) -> LabxchangeError:
    if link.closed is not None and link.closed.whose == "peer" and link.error is None:
        return UnavailableError(
            "peer-closed",
            "The node at this address ended the handshake without a word.",
            hint="It may be another node than the one you dial, locked, or busy: check the address with its owner.",
        )
    return PeerError("handshake-failed", "The connection to the other node ended during the handshake.")
