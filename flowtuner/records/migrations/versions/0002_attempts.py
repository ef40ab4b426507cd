"""Events know which attempt of their job told them: another machine's log counts from one again.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the attempt; what was kept of answers to repeated requests was never read."""
    with op.batch_alter_table("job_events") as table:
        table.add_column(sa.Column("attempt", sa.Integer(), nullable=False, server_default="0"))
        table.drop_index("one_of_each_source")
        table.create_index("one_of_each_source", ["job_id", "attempt", "source"], unique=True)
    with op.batch_alter_table("idempotency") as table:
        table.drop_column("reply")


def downgrade() -> None:
    """Back to the first tables."""
    with op.batch_alter_table("idempotency") as table:
        table.add_column(sa.Column("reply", sa.JSON(), nullable=False, server_default="{}"))
    with op.batch_alter_table("job_events") as table:
        table.drop_index("one_of_each_source")
        table.create_index("one_of_each_source", ["job_id", "source"], unique=True)
        table.drop_column("attempt")
