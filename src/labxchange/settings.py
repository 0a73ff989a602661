"""Every limit and default that a user or a peer can meet, with its unit and its reason."""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.1.0"
SOFTWARE: Final = f"labxchange {VERSION}"

DEFAULT_PORT: Final = 47100
"""UDP port a node listens on unless told otherwise; when it is taken, a free one is chosen and kept."""

INVITATION_DAYS: Final = 7
"""How long an invitation can be used."""

GRANT_DAYS: Final = 30
"""How long a grant runs when the sender does not say."""

FETCH_BYTES: Final = 8 << 20
"""Bytes of one range request; with ``FETCH_PARALLEL`` it keeps what is asked for and not yet written below 64 MiB."""

FETCH_PARALLEL: Final = 4

LANE_FETCH_BYTES: Final = 64 << 20
"""Bytes of one range request over lanes, and the most that any may ask for: each is judged, and written down, once."""

LANE_CREDIT_BYTES: Final = 192 << 20
"""The same over lanes, where it has to cover the round trip and the time that lost packets take to come again: 4.4 round trips of
200 ms at 1 Gbit/s and 5 % loss are 110 MB (docs/adr/0008)."""

RATE_MIN_BYTES_S: Final = 10_000
"""The lowest rate that a transfer can be held to: slower ones could not be told from one that has died."""

JOURNAL_BYTES: Final = 64 << 20
JOURNAL_SECONDS: Final = 0.5
"""The journal is committed each 64 MiB or half second: what a kill can make come again."""

JOURNAL_SMALL_SECONDS: Final = 2.0
"""Many small files wait a little longer for company, because flushing costs by the file."""

BATCH_FILES: Final = 4000
BATCH_BYTES: Final = 64 << 20
"""Small files are flushed, recorded and renamed in batches of this many files or bytes."""

LAST_BATCH_FILES: Final = 500
"""In batches of this many once nothing more is to be asked for, so that little is left to do when the last one is here."""

PROGRESS_PERCENT: Final = 10
PROGRESS_BYTES: Final = 64 << 30
"""Signed progress: each 10 % or 64 GiB, whichever is later."""

RETRY_FIRST_S: Final = 1.0
RETRY_LAST_S: Final = 30.0
"""Back-off between attempts to reach a peer that is away."""

RETRY_IDLE_S: Final = 300.0
"""The same, while nothing waits for the peer: they may have something for us and be unable to call."""

DIAL_TIMEOUT_S: Final = 6.0
CLOCK_PERSIST_S: Final = 60.0

WRITES_BURST: Final = 5000
WRITES_PER_SECOND: Final = 2.0
"""What a contact may make this node write down at once, and after that for each second: one for a request that leaves an entry
and for each started 8 KiB of a statement. Honest nodes stay far below; one that does not is told to try later."""

ANSWER_S: Final = 60.0
"""How long the next message of a conversation may take to come before the conversation is given up."""

CHANNELS_MAX: Final = 8
"""Connections of one contact at a time: both may dial, and each may have moved; the oldest is closed."""

DIGESTS_WAIT_S: Final = 20.0
"""How long a question for digests waits for the sender's hashing before it is answered with none."""

BULK_NICE: Final = 5
"""By so much what moves and hashes bytes stands back behind the node, and others where sessions are not weighed (nice(1))."""

NUMPY_ENVIRONMENT: Final = {"OPENBLAS_NUM_THREADS": "1"}
"""For processes that multiply no matrices: numpy's library for that starts a thread for each core, and they spin for a while when
the process begins (0.1 s of CPU on two cores)."""
