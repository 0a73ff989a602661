"""aioquic with windows that hold: what is not consumed here stops the sender, whoever it is.

aioquic raises its windows by the offsets it receives, before any event, so a few bytes behind a hole make it hold hundreds of
megabytes. ``BoundedConnection`` replaces the two methods that do so: a window is "consumed by us + window" and never grows by
itself - 8 KiB and one stream before ``admit``, 4 MiB after. Rules kept here: no session tickets, no 0-RTT, one QUIC version, a
TLS key made at start and never stored. Certificates are not judged: the handshake inside binds the one that was seen.

Private names of aioquic that are used here are listed in ``PRIVATE_NAMES``, and a test fails when one of them moves.
"""

from __future__ import annotations

import datetime
import ssl
from hashlib import sha256

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.congestion.cubic import K_CUBIC_MAX_IDLE_TIME, CubicCongestionControl
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicFrameType, QuicProtocolVersion
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from labxchange.wire.control.handshake import ALPN
from labxchange.wire.data.congestion.start import START_BYTES_S

WINDOW_BEFORE_BYTES = 8 << 10
WINDOW_BYTES = 4 << 20
STREAM_WINDOW_BYTES = (1 << 20) + (1 << 18)
STREAMS_MAX = 256
"""At once. A transfer asks for a dozen ranges at a time, each by a stream; beyond the limit the first transfers leave nothing to
the others. How much they may hold together is the connection's window."""
DATAGRAM_BYTES = 1232
"""UDP payload that every IPv6 path carries (1,280 less both headers)."""
_PACKETS_BEFORE, _PACKETS_PROVEN, _PACKETS_MAX = 10, 32, 256
"""What a connection may begin with: to a proven peer as much as a lane, within these bounds."""
IDLE_TIMEOUT_S = 30.0
_PROBE_MAX_S = 2.0
_VARINT_MAX_BYTES = 8
_TLS_BUFFER_BYTES = 4096

PRIVATE_NAMES = {
    "QuicConnection": (
        "_initialize",
        "_crypto_buffers",
        "_write_connection_limits",
        "_write_stream_limits",
        "_on_connection_limit_delivery",
        "_on_max_stream_data_delivery",
        "_local_max_data",
        "_local_max_streams_bidi",
        "_local_max_streams_uni",
        "_streams",
        "_loss",
    ),
    "QuicPacketRecovery": ("_pto_count", "_cc", "_rtt_smoothed"),
    "Context": ("_peer_certificate",),
    "QuicStreamSender": ("_buffer", "_pending", "_reset_error_code"),
}


def server_configuration() -> QuicConfiguration:
    """What a listening node shows in TLS: a fresh key and a certificate that names nobody."""
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "labxchange")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .sign(key, None)
    )
    configuration = _configuration(is_client=False)
    configuration.certificate = certificate
    configuration.private_key = key
    return configuration


def client_configuration() -> QuicConfiguration:
    """What a dialling node uses: no server name, no judgement of the certificate."""
    return _configuration(is_client=True)


def _configuration(*, is_client: bool) -> QuicConfiguration:
    return QuicConfiguration(
        is_client=is_client,
        alpn_protocols=[ALPN],
        congestion_control_algorithm="cubic",
        idle_timeout=IDLE_TIMEOUT_S,
        max_data=WINDOW_BEFORE_BYTES,
        max_stream_data=WINDOW_BEFORE_BYTES,
        max_datagram_size=DATAGRAM_BYTES,
        supported_versions=[QuicProtocolVersion.VERSION_1],
        verify_mode=ssl.CERT_NONE,
    )


