"""How much of what a lane sends goes out at once: little enough for the queues of the path, enough for what a batch costs here.

A batch costs the interpreter as much whatever it holds. So a loop that is late, as its machine has more to do than it can, makes
up for that in one batch and not in several. When a batch may go is left to ``sender``.
"""

from __future__ import annotations

from typing import Final

from labxchange.wire.data.datagram import BATCH_CALLS, CALL_DATAGRAMS, batch_rows

QUANTUM_S: Final = 0.001
_FAST_QUANTUM_S: Final = 0.0005
_FASTEST_BYTES_S: Final = 250e6
_SLOW_QUANTUM_S, _SLOW_DATAGRAMS = 0.002, 16
"""So much of the rate goes out at once: the first, of what fits into one system call, and from 2 Gbit/s on; the second where that
is more than a call; the last, up to so many datagrams, where the first is less."""
BURST_S: Final = 0.003
"""So late a batch is made up for."""


def datagrams_at_once(rate_bytes_s: float, *, late_s: float, window_bytes: float, size: int) -> int:
    """How many datagrams of ``size`` bytes a batch holds, at least one; whole system calls where they are more than one.

    Args:
        late_s: since the batch was due.
        window_bytes: that may be sent before something is acknowledged.
    """
    quantum_s = _FAST_QUANTUM_S if rate_bytes_s < _FASTEST_BYTES_S else QUANTUM_S
    paced = min(
        max(rate_bytes_s * QUANTUM_S, min(rate_bytes_s * _SLOW_QUANTUM_S, _SLOW_DATAGRAMS * size)),
        max(rate_bytes_s * quantum_s, CALL_DATAGRAMS * size),
    )
    paced += rate_bytes_s * min(max(late_s, 0.0), BURST_S)
    most = batch_rows(size)
    count, call = min(most, int(min(paced, window_bytes) / size)), most // BATCH_CALLS
    return max(count - count % call if count > call else count, 1)
