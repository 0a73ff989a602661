"""What the two sides of a transfer sign, in the order in which it happens.

accept (recipient) -> bytes, with progress (recipient) -> receipt ``delivered``, ``intact`` (recipient) -> receipt-ack (sender).
When the recipient has looked: receipt ``accepted`` or ``rejected`` -> receipt-ack. A transfer that is stopped by a rule leaves a
cut; a request that is not met a refusal. Intervals of chunks are [first, last] in the global order of the listing, and name
exactly what had arrived.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec.structs import replace

from labxchange.identity.statement import Count, Digest, Key, MaybeDigest, ShortId, Signed, Statement, Text

Code = Annotated[str, msgspec.Meta(pattern="^[a-z0-9-]{0,64}\\Z")]
Intervals = Annotated[list[tuple[int, int]], msgspec.Meta(max_length=1000)]
Note = Annotated[str, msgspec.Meta(max_length=8000)]
"""A checkpoint as a C2SP signed note."""
FINDINGS_MAX = 4000
DECISIONS_MAX = 8
"""Decisions on one transfer: people change their mind, but not without end."""
Findings = Annotated[str, msgspec.Meta(max_length=FINDINGS_MAX, pattern="^[^\\x00-\\x08\\x0b-\\x1f\\x7f]*\\Z")]
"""What a person found: text with line breaks and tabs, without other control characters."""


class Accept(Statement, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The recipient takes the offer up: opens a transfer, answers the sender's nonce, shows the head of their trail."""

    kind = "accept"

    transfer: ShortId
    offer: Digest
    grant: Digest
    listing: Digest
    proof: Digest
    checkpoint: Note


class Progress(Statement, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The recipient acknowledges what arrived and is journalled so far; ``reused`` of ``bytes`` were on their disk already, in
    earlier versions of the share."""

    kind = "progress"

    transfer: ShortId
    chunks: Count
    files: Count
    bytes: Count
    reused: Count


class Cut(Statement, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A transfer ended before its end; each side signs its own. ``arrived`` are the chunks verified (recipient) or sent
    (sender); where there are more intervals than fit, ``more`` counts the chunks left out."""

    kind = "cut"

    transfer: ShortId
    code: Code
    side: Literal["sender", "recipient"]
    files: Count
    bytes: Count
    arrived: Intervals
    more: Count


class Counts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files by the outcome of the integrity verification."""

    matched: Count
    differ: Count
    missing: Count
    unexpected: Count
    error: Count


class Path(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the bytes travelled."""

    route: Literal["direct", "relayed"]
    relay: Text
    plane: Literal["lanes", "quic-stream"]
    plane_reason: Text
    cipher: Text


class Receipt(Statement, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The recipient's signed word on a transfer. ``delivered``: all bytes are here. ``intact``: they match the manifest.
    ``reused`` of ``bytes`` did not travel: they were here already, in earlier versions of the share.

    ``accepted``, ``rejected``: a person's decision, with ``findings``. It repeats the ``intact`` receipt that it is about, and
    ``follows`` names that one, or the decision that this one replaces. The two fields are written only where they say something,
    so that the first two levels are read by software that knows no decisions.
    """

    kind = "receipt"

    level: Literal["delivered", "intact", "accepted", "rejected"]
    verdict: Literal["complete", "incomplete", "match", "mismatch"]
    transfer: ShortId
    offer: Digest
    accept: Digest
    grant: Digest
    listing: Digest
    manifest: MaybeDigest
    root: MaybeDigest
    counts: Counts
    bytes: Count
    reused: Count
    started: Count
    finished: Count
    started_local: Text
    finished_local: Text
    path: Path
    software: Text
    findings: Findings = ""
    follows: MaybeDigest = ""

    @property
    def decided(self) -> bool:
        """True for a person's decision."""
        return self.level in ("accepted", "rejected")


def best(receipts: Sequence[Signed[Receipt]]) -> Signed[Receipt] | None:
    """What holds of the receipts of a transfer, given in the order in which they were kept: the newest that says more than
    ``delivered``, so a decision, or the result of an attempt that came after it."""
    said = [item for item in receipts if item.body.level != "delivered"] or list(receipts)
    return said[-1] if said else None


def decides(body: Receipt, kept: Sequence[Signed[Receipt]]) -> bool:
    """True when ``body`` is a decision that may come after the receipts ``kept``: it follows the one that holds, repeats the
    ``intact`` one that was kept last, accepts only what matched, and rejects only with findings."""
    holds = best(kept)
    intact = next((item.body for item in reversed(kept) if item.body.level == "intact"), None)
    if holds is None or intact is None or body.follows != holds.id:
        return False
    if replace(body, level="intact", findings="", follows="", issued=intact.issued) != intact:
        return False
    return intact.verdict == "match" if body.level == "accepted" else body.findings.strip() != ""


class ReceiptAck(Statement, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sender's countersignature, with the proof that the receipt stands in the sender's trail.

    ``leaf`` is the entry's exact bytes in base64, ``opening`` the salt and value of its object id.
    """

    kind = "receipt-ack"

    transfer: ShortId
    receipt: Digest
    checkpoint: Note
    index: Count
    leaf: Annotated[str, msgspec.Meta(max_length=24_000)]
    salt: Annotated[str, msgspec.Meta(max_length=64)]
    value: Text
    proof: Annotated[list[Digest], msgspec.Meta(max_length=64)]


class Refusal(Statement, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request that was not met: the reason as a code, a sentence, and what to do."""

    kind = "refusal"

    to: Key
    request: Text
    code: Code
    sentence: Text
    hint: Text
