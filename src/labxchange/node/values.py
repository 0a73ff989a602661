"""What the node shows to faces: frozen values without secrets. Times are UTC milliseconds; 0 where there is none."""

from __future__ import annotations

from typing import Literal

import msgspec

from labxchange.dataset.check import Report


class Value(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Common form of what the local API returns."""


class Me(Value, frozen=True, kw_only=True):
    """One's own identity, as others see it.

    Fields:
        name: as others read it.
        organisation: where you work.
        role: what you do there; may be empty.
        country: may be empty.
        key: the public key, 64 hexadecimal digits.
        fingerprint: the key as people compare it.
        words: six words of the key, to be read over the telephone.
        addresses: where your node can be reached, host:port.
        locked: whether the keys are sealed.

    Example:
        print(lx.me().name, lx.me().fingerprint)
    """

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
    """Two checkpoints of a contact's trail that contradict each other, signed by them.

    Fields:
        kind: diverged, rolled-back, or accepted, when a person went on with the contact.
        utc: when it was seen, UTC milliseconds.
        first: the first, a signed note; of "accepted" the last that was seen before.
        second: the second; of "accepted" empty.

    Example:
        [proof.kind for one in lx.contacts() for proof in one.evidence]
    """

    kind: Literal["diverged", "rolled-back", "accepted"]
    utc: int
    first: str
    second: str


class ContactInfo(Value, frozen=True, kw_only=True):
    """A contact.

    Fields:
        name: as they call themselves.
        organisation: where they say they work.
        role: what they say they do; may be empty.
        country: may be empty.
        state: unverified, verified (by six words) or blocked.
        key: their public key, 64 hexadecimal digits.
        fingerprint: the key as people compare it.
        addresses: where their node can be reached, host:port.
        connected: whether the two nodes are connected now.
        waiting: messages that wait here for them.
        offers: offers that wait at theirs until they have verified you; how many, and nothing else about them.
        alert: what you should look at; empty: nothing.
        trail: what their audit trail showed: empty: nothing wrong, "restored N", "rolled-back" or "diverged".
        evidence: what proves that to others.
        added: when they became a contact, UTC milliseconds.
        verified: when you verified them, UTC milliseconds; 0: not.

    Example:
        [(one.name, one.state, one.connected) for one in lx.contacts()]
    """

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
    """One recipient of a share version: how far they are, under which grant, with which receipt and findings.

    Fields:
        name: the contact's name.
        key: their public key, 64 hexadecimal digits.
        state: waiting for them (the offer is still here), available, in progress, delivered, verified, not intact, accepted,
            rejected, cut, revoked or expired.
        grant: the id of the grant that names them.
        revoked: whether you ended it.
        not_before: from when they may fetch, UTC milliseconds; 0: at once.
        not_after: until when, UTC milliseconds.
        downloads: how often they may fetch it.
        reserved: how many of these run.
        used: how many are over.
        transfer: the id of their newest transfer; empty: none yet.
        done_bytes: bytes of it that arrived.
        receipt: the id of their best receipt; empty: none yet.
        findings: what they wrote when they accepted or rejected.
        acknowledged: whether your node has countersigned the receipt.
        asked_until: until when they ask for more time, UTC milliseconds; 0: they do not.
        asked_reason: why.

    Example:
        [(one.name, one.state, one.used) for one in lx.shares()[-1].status.recipients]
    """

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
    """What of a table file was not shared.

    Fields:
        file: the table, in the dataset.
        columns: the names of the columns that were left out.
        rows: how many rows were left out.

    Example:
        [(one.file, one.columns, one.rows) for one in part.status.withheld]
    """

    file: str
    columns: tuple[str, ...]
    rows: int


class ShareInfo(Value, frozen=True, kw_only=True):
    """A share version of one's own.

    Fields:
        share: its id, the same for all versions.
        version: 1, 2 …
        title: what recipients see.
        state: hashing, available, failed or retracted.
        reason: why it failed.
        files: how many.
        bytes: of all of them.
        hashed_bytes: bytes that were read so far, while hashing.
        left_out: files that could not be read, or changed while they were.
        root: what identifies the data: the root of a hash tree over all files, 64 hexadecimal digits; empty while hashing.
        created: when it was shared, UTC milliseconds.
        skipped: links and special files that are not shared, with the reason of each.
        recipients: how far each is.
        withheld: what of tables was left out on purpose.

    Example:
        shared.status.files, shared.status.bytes
    """

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
    """A share version that another party offers.

    Fields:
        share: its id, the same for all versions.
        version: 1, 2 …
        title: the sender's.
        note: the sender's message.
        sender: the name of the contact.
        sender_key: their public key, 64 hexadecimal digits.
        sender_state: unverified, verified or blocked; only what a verified contact offers can be received.
        state: available, in progress, verified, cut, failed, revoked or expired.
        reason: why, where it failed or was cut.
        files: how many.
        bytes: of all of them.
        root: what identifies the data, 64 hexadecimal digits; empty until the sender has read all of it.
        purpose: what the data may be used for.
        revoked: whether the sender took it back.
        not_before: from when you may fetch it, UTC milliseconds; 0: at once.
        not_after: until when, UTC milliseconds.
        offered: when the offer came, UTC milliseconds.
        transfer: the id of your newest transfer of it; empty: none.
        destination: the folder of that transfer.
        withheld: what of tables the sender left out on purpose.

    Example:
        [(one.title, one.sender, one.state) for one in lx.inbox()]
    """

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
    """What was chosen here for a transfer.

    Fields:
        rate: bytes a second; 0: no limit.
        priority: low, normal or high.
        lanes: over how many lanes; 0: the node's choice.

    Example:
        slow.status.limits.rate
    """

    rate: int = 0
    priority: Literal["low", "normal", "high"] = "normal"
    lanes: int = 0


class PathInfo(Value, frozen=True, kw_only=True):
    """The way that a transfer's data takes, as this side sees it; empty while nothing travels.

    Fields:
        plane: lanes, or quic-stream where no lane can be opened.
        reason: why it is not lanes, as in the receipt.
        cipher: how the data is encrypted.
        lanes: how many are open.
        rate: bytes a second on the wire, in the last second (over QUIC: five).
        rtt_ms: the round trip, milliseconds.
        loss: the share of datagrams that were lost since the lanes were opened, 0 to 1.
        resent_bytes: bytes that were sent again; known to the sender.
        datagram_bytes: bytes of one datagram.
        datagrams_per_call: received with one call of the operating system.
        dropped_here: datagrams that this machine itself threw away.
        limit: what holds it back: network, disk, cpu (of this machine), peer, cap (a rate or a priority that somebody chose);
            empty where that cannot be told.

    Example:
        received.status.path.plane
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
    """A transfer, as it is now.

    Fields:
        transfer: its id, 32 hexadecimal digits.
        direction: in or out.
        peer: the name of the other party.
        peer_key: their public key, 64 hexadecimal digits.
        share: the id of what is transferred.
        version: its version.
        title: its title.
        state: waiting (for the other node), running, paused, verified (all files match; not yet countersigned), completed,
            failed, cut (by the sender's rules) or cancelled.
        reason: why, as a code; empty where there is nothing to say.
        files: how many.
        bytes: of all of them.
        done_files: files that are there and verified.
        done_bytes: bytes that are there and verified; of a transfer out: those that were sent, while it runs.
        reused_bytes: of these, bytes that did not travel: they were at the recipient already, in earlier versions.
        rate: verified bytes a second.
        eta: seconds that are left; -1: unknown.
        started: UTC milliseconds.
        finished: UTC milliseconds; 0: not yet.
        destination: the folder here; empty of a transfer out.
        receipt: "yes" when there is one.
        limits: what was chosen for it.
        path: how the data travels.

    Example:
        [(one.status.title, one.status.state) for one in lx.transfers()]
    """

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
    """What the best receipt of a transfer says.

    Fields:
        transfer: the id of the transfer.
        level: delivered (all bytes are here), intact (they match), accepted or rejected (a person's decision).
        verdict: complete or incomplete of delivered; match or mismatch of the others.
        findings: what the person wrote who accepted or rejected.
        title: of what was transferred.
        sender: the name of the contact.
        recipient: the same.
        files: files that match.
        bytes: of all of them.
        reused_bytes: of these, bytes that were there already.
        root: what identifies the data, 64 hexadecimal digits.
        finished: when the transfer ended, UTC milliseconds.
        receipt: the receipt's id: SHA-256 of what was signed, 64 hexadecimal digits.
        acknowledged: whether the sender has countersigned it.
        path: how the data travelled: route, plane, cipher.
        file: the portable text that `labxchange receipt verify` checks.

    Example:
        print(received.receipt.receipt)
    """

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
    """One entry of the audit trail.

    Fields:
        seq: its place in the trail, from 0.
        utc: when, UTC milliseconds.
        event: what happened, such as ``transfer.verified``.
        object_type: to what.
        result: ok, or how it failed.
        result_code: why, as a code.
        fields: the others of its fields by name, as far as this node can open them: person, counterparty_name, …

    Example:
        [(one.seq, one.event, one.result) for one in lx.audit(limit=5)]
    """

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
