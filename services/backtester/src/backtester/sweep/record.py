"""Writes the trials of a sweep into the ledger, a chunk at a time."""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import TYPE_CHECKING

from backtester.data import CandleData
from backtester.sweep.request import SweepRequest
from backtester.sweep.sets import Sets
from backtester.trials import Trial, record_trials
from shared.domain.performance import DAYS_A_YEAR
from shared.errors import ConfigError
from shared.plugins import StrategyPlugin, config_hash

if TYPE_CHECKING:
    import polars as pl


class TrialRecorder:
    """Knows what all trials of a sweep have in common; `number` is the ledger's count on this data so far.

    `begun_at` is when an interrupted sweep was begun that goes on now: what it had recorded is not recorded again.
    """

    def __init__(
        self,
        request: SweepRequest,
        plugin: StrategyPlugin,
        sets: Sets,
        data: CandleData,
        begun_at: datetime | None = None,
    ) -> None:
        self._state, self._plugin, self._sets, self._data = request.trials, plugin, sets, data
        self._costs, self._balance = request.options.cost_words, request.initial_balance
        self._begun_at = begun_at
        self.number = 0
        self.notices: list[str] = []

    def record(self, rows: pl.DataFrame, now: datetime) -> None:
        """Append one row a trial, all in one go; a ledger that fails is a notice, not the loss of the sweep."""
        if self._state is None or not len(rows):
            return
        names = ("trial", "trades", "final_balance", "sharpe")
        trials = [self._trial(dict(zip(names, row, strict=True)), now) for row in rows.select(names).iter_rows()]
        try:
            recorded = record_trials(self._state, trials, once_since=self._begun_at)
        except ConfigError as error:
            if str(error) not in self.notices:
                self.notices.append(str(error))
            return
        self.number = recorded.number
        if recorded.notice:
            self.notices.append(recorded.notice)

    def _trial(self, row: dict[str, float], now: datetime) -> Trial:
        strategy, data = self._sets.strategy(int(row["trial"])), self._data
        sharpe = row["sharpe"]
        return Trial(
            recorded_at=now,
            strategy=strategy.name,
            code_hash=self._plugin.code_hash,
            config_hash=config_hash(strategy),
            params=json.dumps(strategy.params.model_dump(mode="json"), sort_keys=True),
            data_sha256=data.sha256,
            symbol=data.symbol,
            timeframe=data.timeframe,
            first=data.first,
            last=data.last,
            candles=data.rows,
            engine="compiled",
            costs=self._costs,
            trades=int(row["trades"]),
            initial_balance=float(self._balance),
            final_balance=row["final_balance"],
            sharpe_daily=None if math.isnan(sharpe) else sharpe / math.sqrt(DAYS_A_YEAR),
        )
