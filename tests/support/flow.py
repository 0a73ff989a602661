"""Batches from one lane socket to another in one process: datagrams a call, and CPU microseconds a datagram.

Sender and receiver take turns in one thread, so the figures depend little on who else is busy. A batch is far less than what an
untuned kernel's receive buffer holds, so nothing here makes loss likely; but a kernel may drop a datagram when it is short of
memory for a moment, so it is counted.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from labxchange.net.lane_socket import ROW_BYTES, SEND_BYTES_MAX, LaneSocket

BATCH_DATAGRAMS = 44
_LOST_AFTER_S = 1.0


class Flow(NamedTuple):
    """What ``carry`` measured."""

    datagrams: int
    lost: int
    sent_a_call: float
    received_a_call: float
    send_us: float
    receive_us: float

    def __str__(self) -> str:
        return (
            f"{self.sent_a_call:5.1f} sent and {self.received_a_call:5.1f} received a call, "
            f"{self.send_us:5.2f} us sending and {self.receive_us:5.2f} us receiving a datagram"
        )


def carry(sender: LaneSocket, receiver: LaneSocket, *, slot: int, segment_bytes: int, batches: int) -> Flow:
    """Send batches of datagrams that begin with the slot's byte, and receive each before the next is sent."""
    size = min(BATCH_DATAGRAMS, SEND_BYTES_MAX // segment_bytes)
    buffer = memoryview(bytearray(bytes([slot]) + bytes(segment_bytes - 1)) * size)
    row = memoryview(bytearray(ROW_BYTES))
    send_s = receive_s = 0.0
    lost = 0
    clock = time.thread_time
    for _ in range(batches):
        begun_at = clock()
        assert sender.send(buffer, segment_bytes) == size
        send_s += clock() - begun_at
        missing_bytes = len(buffer)
        while missing_bytes > 0 and receiver.wait(_LOST_AFTER_S):
            begun_at = clock()
            while (received := receiver.receive_into(row)) is not None:
                missing_bytes -= received[0]
            receive_s += clock() - begun_at
        lost += missing_bytes // segment_bytes
    datagrams = batches * size
    return Flow(
        datagrams,
        lost,
        sender.sent_datagrams / sender.sent_calls,
        receiver.received_datagrams / receiver.received_calls,
        send_s / datagrams * 1e6,
        receive_s / datagrams * 1e6,
    )
