"""Volume profile: how much was traded at which price, its fullest price and the area around it.

Plain Python over float64 arrays, taken by a step into its own machine code. Equal means within 1e-9 of the fullest
bin wherever two volumes are compared, so that rounding decides nothing. No value may be NaN.
"""

from __future__ import annotations

from typing import Any

PROFILE_TIE = 1e-9


def profile_range(lows: Any, highs: Any, volumes: Any, count: int, out: Any) -> None:
    """Put the lowest low, the highest high and the volume of the first `count` entries into out[0], out[1], out[2]."""
    lowest = lows[0]
    highest = highs[0]
    total = 0.0
    for place in range(count):
        lowest = min(lowest, lows[place])
        highest = max(highest, highs[place])
        total += volumes[place]
    out[0] = lowest
    out[1] = highest
    out[2] = total


def profile_bin(price: float, lowest: float, width: float, bin_count: int) -> int:
    """Return the bin [low, high) that holds `price`; the top bin is closed."""
    return max(0, min(int((price - lowest) / width), bin_count - 1))


def profile_fill(lows: Any, highs: Any, volumes: Any, count: int, bins: Any, bin_count: int, out: Any) -> None:
    """Spread each candle's volume evenly over its own low..high into `bins`.

    Whole bins are written as two ends of a step and summed once, so the work is candles plus bins, not their product.

    Parameters
    ----------
    lows, highs, volumes : ndarray of float64
        `count` candles in any order; volume in base units, >= 0.
    bins : ndarray of float64, at least 2 x bin_count + 1 long
        Receives the volume of each bin in its first `bin_count` places; the rest is scratch.
    out : ndarray of float64
        Lowest low, highest high (above the lowest) and volume, as `profile_range` leaves them.
    """
    lowest = out[0]
    width = (out[1] - lowest) / bin_count
    for place in range(2 * bin_count + 1):
        bins[place] = 0.0
    for place in range(count):
        low, high, volume = lows[place], highs[place], volumes[place]
        first = profile_bin(low, lowest, width, bin_count)
        last = profile_bin(high, lowest, width, bin_count)
        if first >= last:
            bins[first] += volume
            continue
        density = volume / (high - low)
        bins[first] += density * max(0.0, lowest + (first + 1) * width - low)
        bins[last] += density * max(0.0, high - (lowest + last * width))
        bins[bin_count + first + 1] += density * width
        bins[bin_count + last] -= density * width
    running = 0.0
    for place in range(bin_count):
        running += bins[bin_count + place]
        bins[place] += running


def profile_point(bins: Any, bin_count: int) -> int:
    """Return the fullest bin; among those within 1e-9 of it the one nearest the middle, the lower of two."""
    fullest = bins[0]
    for place in range(bin_count):
        fullest = max(fullest, bins[place])
    best = 0
    best_distance = 2 * bin_count
    for place in range(bin_count):
        distance = abs(2 * place - (bin_count - 1))
        if bins[place] >= fullest * (1.0 - PROFILE_TIE) and distance < best_distance:
            best = place
            best_distance = distance
    return best


def profile_area(bins: Any, bin_count: int, share: float, out: Any) -> None:
    """Grow the value area from the fullest bin; put its low, point of control and high into out[3], out[4], out[5].

    Parameters
    ----------
    bins : ndarray of float64
        The volume of `bin_count` bins.
    share : float
        What the area must hold of the volume, in (0, 1].
    out : ndarray of float64
        Holds lowest low, highest high and volume.

    The fuller neighbour is taken, the lower of two that are equal. Equal means within 1e-9 of the fullest bin, and
    "holds" within 1e-9 of the volume, so that rounding decides nothing.
    """
    point = profile_point(bins, bin_count)
    slack = PROFILE_TIE * bins[point]
    wanted = share * out[2] - PROFILE_TIE * out[2]
    first = point
    last = point
    held = bins[point]
    while held < wanted and (first > 0 or last < bin_count - 1):
        below = bins[first - 1] if first > 0 else -1.0
        above = bins[last + 1] if last < bin_count - 1 else -1.0
        if first > 0 and (last == bin_count - 1 or below >= above - slack):
            first -= 1
            held += below
        else:
            last += 1
            held += above
    width = (out[1] - out[0]) / bin_count
    out[3] = out[0] + first * width
    out[4] = out[0] + (point + 0.5) * width
    out[5] = out[1] if last == bin_count - 1 else out[0] + (last + 1) * width
