"""The options of how a run trades and what it pays, as every command that runs strategies over history takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import click

from backtester.option_types import NumberType, SizingType
from backtester.options import ENTRIES_MAX, BacktestOptions
from shared.config import Settings
from shared.domain.fees import FeeAsset
from shared.errors import ConfigError
from shared.instances import account_limits

SLIPPAGE_BPS = Decimal(2)
DATA_HELP = "candles: a .parquet or .csv file, db: for the state's own, or simulated:DAYS"

TRADING_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--fee", default="0.001", show_default=True, type=NumberType(), help="fraction of the notional"),
    click.option("--fee-maker", type=NumberType(), help="of take-profits, which rest in the book [default: --fee]"),
    click.option(
        "--fee-asset", default="quote", show_default=True, type=click.Choice([asset.value for asset in FeeAsset])
    ),
    click.option("--slippage-bps", type=NumberType(), help=f"against us, each fill [default: {SLIPPAGE_BPS}]"),
    click.option("--half-spread-bps", type=NumberType(), help="slippage by size, in place of --slippage-bps: its base"),
    click.option(
        "--impact-bps",
        type=NumberType(),
        help="and what an order as large as the median volume of the last 20 candles pays beside it",
    ),
    click.option("--partial-cash", is_flag=True, help="cut a BUY that cash does not cover, where it is rejected else"),
    click.option("--fill", default="next-open", show_default=True, type=click.Choice(["next-open", "close"])),
    click.option(
        "--gap",
        default="refuse",
        show_default=True,
        type=click.Choice(["refuse", "fill"]),
        help="a BUY whose next open comes too late",
    ),
    click.option(
        "--sizing",
        default="fixed",
        show_default=True,
        type=SizingType(),
        help="fixed, quote:N, equity_fraction:F or risk:P",
    ),
    click.option(
        "--max-entries",
        type=click.IntRange(min=0, max=ENTRIES_MAX),
        help="open entries; 0 unlimited [default: the strategy's]",
    ),
    click.option("--stop-loss-pct", default="0", type=NumberType(), help="below the average entry; 0 off"),
    click.option("--take-profit-pct", default="0", type=NumberType(), help="above the average entry; 0 off"),
    click.option("--trailing-pct", default="0", type=NumberType(), help="below the best price since entry; 0 off"),
    click.option(
        "--risk",
        default="off",
        show_default=True,
        type=click.Choice(["off", "live"]),
        help="the account limits of `up`",
    ),
    click.option("--close-at-end", is_flag=True, help="sell what is held at the last close"),
)


def trading_options(given: Mapping[str, Any], settings: Settings) -> BacktestOptions:
    """Return what was given through `TRADING_OPTIONS`; the account limits of --risk live are the settings'."""
    by_size = [name for name in ("half_spread_bps", "impact_bps") if given[name] is not None]
    if by_size and given["slippage_bps"] is not None:
        option = by_size[0].replace("_", "-")
        raise ConfigError(f"--slippage-bps and --{option}: two models of the same cost; give one of them")
    flat = SLIPPAGE_BPS if given["slippage_bps"] is None else given["slippage_bps"]
    costs = ("fee", "fee_maker", "half_spread_bps", "impact_bps", "partial_cash")
    rules = ("fill", "gap", "sizing", "max_entries", "close_at_end")
    exits = ("stop_loss_pct", "take_profit_pct", "trailing_pct")
    return BacktestOptions(
        **{name: given[name] for name in (*costs, *rules, *exits)},
        slippage_bps=Decimal(0) if by_size else flat,
        fee_asset=FeeAsset(given["fee_asset"]),
        limits=account_limits(settings) if given["risk"] == "live" else None,
    )
