"""Seven strategies together on paper trade, each, exactly as alone in a backtest with its allocation."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import select

from backtester.options import BacktestOptions
from backtester.run import BacktestRequest, run_backtest
from shared.config import Settings, load_settings
from shared.db import Database
from shared.domain.positions import fill_effect
from shared.models import Fill, InstanceKey, OrderSide
from shared.sa_models import AllocationRow, StrategyPositionRow, TradeRow
from shared.testing.platform_runs import COMMAND, PlatformRun
from shared.testing.reference import reference_path
from shared.testing.state_tables import read_tables
from trading_cli.composition import open_platform

pytestmark = pytest.mark.e2e


class Stream(NamedTuple):
    """A recorded file, from where and how many rows."""

    name: str
    source: str
    first: datetime
    rows: int


class Case(NamedTuple):
    """What is traded, at which costs and by which rules; strategy parameters come on top of the YAML that ships."""

    streams: tuple[Stream, ...]
    costs: Mapping[str, str]
    params: Mapping[str, Mapping[str, Any]]
    instrument: str = "known"


class Traded(NamedTuple):
    """One fill as both sides tell it, with the instance's cash after it."""

    time: datetime
    side: str
    price: Decimal
    quantity: Decimal
    fee: Decimal
    cash: Decimal
    reason: str


BTC_1M = Stream(
    "BTC/USDT:1m",
    "data/candles/binance-BTCUSDT-1m-2024crash.parquet",
    datetime.fromisoformat("2024-08-04T00:00:00Z"),
    4_200,
)
ETH_5M = Stream(
    "ETH/USDT:5m", "data/candles/binance-ETHUSDT-5m.parquet", datetime.fromisoformat("2024-07-25T00:00:00Z"), 4_000
)
BTC_1H = Stream(
    "BTC/USDT:1h", "data/candles/binance-BTCUSDT-1h.parquet", datetime.fromisoformat("2018-01-01T00:00:00Z"), 3_000
)
LTC_1M = Stream(
    "LTC/USDT:1m", "data/candles/bitfinex-LTCUSD-1m.parquet", datetime.fromisoformat("2019-03-01T00:00:00Z"), 1_500
)
CRASH_GRID = {"grid": {"lower_price": 49000, "upper_price": 61000, "grid_count": 12}}
ETH_GRID = {"grid": {"lower_price": 2100, "upper_price": 3500, "grid_count": 14}}
HOUR_PARAMS = {"grid": {"lower_price": 6000, "upper_price": 17000, "grid_count": 11}, "vwap": {"anchor": "month"}}
MIXED_PARAMS = {
    "grid": {
        "lower_price": 49000,
        "upper_price": 61000,
        "grid_count": 12,
        "symbols": {
            "ETH/USDT": {"lower_price": 2100, "upper_price": 3500, "grid_count": 14},
            "LTC/USDT": {"lower_price": 40, "upper_price": 60, "grid_count": 80},
        },
    },
    "rsi": {"trigger": "leave"},
}
HOLEY_GRID = {"grid": {"lower_price": 40, "upper_price": 60, "grid_count": 80}}
EQUITY = {"sizing": "equity_fraction:0.3"}
CASES = {
    "crash_free_of_slippage": Case((BTC_1M,), EQUITY | {"slippage_bps": "0"}, CRASH_GRID),
    "crash_fee_received_no_stop": Case(
        (BTC_1M,),
        {"sizing": "fixed", "slippage_bps": "2", "fee_asset": "received", "risk_stop_loss_pct": "0"},
        CRASH_GRID,
    ),
    "eth_five_minutes": Case((ETH_5M,), EQUITY | {"slippage_bps": "2"}, ETH_GRID, "free"),
    "eth_five_minutes_fixed": Case(
        (ETH_5M,),
        {"sizing": "fixed", "slippage_bps": "0", "fee_asset": "received", "trailing_pct": "2", "take_profit_pct": "3"},
        ETH_GRID,
    ),
    "hours_with_holes": Case((BTC_1H,), EQUITY | {"slippage_bps": "2", "fee_asset": "received"}, HOUR_PARAMS, "free"),
    "minutes_with_many_holes": Case(
        (LTC_1M._replace(rows=3_000),), EQUITY | {"slippage_bps": "2", "signal_age_max": "90"}, HOLEY_GRID, "free"
    ),
    "three_streams_at_once": Case(
        (BTC_1M._replace(rows=1_500), ETH_5M._replace(first=BTC_1M.first, rows=300), LTC_1M),
        EQUITY | {"slippage_bps": "2", "max_entries": "0", "risk_stop_loss_pct": "2"},
        MIXED_PARAMS,
    ),
}


def write_slices(case: Case, folder: Path) -> dict[str, Path]:
    """Write each stream's rows to a file of its own and return the files by stream."""
    import polars

    paths = {}
    for stream in case.streams:
        frame = polars.read_parquet(reference_path(stream.source))
        rows = frame.filter(polars.col("open_time") >= stream.first).head(stream.rows)
        assert rows.height == stream.rows
        paths[stream.name] = folder / f"{stream.name.replace('/', '').replace(':', '-')}.parquet"
        rows.write_parquet(paths[stream.name])
    return paths


async def run_up(settings: Settings) -> tuple[dict[InstanceKey, list[Traded]], dict[InstanceKey, Decimal]]:
    """Run the whole platform to the end of the data; return each instance's fills and its allocation."""
    settings.state.mkdir()
    async with open_platform(settings) as platform:
        await platform.run(asyncio.Event())
        return await read_fills(platform.database)


