"""What the node shows to faces: frozen values without secrets. Times are UTC milliseconds; 0 where there is none."""

from __future__ import annotations

from typing import Literal

import msgspec

from labxchange.dataset.check import Report


class Value(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Common form of what the local API returns."""


class Me(Value, frozen=True, kw_only=True):
    """One's own identity, as others see it."""

    name: str
    organisation: str
    role: str
    country: str
    key: str
    fingerprint: str
    words: tuple[str, ...]
    addresses: tuple[str, ...]
    locked: bool


class EvidenceInfo(Value, frozen=True, kw_only=True):
    """Two checkpoints that a contact signed and that contradict each other, as signed notes. ``kind``: diverged, rolled-back, or
    accepted, when a person went on with the contact: ``first`` is then the last that was seen before, ``second`` empty."""

    kind: Literal["diverged", "rolled-back", "accepted"]
    utc: int
    first: str
    second: str


class ContactInfo(Value, frozen=True, kw_only=True):
    """A contact. ``trail`` says what their audit trail showed, ``evidence`` proves it to others. ``waiting`` messages
    wait here for them; ``offers`` wait at theirs for us until they have verified us: how many, and nothing else about them."""

    name: str
    organisation: str
    role: str
    country: str
    state: Literal["unverified", "verified", "blocked"]
    key: str
    fingerprint: str
    addresses: tuple[str, ...]
    connected: bool
    waiting: int
    offers: int
    alert: str
    trail: str
    evidence: tuple[EvidenceInfo, ...]
    added: int
    verified: int


class InvitationMade(Value, frozen=True, kw_only=True):
    """A new invitation: the text to send, until when, and what to know before sending it."""

    text: str
    id: str
    expires: int
    advice: str


class InvitationInfo(Value, frozen=True, kw_only=True):
    """An invitation made here: for whom (a fingerprint; empty: anybody), who used it, and how often others tried it after."""

    id: str
    made_for: str
    state: Literal["open", "used", "expired"]
    expires: int
    used_by: str
    used_by_key: str
    reused: int


class RecipientStatus(Value, frozen=True, kw_only=True):
    """One recipient of a share version: how far they are, under which grant, with which receipt and findings."""

    name: str
    key: str
    state: str
    grant: str
    revoked: bool
    not_before: int
    not_after: int
    downloads: int
    reserved: int
    used: int
    transfer: str
    done_bytes: int
    receipt: str
    findings: str
    acknowledged: bool
    asked_until: int
    asked_reason: str


class WithheldInfo(Value, frozen=True, kw_only=True):
    """What of a table file was not shared: columns by name, rows by number."""

    file: str
    columns: tuple[str, ...]
    rows: int


class ShareInfo(Value, frozen=True, kw_only=True):
    """A share version of one's own. ``state``: hashing, available, failed, retracted; ``hashed_bytes`` counts while hashing."""

    share: str
    version: int
    title: str
    state: str
    reason: str
    files: int
    bytes: int
    hashed_bytes: int
    left_out: int
    root: str
    created: int
    skipped: tuple[tuple[str, str], ...]
    recipients: tuple[RecipientStatus, ...]
    withheld: tuple[WithheldInfo, ...] = ()


class InboxItem(Value, frozen=True, kw_only=True):
    """A share version that another party offers."""

    share: str
    version: int
    title: str
    note: str
    sender: str
    sender_key: str
    sender_state: str
    state: str
    reason: str
    files: int
    bytes: int
    root: str
    purpose: str
    revoked: bool
    not_before: int
    not_after: int
    offered: int
    transfer: str
    destination: str
    withheld: tuple[WithheldInfo, ...] = ()


class LimitsInfo(Value, frozen=True, kw_only=True):
    """What a person chose here for a transfer: ``rate`` in bytes a second (0: no limit), ``lanes`` (0: automatic)."""

    rate: int = 0
    priority: Literal["low", "normal", "high"] = "normal"
    lanes: int = 0


class PathInfo(Value, frozen=True, kw_only=True):
    """The way that a transfer's data takes, as this side sees it; empty while nothing travels.

    ``plane`` and, where it is not lanes, the ``reason`` as in the receipt. Of the last second (over QUIC: five) ``rate``, bytes a
    second on the wire, and ``limit``, what holds it back: network, disk, cpu (of this machine), peer, cap (a rate or a priority
    that somebody chose), or empty where that cannot be told. Since the lanes were opened ``loss``, the share of datagrams that
    were lost, ``resent_bytes`` (known to the sender), ``datagrams_per_call`` received, and ``dropped_here``, those that this
    machine itself threw away.
    """

    plane: Literal["", "lanes", "quic-stream"] = ""
    reason: str = ""
    cipher: str = ""
    lanes: int = 0
    rate: int = 0
    rtt_ms: float = 0.0
    loss: float = 0.0
    resent_bytes: int = 0
    datagram_bytes: int = 0
    datagrams_per_call: float = 0.0
    dropped_here: int = 0
    limit: Literal["", "network", "disk", "cpu", "peer", "cap"] = ""


class TransferInfo(Value, frozen=True, kw_only=True):
    """A transfer, live. ``rate`` of verified bytes a second; ``eta`` in seconds, -1 when unknown. ``reused_bytes`` of
    ``done_bytes`` did not travel: they were at the recipient already, in earlier versions."""

    transfer: str
    direction: Literal["in", "out"]
    peer: str
    peer_key: str
    share: str
    version: int
    title: str
    state: str
    reason: str
    files: int
    bytes: int
    done_files: int
    done_bytes: int
    reused_bytes: int
    rate: int
    eta: int
    started: int
    finished: int
    destination: str
    receipt: str
    limits: LimitsInfo = LimitsInfo()
    path: PathInfo = PathInfo()


class ReceiptInfo(Value, frozen=True, kw_only=True):
    """What the best receipt of a transfer says, with the ``findings`` of a person who accepted or rejected it; ``file`` is the
    portable text that `labxchange receipt verify` checks."""

    transfer: str
    level: str
    verdict: str
    findings: str
    title: str
    sender: str
    recipient: str
    files: int
    bytes: int
    reused_bytes: int
    root: str
    finished: int
    receipt: str
    acknowledged: bool
    path: str
    file: str


class ReceiptPage(Value, frozen=True, kw_only=True):
    """The best receipt of a transfer as an HTML page, which carries the portable text."""

    transfer: str
    page: str


class ReceivedInfo(Value, frozen=True, kw_only=True):
    """The verification report of an incoming transfer and where the files are."""

    transfer: str
    destination: str
    report: Report


class FileInfo(Value, frozen=True, kw_only=True):
    """A released file of an incoming transfer: its path in the dataset, where it is here, and the digests that its bytes had when
    they were verified: the one of record, and the one over BLAKE3 chunks."""

    path: str
    place: str
    size: int
    sha256: str
    chunks: str
    chunk_bytes: int
    share: str
    version: int
    transfer: str
    receipt: str


class EntryInfo(Value, frozen=True, kw_only=True):
    """One entry of the trail: its open fields, and the others as far as this node can open them."""

    seq: int
    utc: int
    event: str
    object_type: str
    result: str
    result_code: str
    fields: dict[str, str]


class Exported(Value, frozen=True, kw_only=True):
    """A trail written to a file."""

    path: str
    form: str
    entries: int
    size: int
    cosigned: int


class NodeStatus(Value, frozen=True, kw_only=True):
    """How the node is."""

    home: str
    pid: int
    software: str
    started: int
    identity: bool
    locked: bool
    listening: str
    connections: int
    contacts: int
    shares: int
    transfers_live: int
    trail_size: int
    clock_in_doubt: bool
    alerts: tuple[str, ...]


class Diagnosis(Value, frozen=True, kw_only=True):
    """One check of the doctor."""

    check: str
    state: Literal["ok", "warning", "problem"]
    sentence: str
    hint: str


class Notice(Value, frozen=True, kw_only=True):
    """Something changed: the kind of thing and its id. Faces ask for the new value."""

    kind: Literal["contact", "share", "inbox", "transfer", "trail", "node"]
    id: str
