"""The one listening port: a UDP socket for QUIC and one for each lane worker, all on the same address and port.

The kernel looks at a datagram's first byte and picks the socket, so a firewall has one port to open and no byte is copied between
processes. Bit 0x40 set is QUIC (its fixed bit, RFC 9000 section 17.2 and 17.3); otherwise the byte is the slot of a worker, 1 to
63, as in the header of every lane; a byte without a worker goes to QUIC's socket, where it is dropped. A classic BPF program does
the choosing (``SO_ATTACH_REUSEPORT_CBPF``, socket(7)); it needs no privilege.

Rules kept here: every socket is open before any is used, and none is connected. A slot is a socket's place in the order of
binding, and closing one would move another into its place, so all are kept, and closed together; a worker inherits a copy, and
so does its replacement. Every socket joins datagrams (UDP_GRO), QUIC's and idle ones too: while it joins, the kernel does not ask
the program but picks a socket by a hash of the flow (udp4_lib_lookup_skb in net/ipv4/udp.c hands on no packet), and joins only if
that one has UDP_GRO set. (Measured: with one of five sockets left out, about a fifth of all flows arrived one by one.)

Where the kernel has no such program, the portable way: QUIC on the port, worker n on port + n. Left to others: what is read, and
handing the sockets to workers.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
import sys

from labxchange.errors import UnavailableError
from labxchange.net.lane_socket import join_received
from labxchange.net.network import Slot

WORKERS_MAX = 63
"""The last byte without the bit 0x40, which every QUIC datagram has."""
_SO_ATTACH_REUSEPORT_CBPF = 51
_ATTEMPTS = 16
# linux/bpf_common.h
_LOAD_BYTE = 0x30
_IF_GREATER = 0x25
_RETURN = 0x06
_RETURN_LOADED = 0x16


def open_group(host: str, port: int, *, workers: int, steered: bool = True) -> tuple[Slot, ...]:
    """Slot 0 for QUIC and one for each worker, by number; ``host`` "" is every address of this machine.

    With ``port`` 0 a free one is chosen; ``steered`` False takes the portable way.

    Raises:
        UnavailableError: ``port-unavailable``; also when another node of the same user has the port.
    """
    if not 0 <= workers <= WORKERS_MAX:
        raise ValueError(f"{workers} workers do not fit into a group")
    try:
        return _open_on(host or "::", port, workers=workers, steered=steered)
    except OSError as error:
        # The port is taken there; it may not be taken on IPv4, but then we would be half of what was asked for.
        if host or error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise _unavailable(host, port, error) from None
    try:
        return _open_on("0.0.0.0", port, workers=workers, steered=steered)  # noqa: S104
    except OSError as error:
        raise _unavailable(host, port, error) from None


def close_group(slots: tuple[Slot, ...]) -> None:
    """Close every socket of a group."""
    for slot in slots:
        slot.socket.close()


def _unavailable(host: str, port: int, error: OSError) -> UnavailableError:
    return UnavailableError(
        "port-unavailable",
        f"UDP port {port} on {host or 'this machine'} cannot be opened: {error.strerror}.",
        hint="Choose another port, or stop the program that uses this one.",
    )


def _open_on(host: str, port: int, *, workers: int, steered: bool) -> tuple[Slot, ...]:
    if not workers:
        return (_bind(host, port, shared=False),)
    if steered and sys.platform.startswith("linux"):
        try:
            return _open_steered(host, port, workers)
        except OSError as error:
            if error.errno not in (errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EINVAL):
                raise
    return _open_range(host, port, workers)


def _open_steered(host: str, port: int, workers: int) -> tuple[Slot, ...]:
    # The first has its program, and with it a group of its own, before it is bound. Linux lets such a socket join no other group
    # (udp_lib_lport_inuse in net/ipv4/udp.c looks at sk_reuseport_cb), so a port that another node of this user holds is "in
    # use", and a free one is chosen among those that nobody holds. The rest then join the first. No socket of another user
    # can: the kernel compares effective user ids (the same function; socket(7), SO_REUSEPORT).
    slots = [_bind(host, port, shared=True, program=_selector(workers))]
    try:
        for _ in range(workers):
            slots.append(_bind(host, slots[0].port, shared=True))
    except OSError:
        close_group(tuple(slots))
        raise
    return tuple(slots)


def _open_range(host: str, port: int, workers: int) -> tuple[Slot, ...]:
    for attempt in range(1, _ATTEMPTS + 1):
        slots = [_bind(host, port, shared=False)]
        try:
            for number in range(1, workers + 1):
                if slots[0].port + number > 65_535:
                    raise OSError(errno.EADDRINUSE, f"the {workers} ports above it do not exist")
                slots.append(_bind(host, slots[0].port + number, shared=False))
        except OSError as error:
            close_group(tuple(slots))
            if port or attempt == _ATTEMPTS:
                raise OSError(error.errno, f"port {slots[0].port + len(slots)} above it: {error.strerror}") from None
        else:
            return tuple(slots)
    raise AssertionError("the last attempt returns or raises")


def _bind(host: str, port: int, *, shared: bool, program: bytes = b"") -> Slot:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        if host == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            join_received(sock, join=True)
        if program:
            _attach(sock, program)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return Slot(sock, sock.getsockname()[1])


def _selector(workers: int) -> bytes:
    """The program: the place of the socket for a datagram, whose first byte is at 0. A load past the end returns 0."""
    program = (
        (_LOAD_BYTE, 0, 0, 0),
        # A byte with QUIC's bit is more than any number of workers.
        (_IF_GREATER, 1, 0, workers),
        (_RETURN_LOADED, 0, 0, 0),
        (_RETURN, 0, 0, 0),
    )
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _attach(sock: socket.socket, program: bytes) -> None:
    held = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: how many instructions of 8 bytes, and where they are
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, struct.pack("@HP", len(program) // 8, ctypes.addressof(held)))