async def read_fills(database: Database) -> tuple[dict[InstanceKey, list[Traded]], dict[InstanceKey, Decimal]]:
    async with database.read() as session:
        trades = (await session.execute(select(TradeRow.__table__).order_by(TradeRow.sequence))).mappings().all()
        allocations = (await session.execute(select(AllocationRow.__table__))).mappings().all()
        subs = (await session.execute(select(StrategyPositionRow.__table__))).mappings().all()
    given = {InstanceKey(row["strategy"], row["symbol"], row["timeframe"]): row["cash"] for row in allocations}
    cash = dict(given)
    fills: dict[InstanceKey, list[Traded]] = {key: [] for key in given}
    for row in trades:
        fill = Fill(**{**row, "side": OrderSide(row["side"])})
        base, change = fill_effect(fill)
        cash[fill.instance] += change
        fills[fill.instance].append(
            Traded(
                fill.traded_at, fill.side.value, fill.price, abs(base), fill.fee_quote, cash[fill.instance], fill.reason
            )
        )
    for row in subs:
        assert row["cash"] == cash[InstanceKey(row["strategy"], row["symbol"], row["timeframe"])]
    return fills, given


def run_alone(case: Case, key: InstanceKey, path: Path, allocation: Decimal, settings: Settings) -> list[Traded]:
    """Return the fills of the instance's own backtest."""
    options = BacktestOptions(
        fee=settings.fee_taker,
        fee_asset=settings.fee_asset,
        slippage_bps=settings.slippage_bps,
        sizing=settings.sizing,
        max_entries=settings.max_entries,
        stop_loss_pct=settings.risk_stop_loss_pct,
        take_profit_pct=settings.take_profit_pct,
        trailing_pct=settings.trailing_pct,
        age_max=timedelta(seconds=settings.signal_age_max) if settings.signal_age_max else None,
    )
    result = run_backtest(
        BacktestRequest(
            strategy=key.strategy,
            data=str(path),
            symbol=key.symbol,
            timeframe=key.timeframe,
            params=case.params.get(key.strategy, {}),
            initial_balance=allocation,
            options=options,
            instrument=case.instrument,
            engine="event",
        )
    )
    return [
        Traded(trade.time, trade.side, trade.price, trade.quantity, trade.fee, trade.balance_after, trade.reason)
        for trade in result.trades
    ]


@pytest.mark.parametrize("name", CASES)
async def test_each_strategy_among_seven_fills_as_in_its_own_backtest(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    paths = write_slices(case, tmp_path)
    settings = load_settings(
        {
            "feed": "replay",
            "data": ",".join(f"{stream}={path}" for stream, path in paths.items()),
            "speed": "max",
            "balance": "100000",
            "risk": "off",
            "instrument": case.instrument,
            "strategy_params": case.params,
            "state": tmp_path / "state",
            "health_port": "0",
            **case.costs,
        },
        env={},
    )
    together, allocations = await run_up(settings)
    assert len(together) == 7 * len(case.streams)
    silent = [str(key) for key, fills in together.items() if not fills]
    assert len(silent) <= len(case.streams), f"blind: no fill of {silent}"
    for key, fills in together.items():
        path = paths[f"{key.symbol}:{key.timeframe}"]
        alone = run_alone(case, key, path, allocations[key], settings)
        assert fills == alone, f"{key}: {len(fills)} fills in `up`, {len(alone)} alone"


def test_the_two_commands_tell_the_same_fills(tmp_path: Path) -> None:
    case = Case((BTC_1M._replace(rows=2_000),), {}, CRASH_GRID)
    (path,) = write_slices(case, tmp_path).values()
    params = json.dumps(CRASH_GRID)
    options = ("--feed", "replay", "--data", f"BTC/USDT:1m={path}", "--speed", "max", "--balance", "100000")
    rules = ("--risk", "off", "--strategy-params", params, "--risk-stop-loss-pct", "3", "--slippage-bps", "1.5")
    run = PlatformRun(tmp_path / "state", options + rules)
    assert run.finish().code == 0, run.said()
    tables = read_tables(run.database, ["trades", "allocations"])
    for strategy in ("grid", "macd"):
        together = [row for row in tables["trades"] if row["strategy"] == strategy]
        (allocation,) = (row["cash"] for row in tables["allocations"] if row["strategy"] == strategy)
        assert len(together) > 5
        assert [stored_fill(row) for row in together] == backtested(strategy, path, allocation)


def stored_fill(row: Mapping[str, Any]) -> tuple[object, ...]:
    """Return what the backtest's JSON tells of a fill, which has floats where the table has exact text."""
    time = row["traded_at"][:19].replace(" ", "T")
    return (time, row["side"], float(row["price"]), float(row["quantity"]), float(row["fee"]), row["reason"])


def backtested(strategy: str, path: Path, allocation: str) -> list[tuple[object, ...]]:
    """Run `trading backtest` in a process of its own and return its fills."""
    params = [word for key, value in CRASH_GRID.get(strategy, {}).items() for word in ("--param", f"{key}={value}")]
    command = [str(COMMAND), "backtest", "--strategy", strategy, "--data", str(path), "--symbol", "BTC/USDT"]
    command += [*params, "--initial-balance", allocation, "--sizing", "equity_fraction:0.12", "--stop-loss-pct", "3"]
    command += ["--slippage-bps", "1.5", "--instrument", "known", "--json", "-", "--state", str(path.parent / "trials")]
    trades = json.loads(subprocess.run(command, capture_output=True, check=True, cwd=path.parent).stdout)["trades"]
    return [
        (each["time"][:19], each["side"], each["price"], each["quantity"], each["fee"], each["reason"])
        for each in trades
    ]
