"""${message}

Revision ${up_revision}, after ${down_revision | comma,n}, made ${create_date}.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from shared.sa_types import Money, UtcDateTime
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    """Change the tables."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Change them back."""
    ${downgrades if downgrades else "pass"}
