"""Bytes of a transfer that were on the recipient's disk already; grants older than a restore."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("transfers", sa.Column("reused_bytes", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("grants", sa.Column("restored", sa.Integer(), nullable=False, server_default="0"))
