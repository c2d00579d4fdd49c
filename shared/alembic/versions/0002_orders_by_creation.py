"""Orders are found by their creation: the newest for a person, the recent ones for the limits after a restart.

Revision 0002, after 0001.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    op.create_index(op.f("ix_orders_created_at_id"), "orders", ["created_at", "id"], unique=False)


def downgrade() -> None:
    """Drop the index."""
    op.drop_index(op.f("ix_orders_created_at_id"), table_name="orders")
