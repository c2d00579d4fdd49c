"""A strategy that looks at every candle and never speaks: what is left is the platform's own cost."""

from shared.models import Candle, Signal
from shared.strategy import BaseStrategy


class SilentStrategy(BaseStrategy):
    """Counts candles."""

    name = "silent"
    warmup_period = 1

    def reset(self) -> None:
        """Forget the count."""
        self.seen = 0

    def on_candle(self, candle: Candle) -> Signal | None:
        """Count the candle."""
        self.seen += candle.volume > 0
        return None
