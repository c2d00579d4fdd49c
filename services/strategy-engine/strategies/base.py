"""The contract between a strategy and the engines, under the name that strategy files import."""

from shared.strategy import (
    BUY,
    HOLD,
    SELL,
    Action,
    BaseStrategy,
    CompiledStrategy,
    History,
    PluginError,
    Ring,
    StrategyParams,
    candles_to_forget,
    signal_id,
)

__all__ = [
    "BUY",
    "HOLD",
    "SELL",
    "Action",
    "BaseStrategy",
    "CompiledStrategy",
    "History",
    "PluginError",
    "Ring",
    "StrategyParams",
    "candles_to_forget",
    "signal_id",
]
