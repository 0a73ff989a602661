"""Ids of shares and grants count together with their owner, so that nobody takes an id away from somebody else.

SQLite cannot change a primary key: each table is made anew beside the old one and filled from it. The columns are written out,
because a migration says what was true then, whatever ``tables`` says later.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for name in ("shares", "grants", "grant_recipients"):
        op.rename_table(name, f"{name}_before")
    op.drop_index("grants_share", "grants_before")
    shares = op.create_table(
        "shares",
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("share", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("statement", sa.String(), nullable=False),
        sa.Column("listing", sa.String(), nullable=False),
        sa.Column("manifest", sa.String(), nullable=False),
        sa.Column("digests", sa.String(), nullable=False),
        sa.Column("source", sa.LargeBinary(), nullable=False),
        sa.Column("stored_ms", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "share", "version"),
    )
    grants = op.create_table(
        "grants",
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("grant", sa.String(), nullable=False),
        sa.Column("share", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("statement", sa.String(), nullable=False),
        sa.Column("offer", sa.String(), nullable=False),
        sa.Column("revocation", sa.String(), nullable=False),
        sa.Column("not_after", sa.Integer(), nullable=False),
        sa.Column("ended", sa.Integer(), nullable=False),
        sa.Column("asked_until", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "grant"),
    )
    op.create_index("grants_share", "grants", ["owner", "share", "version"], unique=False)
    recipients = op.create_table(
        "grant_recipients",
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("grant", sa.String(), nullable=False),
        sa.Column("recipient", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "grant", "recipient"),
    )
    _fill(shares, sa.select(*_before(shares)))
    _fill(grants, sa.select(*_before(grants)))
    kept, named = _before(grants), _before(recipients)
    _fill(
        recipients,
        sa.select(kept.owner, named.grant, named.recipient).where(kept.grant == named.grant),
    )
    for name in ("shares", "grants", "grant_recipients"):
        op.drop_table(f"{name}_before")


def _before(table: sa.Table) -> sa.ColumnCollection[str, Any]:
    """The columns of a new table, in the old one."""
    return sa.table(f"{table.name}_before", *(sa.column(column.name) for column in table.columns)).c


def _fill(table: sa.Table, rows: sa.Select[Any]) -> None:
    op.execute(table.insert().from_select([column.name for column in table.columns], rows))
