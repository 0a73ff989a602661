"""The tables of ``node.db``. Migrations in ``migrations/`` create them; a test compares the two.

Ids and keys are lowercase hex text; times are UTC milliseconds; signed statements are kept as the exact bytes received.
"""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, LargeBinary, MetaData, PrimaryKeyConstraint, String, Table

metadata = MetaData()

settings = Table("settings", metadata, Column("name", String, primary_key=True), Column("value", LargeBinary, nullable=False))

# --- the audit trail -------------------------------------------------------------------------------------------------
trail_entries = Table(
    "trail_entries",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("event", String, nullable=False),
    Column("utc_ms", Integer, nullable=False),
    Column("leaf", LargeBinary, nullable=False),
)
trail_openings = Table(
    "trail_openings",
    metadata,
    Column("seq", Integer, nullable=False),
    Column("name", String, nullable=False),
    Column("subject", Integer, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    PrimaryKeyConstraint("seq", "name"),
    sqlite_with_rowid=False,
)
trail_subjects = Table(
    "trail_subjects",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("subject", String, nullable=False, unique=True),
    Column("wrapped", LargeBinary, nullable=False),
)
trail_nodes = Table(
    "trail_nodes",
    metadata,
    Column("level", Integer, nullable=False),
    Column("position", Integer, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    PrimaryKeyConstraint("level", "position"),
    sqlite_with_rowid=False,
)
trail_checkpoints = Table(
    "trail_checkpoints",
    metadata,
    Column("size", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Integer, nullable=False),
    Column("note", String, nullable=False),
)
trail_cosignatures = Table(
    "trail_cosignatures",
    metadata,
    Column("size", Integer, nullable=False),
    Column("cosigner", String, nullable=False),
    Column("line", String, nullable=False),
    PrimaryKeyConstraint("size", "cosigner"),
)
trail_scopes = Table(
    "trail_scopes",
    metadata,
    Column("tag", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("name", LargeBinary, nullable=False),
    Column("head", Integer, nullable=False),
)
witnessed = Table(
    "witnessed",
    metadata,
    Column("key", String, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("size", Integer, nullable=False),
    Column("note", String, nullable=False),
    PrimaryKeyConstraint("key", "epoch", "size"),
)
evidence = Table(
    "evidence",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("utc_ms", Integer, nullable=False),
    Column("first", String, nullable=False),
    Column("second", String, nullable=False),
)

# --- people ----------------------------------------------------------------------------------------------------------
contacts = Table(
    "contacts",
    metadata,
    Column("key", String, primary_key=True),
    Column("state", String, nullable=False),
    Column("name", String, nullable=False),
    Column("card", LargeBinary, nullable=False),
    Column("seen_address", String, nullable=False),
    Column("added_ms", Integer, nullable=False),
    Column("verified_ms", Integer, nullable=False),
    Column("alert", String, nullable=False),
    Column("trail", String, nullable=False),
)
invitations = Table(
    "invitations",
    metadata,
    Column("id", String, primary_key=True),
    Column("secret", LargeBinary, nullable=False),
    Column("made_for", String, nullable=False),
    Column("expires_ms", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("used_by", String, nullable=False),
    Column("reused", Integer, nullable=False),
)

# --- shares and grants -----------------------------------------------------------------------------------------------
statements = Table(
    "statements",
    metadata,
    Column("id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("issuer", String, nullable=False),
    Column("about", String, nullable=False),
    Column("stored_ms", Integer, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
)
Index("statements_about", statements.c.about, statements.c.kind)
outbox = Table(
    "outbox",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("peer", String, nullable=False),
    Column("statement", String, nullable=False),
)
Index("outbox_peer", outbox.c.peer)
bodies = Table(
    "bodies",
    metadata,
    Column("digest", String, nullable=False),
    Column("page", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("digest", "page"),
)
shares = Table(
    "shares",
    metadata,
    Column("owner", String, nullable=False),
    Column("share", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("title", String, nullable=False),
    Column("statement", String, nullable=False),
    Column("listing", String, nullable=False),
    Column("manifest", String, nullable=False),
    Column("digests", String, nullable=False),
    Column("source", LargeBinary, nullable=False),
    Column("stored_ms", Integer, nullable=False),
    PrimaryKeyConstraint("owner", "share", "version"),
)
grants = Table(
    "grants",
    metadata,
    Column("owner", String, nullable=False),
    Column("grant", String, nullable=False),
    Column("share", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("statement", String, nullable=False),
    Column("offer", String, nullable=False),
    Column("revocation", String, nullable=False),
    Column("not_after", Integer, nullable=False),
    Column("ended", Integer, nullable=False),
    Column("asked_until", Integer, nullable=False),
    Column("restored", Integer, nullable=False, server_default="0"),
    PrimaryKeyConstraint("owner", "grant"),
)
Index("grants_share", grants.c.owner, grants.c.share, grants.c.version)
grant_recipients = Table(
    "grant_recipients",
    metadata,
    Column("owner", String, nullable=False),
    Column("grant", String, nullable=False),
    Column("recipient", String, nullable=False),
    PrimaryKeyConstraint("owner", "grant", "recipient"),
)

# --- transfers -------------------------------------------------------------------------------------------------------
transfers = Table(
    "transfers",
    metadata,
    Column("transfer", String, primary_key=True),
    Column("direction", String, nullable=False),
    Column("peer", String, nullable=False),
    Column("share", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("grant", String, nullable=False),
    Column("state", String, nullable=False),
    Column("slot", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("destination", LargeBinary, nullable=False),
    Column("started_ms", Integer, nullable=False),
    Column("finished_ms", Integer, nullable=False),
    Column("done_bytes", Integer, nullable=False),
    Column("done_files", Integer, nullable=False),
    Column("reused_bytes", Integer, nullable=False, server_default="0"),
    Column("report", LargeBinary, nullable=False),
)
Index("transfers_grant", transfers.c.grant, transfers.c.peer)
transfer_limits = Table(
    "transfer_limits",
    metadata,
    Column("transfer", String, primary_key=True),
    Column("rate_bytes_s", Integer, nullable=False),
    Column("priority", String, nullable=False),
    Column("lanes", Integer, nullable=False),
)
arrived = Table(
    "arrived",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("transfer", String, nullable=False),
    Column("first", Integer, nullable=False),
    Column("last", Integer, nullable=False),
)
Index("arrived_transfer", arrived.c.transfer)
released = Table(
    "released",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("transfer", String, nullable=False),
    Column("first", Integer, nullable=False),
    Column("last", Integer, nullable=False),
)
Index("released_transfer", released.c.transfer)
