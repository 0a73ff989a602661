"""The closed list of what a trail can say happened.

An action that has no event here is not written, and an event that is not here cannot be: adding one is a change of the
specification. What each entry holds besides its event is left to ``entry``.
"""

from __future__ import annotations

from enum import StrEnum


class Event(StrEnum):
    """Object and verb, as they stand in the leaf."""

    SYSTEM_STARTED = "system.started"
    SYSTEM_STOPPED = "system.stopped"
    SYSTEM_RECOVERED = "system.recovered"
    CLOCK_JUMPED = "clock.jumped"
    CLOCK_RESET = "clock.reset"
    CONFIG_CHANGED = "config.changed"
    VERSION_UPGRADED = "version.upgraded"

    IDENTITY_CREATED = "identity.created"
    IDENTITY_UNLOCKED = "identity.unlocked"
    IDENTITY_UNLOCK_FAILED = "identity.unlock-failed"
    IDENTITY_BACKED_UP = "identity.backed-up"
    IDENTITY_RESTORED = "identity.restored"
    KEY_ROTATED = "key.rotated"
    KEY_REVOKED = "key.revoked"

    INVITATION_CREATED = "invitation.created"
    INVITATION_USED = "invitation.used"
    INVITATION_REFUSED = "invitation.refused"
    INVITATION_REUSED = "invitation.reused"
    CONTACT_ADDED = "contact.added"
    CONTACT_VERIFIED = "contact.verified"
    CONTACT_KEY_CHANGED = "contact.key-changed"
    CONTACT_ADDRESS_CHANGED = "contact.address-changed"
    CONTACT_BLOCKED = "contact.blocked"
    CONTACT_UNBLOCKED = "contact.unblocked"

    DATASET_CREATED = "dataset.created"
    DATASET_VERIFIED = "dataset.verified"
    SHARE_CREATED = "share.created"
    SHARE_VERSIONED = "share.versioned"
    SHARE_EXPOSED_SUBSET = "share.exposed-subset"
    SHARE_RETRACTED = "share.retracted"
    SHARE_EXPIRED = "share.expired"
    SHARE_CLOSED = "share.closed"

    GRANT_ISSUED = "grant.issued"
    GRANT_CHANGED = "grant.changed"
    GRANT_DENIED = "grant.denied"
    GRANT_DELEGATED = "grant.delegated"
    GRANT_APPROVED = "grant.approved"
    GRANT_EXPIRED = "grant.expired"
    GRANT_REVOKED = "grant.revoked"
    DOWNLOAD_RESERVED = "download.reserved"
    DOWNLOAD_RETURNED = "download.returned"

    TRANSFER_OFFERED = "transfer.offered"
    TRANSFER_ACCEPTED = "transfer.accepted"
    TRANSFER_REFUSED = "transfer.refused"
    TRANSFER_STARTED = "transfer.started"
    TRANSFER_PROGRESS = "transfer.progress"
    TRANSFER_PAUSED = "transfer.paused"
    TRANSFER_RESUMED = "transfer.resumed"
    TRANSFER_WAITING = "transfer.waiting"
    TRANSFER_FALLBACK = "transfer.fallback"
    TRANSFER_PATH_CHANGED = "transfer.path-changed"
    TRANSFER_SOURCE_CHANGED = "transfer.source-changed"
    TRANSFER_CUT = "transfer.cut"
    TRANSFER_VERIFIED = "transfer.verified"
    TRANSFER_COMPLETED = "transfer.completed"
    TRANSFER_FAILED = "transfer.failed"
    TRANSFER_RECEIPT = "transfer.receipt"

    FILE_RECEIVED = "file.received"
    FILE_QUARANTINED = "file.quarantined"
    FILE_RELEASED = "file.released"
    FILE_LOADED = "file.loaded"
    FILE_DELETED = "file.deleted"

    ACCESS_DENIED = "access.denied"
    SECURITY_FORGERY = "security.forgery"
    SECURITY_FLOOD = "security.flood"
    SECURITY_PROTOCOL_VIOLATION = "security.protocol-violation"

    TRAIL_CHECKPOINT = "trail.checkpoint"
    TRAIL_COSIGNED = "trail.cosigned"
    TRAIL_DIVERGED = "trail.diverged"
    TRAIL_ROLLED_BACK = "trail.rolled-back"
    TRAIL_RESTORED = "trail.restored"
    TRAIL_SCOPE_HEADS = "trail.scope-heads"
    TRAIL_EXPORTED = "trail.exported"
    TRAIL_VIEWED = "trail.viewed"
    TRAIL_REVIEWED = "trail.reviewed"
    TRAIL_REDACTED = "trail.redacted"


WHILE_LOCKED = frozenset(
    {
        Event.SYSTEM_STARTED,
        Event.SYSTEM_STOPPED,
        Event.SYSTEM_RECOVERED,
        Event.IDENTITY_UNLOCK_FAILED,
        Event.ACCESS_DENIED,
    }
)
"""What a node may write while its keys are sealed, and then with open fields alone."""

LATER = {
    Event.KEY_ROTATED: "rotation of keys",
    Event.KEY_REVOKED: "rotation of keys",
    Event.SHARE_CLOSED: "persistent shares",
    Event.GRANT_DELEGATED: "sub-grants",
    Event.GRANT_APPROVED: "sub-grants",
    Event.FILE_RECEIVED: "sharing before hashing ends",
    Event.FILE_LOADED: "loading of tables",
    Event.TRAIL_REVIEWED: "review of the trail",
    Event.TRAIL_REDACTED: "redaction",
}
"""Events that nothing writes yet, and the work that will."""
