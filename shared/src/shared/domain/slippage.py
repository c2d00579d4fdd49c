"""What it costs to take liquidity: half the spread, and an impact that grows with the share of the market one is."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from decimal import Decimal

import msgspec

from shared.domain.rounding import MONEY_CONTEXT, ZERO, money, plus, ratio, times

VOLUME_WINDOW = 20
PARTICIPATION_MAX = Decimal(100)
BPS_BELOW = Decimal(10_000)
_TWO = Decimal(2)


class ImpactModel(msgspec.Struct, frozen=True, kw_only=True):
    """Slippage by size, in basis points of the price.

    `half_spread_bps` is paid by every order; `impact_bps` is what an order as large as the market's median candle
    volume pays beside it. It stands in the place of a flat `slippage_bps`.
    """

    half_spread_bps: Decimal = ZERO
    impact_bps: Decimal = ZERO

    def __post_init__(self) -> None:
        """Refuse a model that could take the whole price, or pay us."""
        for name, bps in (("half_spread_bps", self.half_spread_bps), ("impact_bps", self.impact_bps)):
            if not (bps.is_finite() and bps >= 0):
                raise ValueError(f"{name}: must be 0 or more basis points, was {bps}")
        if market_slippage_bps(self, PARTICIPATION_MAX) >= BPS_BELOW:
            raise ValueError(
                f"half_spread_bps {self.half_spread_bps} + impact_bps {self.impact_bps} x "
                f"{MONEY_CONTEXT.sqrt(PARTICIPATION_MAX).normalize():f} (an order of {PARTICIPATION_MAX} median candles) "
                f"must stay below {BPS_BELOW}, the whole price"
            )


def median_volume(volumes: Sequence[Decimal]) -> Decimal:
    """Return the median of candle volumes.

    Parameters
    ----------
    volumes : sequence of Decimal
        Base units, >= 0, in any order; those of the last `VOLUME_WINDOW` (20) candles that had closed before the
        fill, or of fewer where the run is younger.

    Returns
    -------
    Decimal
        Base units; the mean of the two middle ones for an even number, 0 for none.

    Example: 1, 9, 2, 4 -> 3.
    """
    if not volumes:
        return ZERO
    ordered = sorted(volumes)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return ratio(plus(ordered[middle - 1], ordered[middle]), _TWO)


def participation(quantity: Decimal, volume: Decimal) -> Decimal:
    """Return an order's size as a multiple of the median candle's volume.

    Parameters
    ----------
    quantity : Decimal
        Base units, > 0.
    volume : Decimal
        As `median_volume` gives it, >= 0.

    Returns
    -------
    Decimal
        `quantity / volume` to 18 decimals, at most `PARTICIPATION_MAX` (100), which also stands for a market in
        which nothing was traded.

    Example: 0.5 of a median 2 -> 0.25.
    """
    if volume <= 0 or quantity >= MONEY_CONTEXT.multiply(volume, PARTICIPATION_MAX):
        return PARTICIPATION_MAX
    return ratio(quantity, volume)


def market_slippage_bps(model: ImpactModel, share: Decimal) -> Decimal:
    """Return the slippage of a market order by the square-root law.

    Parameters
    ----------
    model : ImpactModel
        Its two figures.
    share : Decimal
        As `participation` gives it, 0..100.

    Returns
    -------
    Decimal
        `half_spread_bps + impact_bps x sqrt(share)`; the root and the product are each rounded to 18 decimals, half
        to even. Always below 10,000.

    Source: the square-root impact law (Almgren et al. 2005, "Direct estimation of equity market impact").
    Example: half spread 1, impact 10, share 0.25 -> 6.
    """
    return plus(model.half_spread_bps, times(model.impact_bps, money(MONEY_CONTEXT.sqrt(share))))


class RecentVolumes:
    """The volumes of each stream's last closed candles, and the largest share that a fill had of their median.

    Causal by construction: it knows the candles it was shown, and an order is priced before its own candle is.
    """

    def __init__(self, model: ImpactModel) -> None:
        self.model = model
        self.participation_max = ZERO
        self._windows: dict[tuple[str, str], deque[Decimal]] = {}

    def observe(self, symbol: str, timeframe: str, volume: Decimal) -> None:
        """Take the volume of a candle that has closed; one that is no number is left out."""
        if not (volume.is_finite() and volume >= 0):
            return
        window = self._windows.get((symbol, timeframe))
        if window is None:
            window = self._windows[symbol, timeframe] = deque(maxlen=VOLUME_WINDOW)
        window.append(volume)

    def share(self, symbol: str, timeframe: str, quantity: Decimal) -> Decimal:
        """Return the participation of an order that meets the market now."""
        return participation(quantity, median_volume(self._windows.get((symbol, timeframe), ())))

    def slippage_bps(self, symbol: str, timeframe: str, quantity: Decimal) -> Decimal:
        """Return what an order that meets the market now pays, in basis points."""
        return market_slippage_bps(self.model, self.share(symbol, timeframe, quantity))

    def record(self, share: Decimal) -> None:
        """Count a fill's participation."""
        self.participation_max = max(self.participation_max, share)