class BoundedConnection(QuicConnection):
    """A QUIC connection whose peer can make it hold no more than its windows."""

    def __init__(
        self,
        *,
        configuration: QuicConfiguration,
        original_destination_connection_id: bytes | None = None,
        retry_source_connection_id: bytes | None = None,
    ) -> None:
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original_destination_connection_id,
            retry_source_connection_id=retry_source_connection_id,
        )
        self._window = self._stream_window = WINDOW_BEFORE_BYTES
        self._consumed_bytes = 0
        self._consumed: dict[int, int] = {}
        for limit, value in (
            (self._local_max_streams_bidi, 0 if configuration.is_client else 1),
            (self._local_max_streams_uni, 0),
        ):
            limit.value = limit.sent = value

    # what the caller says

    def admit(self) -> None:
        """The peer is proven: full windows."""
        self._window = WINDOW_BYTES
        self._stream_window = STREAM_WINDOW_BYTES
        self._local_max_streams_bidi.value += STREAMS_MAX
        self._begin()

    def consume(self, stream_id: int, count: int) -> None:
        """``count`` bytes of a stream were used up here, so the peer may send as many more."""
        if len(self._consumed) > 8 * STREAMS_MAX:
            self._consumed = {known: count for known, count in self._consumed.items() if known in self._streams}
        self._consumed[stream_id] = self._consumed.get(stream_id, 0) + count
        self._consumed_bytes += count

    def consume_rest(self, stream_id: int) -> None:
        """Whatever the peer sent or will not send on a stream that it reset counts as consumed."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            rest = stream.receiver.highest_offset - self._consumed.get(stream_id, 0)
            if rest > 0:
                self.consume(stream_id, rest)

    def put(self, stream_id: int, data: bytes, *, end: bool) -> None:
        """Hand over bytes of a stream; what the peer no longer wants is dropped."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.sender._reset_error_code is None:
            self.send_stream_data(stream_id, data, end_stream=end)

    def give_up(self, stream_id: int, code: int) -> None:
        """Send nothing more of a stream."""
        if stream_id in self._streams:
            self.reset_stream(stream_id, code)

    def stop_receiving(self, stream_id: int, code: int) -> None:
        """Ask the peer to send nothing more of a stream."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.receiver.is_finished:
            self.stop_stream(stream_id, code)

    # what the caller asks

    @property
    def certificate_digest(self) -> bytes:
        """SHA-256 of the DER of the server's certificate, as seen or as sent; only once the TLS handshake is complete."""
        certificate = self.tls._peer_certificate if self.configuration.is_client else self.configuration.certificate
        assert certificate is not None
        return sha256(certificate.public_bytes(Encoding.DER)).digest()

    @property
    def unacknowledged_bytes(self) -> int:
        """Bytes handed over and not acknowledged, all streams."""
        return sum(len(stream.sender._buffer) for stream in self._streams.values())

    def is_moving(self, stream_id: int) -> bool:
        """True while a stream has bytes that were never sent and that its own window lets go."""
        stream = self._streams.get(stream_id)
        if stream is None or len(stream.sender._pending) == 0:
            return False
        return stream.sender._pending[0].start < stream.max_stream_data_remote

    def is_blocked(self, stream_id: int) -> bool:
        """True while the peer allows no further stream."""
        stream = self._streams.get(stream_id)
        return stream is not None and stream.is_blocked

    def cap_probe_timeout(self) -> None:
        """Bound the doubling of the probe timeout: after a silence one small packet goes each two seconds, not each minute."""
        timeout = self._loss.get_probe_timeout()
        while self._loss._pto_count > 0 and timeout * 2**self._loss._pto_count > _PROBE_MAX_S:
            self._loss._pto_count -= 1

    def keep_window(self, now: float) -> None:
        """Let a connection always send what one may begin with (ten packets, RFC 9002; to a proven peer as many as a lane): on a
        path that loses some by chance the window shrinks to two, and then each small answer takes three round trips; and lists of
        many files would take seven to grow to. After a pause it begins anew: aioquic would, with ten packets, at each one that it
        sends until one is acknowledged."""
        proven, control = self._window == WINDOW_BYTES, self._loss._cc
        assert isinstance(control, CubicCongestionControl)
        if proven and 0.0 < control.last_ack <= now - K_CUBIC_MAX_IDLE_TIME:
            control.reset()
            control.last_ack = 0.0
            self._begin()
        self._widen(_PACKETS_PROVEN if proven else _PACKETS_BEFORE)

    def _begin(self) -> None:
        self._widen(min(int(START_BYTES_S * self._loss._rtt_smoothed) // DATAGRAM_BYTES, _PACKETS_MAX))

    def _widen(self, packets: int) -> None:
        control = self._loss._cc
        control.congestion_window = max(control.congestion_window, packets * DATAGRAM_BYTES)

    def discard(self) -> None:
        """Take the object apart, so that its memory is free at once: it is full of cycles, and strangers make many."""
        tls = self.__dict__.get("tls")
        if tls is not None:
            tls.__dict__.clear()
        self.__dict__.clear()

    # in place of aioquic's

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        # What TLS says here is under 2 KiB; aioquic's three buffers of 16 KiB are most of what a half-open connection costs.
        self._crypto_buffers = {epoch: Buffer(capacity=_TLS_BUFFER_BYTES) for epoch in self._crypto_buffers}

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        data, streams = self._local_max_data, self._local_max_streams_bidi
        target = self._consumed_bytes + self._window
        if target - data.value >= self._window // 4:
            data.value = target
        for limit, wait in ((data, False), (streams, streams.sent - streams.used >= streams.value - streams.sent)):
            if limit.value != limit.sent and not wait:
                buf = builder.start_frame(
                    limit.frame_type,
                    capacity=1 + _VARINT_MAX_BYTES,
                    handler=self._on_connection_limit_delivery,
                    handler_args=(limit,),
                )
                buf.push_uint_var(limit.value)
                limit.sent = limit.value

    def _write_stream_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream) -> None:
        stream_id = stream.stream_id
        if stream_id is None or stream.is_blocked or stream.receiver.is_finished:
            return
        target = self._consumed.get(stream_id, 0) + self._stream_window
        if target - stream.max_stream_data_local >= self._stream_window // 4:
            stream.max_stream_data_local = target
        if stream.max_stream_data_local_sent != stream.max_stream_data_local:
            buf = builder.start_frame(
                QuicFrameType.MAX_STREAM_DATA,
                capacity=1 + 2 * _VARINT_MAX_BYTES,
                handler=self._on_max_stream_data_delivery,
                handler_args=(stream,),
            )
            buf.push_uint_var(stream_id)
            buf.push_uint_var(stream.max_stream_data_local)
            stream.max_stream_data_local_sent = stream.max_stream_data_local
