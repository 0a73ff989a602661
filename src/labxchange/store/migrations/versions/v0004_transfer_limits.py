"""What a person chose for a transfer: how fast, how important, over how many lanes."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "transfer_limits",
        sa.Column("transfer", sa.String(), nullable=False),
        sa.Column("rate_bytes_s", sa.Integer(), nullable=False),
        sa.Column("priority", sa.String(), nullable=False),
        sa.Column("lanes", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("transfer"),
    )
