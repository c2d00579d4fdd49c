"""The first tables.

Revision 0001, the first one.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from shared.sa_types import Money, UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "accounts",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("quote_asset", sa.Text(), nullable=False),
        sa.Column("initial_balance", Money(), nullable=False),
        sa.Column("cash", Money(), nullable=False),
        sa.Column("equity", Money(), nullable=False),
        sa.Column("day", sa.Text(), server_default="", nullable=False),
        sa.Column("day_equity", Money(), server_default="0", nullable=False),
        sa.Column("day_flows", Money(), server_default="0", nullable=False),
        sa.Column("equity_peak", Money(), server_default="0", nullable=False),
        sa.Column("state", sa.Text(), server_default="ACTIVE", nullable=False),
        sa.Column("state_reason", sa.Text(), server_default="", nullable=False),
        sa.Column("as_of", UtcDateTime(), nullable=True),
        sa.Column("sequence", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint("state IN ('ACTIVE', 'REDUCE_ONLY', 'HALT', 'FLATTEN')", name=op.f("ck_accounts_state")),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_accounts")),
    )
    op.create_table(
        "allocations",
        sa.Column("strategy", sa.Text(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("timeframe", sa.Text(), nullable=False),
        sa.Column("share", Money(), nullable=False),
        sa.Column("cash", Money(), nullable=False),
        sa.Column("as_of", UtcDateTime(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("strategy", "symbol", "timeframe", name=op.f("pk_allocations")),
    )
    op.create_table(
        "candle_gaps",
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("timeframe", sa.Text(), nullable=False),
        sa.Column("start_time", UtcDateTime(), nullable=False),
        sa.Column("end_time", UtcDateTime(), nullable=False),
        sa.Column("candles_missing", sa.Integer(), nullable=False),
        sa.Column("confirmed", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("recorded_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("symbol", "timeframe", "start_time", name=op.f("pk_candle_gaps")),
    )
    op.create_table(
        "candle_revisions",
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("timeframe", sa.Text(), nullable=False),
        sa.Column("open_time", UtcDateTime(), nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("open", Money(), nullable=False),
        sa.Column("high", Money(), nullable=False),
        sa.Column("low", Money(), nullable=False),
        sa.Column("close", Money(), nullable=False),
        sa.Column("volume", Money(), nullable=False),
        sa.Column("recorded_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("symbol", "timeframe", "open_time", "revision", name=op.f("pk_candle_revisions")),
    )
    op.create_table(
        "candles",
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("timeframe", sa.Text(), nullable=False),
        sa.Column("open_time", UtcDateTime(), nullable=False),
        sa.Column("open", Money(), nullable=False),
        sa.Column("high", Money(), nullable=False),
        sa.Column("low", Money(), nullable=False),
        sa.Column("close", Money(), nullable=False),
        sa.Column("volume", Money(), nullable=False),
        sa.PrimaryKeyConstraint("symbol", "timeframe", "open_time", name=op.f("pk_candles")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "control",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("set_by", sa.Text(), server_default="", nullable=False),
        sa.Column("seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("set_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint("state IN ('ACTIVE', 'REDUCE_ONLY', 'HALT', 'FLATTEN')", name=op.f("ck_control_state")),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_control")),
    )
    op.create_table(
        "cursors",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_cursors")),
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("recorded_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
    )
    op.create_table(
        "decisions",
        sa.Column("signal_id", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.Column("order_id", sa.Text(), nullable=True),
        sa.Column("as_of", UtcDateTime(), nullable=False),
        sa.CheckConstraint("outcome IN ('ordered', 'refused', 'ignored')", name=op.f("ck_decisions_outcome")),
        sa.PrimaryKeyConstraint("signal_id", name=op.f("pk_decisions")),
    )
    op.create_index(op.f("ix_decisions_as_of"), "decisions", ["as_of"])
    op.create_table(
        "inbox",
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("msg_id", sa.Text(), nullable=False),
        sa.Column("received_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("consumer", "msg_id", name=op.f("pk_inbox")),
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("build_id", sa.Text(), server_default="", nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_lease")),
    )
    op.create_table(
        "ledger",
        sa.Column("entry_id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("delta", Money(), nullable=False),
        sa.Column("cause_type", sa.Text(), nullable=False),
        sa.Column("cause_id", sa.Text(), nullable=False),
        sa.Column("leg", sa.Text(), nullable=False),
        sa.Column("as_of", UtcDateTime(), nullable=False),
        sa.CheckConstraint("leg IN ('base', 'quote', 'fee')", name=op.f("ck_ledger_leg")),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_ledger")),
        sa.UniqueConstraint("cause_type", "cause_id", "leg", name=op.f("uq_ledger_cause_type_cause_id_leg")),
    )
    op.create_table(
        "movements",
        sa.Column("ext_id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("delta", Money(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("as_of", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("ext_id", name=op.f("pk_movements")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("as_of", UtcDateTime(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("sent_at", UtcDateTime(), nullable=True),
        sa.Column("acked_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_outbox_topic_acked_at_id"), "outbox", ["topic", "acked_at", "id"])
    op.create_index(op.f("ix_outbox_topic_key"), "outbox", ["topic", "key"])
    op.create_table(
        "portfolio_snapshots",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("total_value", Money(), nullable=False),
        sa.Column("realized_pnl", Money(), nullable=False),
        sa.Column("unrealized_pnl", Money(), nullable=False),
        sa.Column("snapshot_at", UtcDateTime(), nullable=False),
        sa.Column("cash", Money(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_portfolio_snapshots")),
    )
    op.create_index(op.f("ix_portfolio_snapshots_snapshot_at"), "portfolio_snapshots", ["snapshot_at"])
    op.create_table(
        "positions",
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("quantity", Money(), nullable=False),
        sa.Column("avg_entry_price", Money(), nullable=False),
        sa.Column("current_price", Money(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("symbol", name=op.f("pk_positions")),
    )
    op.create_table(
        "quarantine",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("recorded_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantine")),
    )
    op.create_table(
        "signals",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("strategy", sa.Text(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("timeframe", sa.Text(), nullable=False),
        sa.Column("side", sa.Text(), nullable=False),
        sa.Column("price", Money(), nullable=False),
        sa.Column("quantity", Money(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("candle_open_time", UtcDateTime(), nullable=True),
        sa.Column("expires_at", UtcDateTime(), nullable=True),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("config_hash", sa.Text(), server_default="", nullable=False),
        sa.Column("code_hash", sa.Text(), server_default="", nullable=False),
        sa.CheckConstraint("side IN ('BUY', 'SELL')", name=op.f("ck_signals_side")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signals")),
    )
    op.create_index(op.f("ix_signals_created_at_id"), "signals", ["created_at", "id"])
    op.create_table(
        "stamp",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_stamp")),
    )
    op.create_table(
        "strategy_positions",
        sa.Column("strategy", sa.Text(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("timeframe", sa.Text(), nullable=False),
        sa.Column("quantity", Money(), server_default="0", nullable=False),
        sa.Column("avg_entry_price", Money(), server_default="0", nullable=False),
        sa.Column("realized_pnl", Money(), server_default="0", nullable=False),
        sa.Column("fees", Money(), server_default="0", nullable=False),
        sa.Column("entries_open", sa.Integer(), server_default="0", nullable=False),
        sa.Column("cash", Money(), server_default="0", nullable=False),
        sa.Column("stop_price", Money(), nullable=True),
        sa.Column("cooldown_until", UtcDateTime(), nullable=True),
        sa.Column("high_water_price", Money(), server_default="0", nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("last_sequence", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("strategy", "symbol", "timeframe", name=op.f("pk_strategy_positions")),
    )
    op.create_table(
        "strategy_states",
        sa.Column("strategy", sa.Text(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("timeframe", sa.Text(), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.Column("candle_open_time", UtcDateTime(), nullable=False),
        sa.Column("candles_seen", sa.BigInteger(), nullable=False),
        sa.Column("config_hash", sa.Text(), server_default="", nullable=False),
        sa.Column("code_hash", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("strategy", "symbol", "timeframe", name=op.f("pk_strategy_states")),
    )
    op.create_table(
        "orders",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("signal_id", sa.Text(), nullable=True),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("side", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("price", Money(), nullable=False),
        sa.Column("quantity", Money(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("filled_at", UtcDateTime(), nullable=True),
        sa.Column("strategy", sa.Text(), server_default="", nullable=False),
        sa.Column("timeframe", sa.Text(), server_default="", nullable=False),
        sa.Column("filled_quantity", Money(), server_default="0", nullable=False),
        sa.Column("avg_fill_price", Money(), nullable=True),
        sa.Column("arrival_price", Money(), nullable=True),
        sa.Column("purpose", sa.Text(), server_default="signal", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("late", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("as_of", UtcDateTime(), nullable=False),
        sa.Column("account", sa.Text(), server_default="paper", nullable=False),
        sa.CheckConstraint(
            "purpose IN ('signal', 'stop_loss', 'take_profit', 'trailing_stop', 'orphan', 'flatten')",
            name=op.f("ck_orders_purpose"),
        ),
        sa.CheckConstraint("side IN ('BUY', 'SELL')", name=op.f("ck_orders_side")),
        sa.CheckConstraint(
            "status IN ('PENDING', 'PARTIAL', 'FILLED', 'CANCELED', 'EXPIRED', 'REJECTED', 'FAILED', 'UNKNOWN')",
            name=op.f("ck_orders_status"),
        ),
        sa.ForeignKeyConstraint(["signal_id"], ["signals.id"], name=op.f("fk_orders_signal_id_signals")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
    )
    op.create_index(op.f("ix_orders_signal_id"), "orders", ["signal_id"])
    op.create_index(op.f("ix_orders_status"), "orders", ["status"])
    op.create_index(op.f("ix_orders_strategy_symbol_timeframe"), "orders", ["strategy", "symbol", "timeframe"])
    op.create_table(
        "order_attempts",
        sa.Column("client_order_id", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("signed_at", UtcDateTime(), nullable=True),
        sa.Column("recv_window_ms", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("absent_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("venue_order_id", sa.Text(), nullable=True),
        sa.Column("raw_result", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_order_attempts_order_id_orders")),
        sa.PrimaryKeyConstraint("client_order_id", name=op.f("pk_order_attempts")),
        sa.UniqueConstraint("order_id", "attempt", name=op.f("uq_order_attempts_order_id_attempt")),
    )
    op.create_table(
        "trades",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("side", sa.Text(), nullable=False),
        sa.Column("price", Money(), nullable=False),
        sa.Column("quantity", Money(), nullable=False),
        sa.Column("fee", Money(), nullable=False),
        sa.Column("fee_asset", sa.Text(), nullable=False),
        sa.Column("fee_quote", Money(), server_default="0", nullable=False),
        sa.Column("traded_at", UtcDateTime(), nullable=False),
        sa.Column("as_of", UtcDateTime(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("strategy", sa.Text(), server_default="", nullable=False),
        sa.Column("timeframe", sa.Text(), server_default="", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("venue", sa.Text(), server_default="paper", nullable=False),
        sa.Column("venue_trade_id", sa.Text(), server_default="", nullable=False),
        sa.CheckConstraint("side IN ('BUY', 'SELL')", name=op.f("ck_trades_side")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_trades_order_id_orders")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trades")),
        sa.UniqueConstraint(
            "venue", "symbol", "venue_trade_id", "order_id", name=op.f("uq_trades_venue_symbol_venue_trade_id_order_id")
        ),
    )
    op.create_index(op.f("ix_trades_as_of"), "trades", ["as_of"])
    op.create_index(op.f("ix_trades_order_id"), "trades", ["order_id"])
    op.create_index(op.f("ix_trades_sequence"), "trades", ["sequence"])


def downgrade() -> None:
    """Drop every table, those that point to others first."""
    op.drop_table("trades")
    op.drop_table("order_attempts")
    op.drop_table("orders")
    op.drop_table("strategy_states")
    op.drop_table("strategy_positions")
    op.drop_table("stamp")
    op.drop_table("signals")
    op.drop_table("quarantine")
    op.drop_table("positions")
    op.drop_table("portfolio_snapshots")
    op.drop_table("outbox")
    op.drop_table("movements")
    op.drop_table("ledger")
    op.drop_table("lease")
    op.drop_table("inbox")
    op.drop_table("decisions")
    op.drop_table("dead_letters")
    op.drop_table("cursors")
    op.drop_table("control")
    op.drop_table("candles")
    op.drop_table("candle_revisions")
    op.drop_table("candle_gaps")
    op.drop_table("allocations")
    op.drop_table("accounts")
