"""The candles of a volume profile, and how much of their volume lies in each bin of their price range.

Plain Python over the fields of a state record (`profile_fields`), taken by a step into its own machine code. No number
may be NaN, no volume negative.

A candle's volume is spread evenly over its own low..high. Laid over the bins, that is a slope which begins at its low
and one which ends it at its high. A slope is two numbers at the bin in which it begins: what that bin alone gets, and
what it and every bin above it get. So a candle is four additions however many bins it covers, one that leaves is the
same four taken back, and the bins are the sums of the slopes from below.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shared.step_intrinsics import add_pair
from shared.step_record import Fields, Ring

ROWS_AT_ONCE = 64
NARROW_SHARE = 1 / 16  # a candle of a smaller part of a bin is too steep for slopes: rounding would show in other bins
PASSED_MAX = 16.0  # what may go through laid slopes, in volumes of the profile: bounds their rounding


def profile_fields(lookback: int, bin_count: int) -> Fields:
    """Return the fields that a state needs for a profile.

    Parameters
    ----------
    lookback : int
        How many candles are looked back on, >= 1.
    bin_count : int
        How many equal bins their range has, >= 1.

    Returns
    -------
    mapping
        Prices in quote, volumes in base units. `lowest`, `highest` and `volume` are of all candles held, from the
        `lookback`-th on; `point_of_control`, `value_low` and `value_high` as the last `profile_side` and `profile_area`
        have left them.

    Example: 100, 50 -> rings of 100 candles, 100 numbers of slopes, 50 bins.
    """
    rings = ("lows", "highs", "volumes", "densities", "low_tails", "high_tails", "volume_tails")
    scratch = ("bottom_parts", "top_parts", "wholes")
    numbers = ("lowest", "highest", "volume", "head_low", "head_high", "head_volume", "width", "inverse", "passed")
    return {
        **dict.fromkeys(("place", "fresh", "point"), 0),
        **dict.fromkeys((*numbers, "value_low", "point_of_control", "value_high"), 0.0),
        **dict.fromkeys(rings, Ring(lookback)),
        **dict.fromkeys(scratch, Ring(ROWS_AT_ONCE)),
        **dict.fromkeys(("bottoms", "tops"), Ring(ROWS_AT_ONCE, int)),
        "slopes": Ring(2 * bin_count),
        "bins": Ring(bin_count),
    }


def at(place: int) -> Any:
    """Return a place that is never negative as a number that says so: else each look asks whether to count from behind."""
    return np.uint64(place)


# --- the candles ------------------------------------------------------------------------------------------------


def profile_push(state: Any, lookback: int, bin_count: int, candle: tuple[float, float, float]) -> None:
    """Put a candle in place of the oldest.

    Parameters
    ----------
    state : record
        With the fields of `profile_fields`. Its slopes follow as long as the range stays; else `profile_renew` lays
        them when they are needed.
    lookback, bin_count : int
        As the fields were made.
    candle : tuple of float
        (low, high, volume): two prices in quote, low <= high, and base units >= 0, all finite.

    Example: (1, 3, 4) as the only candle of one -> lowest 1, highest 3, volume 4.
    """
    low, high, volume = candle
    place = state.place
    is_kept = (
        state.fresh > 0
        and low >= state.lowest
        and high <= state.highest
        and state.lows[at(place)] > state.lowest
        and state.highs[at(place)] < state.highest
    )
    if is_kept:
        profile_change(state, bin_count, place, -1.0)
    profile_put(state, place, low, high, volume)
    if is_kept:
        profile_change(state, bin_count, place, 1.0)
    state.fresh = state.fresh - 1 if is_kept else 0
    state.passed += volume
    if place == lookback - 1:
        profile_sum_tails(state, lookback)
        state.place = 0
    else:
        profile_extend(state, place, low, high, volume)
        state.place = place + 1


def profile_put(state: Any, place: int, low: float, high: float, volume: float) -> None:
    """Write one candle into its place."""
    state.lows[at(place)] = low
    state.highs[at(place)] = high
    state.volumes[at(place)] = volume
    state.densities[at(place)] = volume / (high - low) if high > low else 0.0


def profile_extend(state: Any, place: int, low: float, high: float, volume: float) -> None:
    """Work out range and volume of the candles since the first place, and of the older ones behind, a tail."""
    if place == 0:
        state.head_low = low
        state.head_high = high
        state.head_volume = volume
    else:
        state.head_low = low if low < state.head_low else state.head_low
        state.head_high = high if high > state.head_high else state.head_high
        state.head_volume += volume
    low_tail = state.low_tails[at(place + 1)]
    high_tail = state.high_tails[at(place + 1)]
    state.lowest = low_tail if low_tail < state.head_low else state.head_low
    state.highest = high_tail if high_tail > state.head_high else state.head_high
    state.volume = state.head_volume + state.volume_tails[at(place + 1)]


def profile_sum_tails(state: Any, lookback: int) -> None:
    """Work out range and volume of the candles from each place to the last one."""
    lowest = state.lows[at(lookback - 1)]
    highest = state.highs[at(lookback - 1)]
    volume = 0.0
    for back in range(lookback):
        place = at(lookback - 1 - back)
        lowest = state.lows[place] if state.lows[place] < lowest else lowest
        highest = state.highs[place] if state.highs[place] > highest else highest
        volume += state.volumes[place]
        state.low_tails[place] = lowest
        state.high_tails[place] = highest
        state.volume_tails[place] = volume
    state.lowest = lowest
    state.highest = highest
    state.volume = volume


# --- their slopes -----------------------------------------------------------------------------------------------


def profile_bin(bins_above: float, bin_count: int) -> int:
    """Return the bin that lies so many bins above the lowest low; the top one is closed."""
    return int(bins_above) if bins_above < bin_count - 1.0 else bin_count - 1


def profile_renew(state: Any, lookback: int, bin_count: int) -> None:
    """Lay the slopes of all candles over their range, unless they are laid over it.

    Parameters
    ----------
    state : record
        Full: `lookback` candles or more were pushed; `highest` above `lowest`.
    lookback, bin_count : int
        As the fields were made.
    """
    if state.fresh > 0 and state.passed <= PASSED_MAX * state.volume:
        return
    state.width = (state.highest - state.lowest) / bin_count
    state.inverse = bin_count / (state.highest - state.lowest)
    state.fresh = lookback
    state.passed = state.volume
    for place in range(2 * bin_count):
        state.slopes[place] = 0.0
    for begin in range(0, lookback, ROWS_AT_ONCE):
        count = min(ROWS_AT_ONCE, lookback - begin)
        narrow_count = profile_find_ends(state, begin, count, bin_count - 1.0)
        half = count // 2
        for row in range(half):  # neighbours share bins and would wait for one another
            profile_lay(state, row)
            profile_lay(state, row + half)
        if 2 * half < count:
            profile_lay(state, 2 * half)
        if narrow_count > 0:
            profile_lay_narrow(state, begin, count, bin_count)


def profile_find_ends(state: Any, begin: int, count: int, top_bin: float) -> int:
    """Work out the slopes of some candles, several at a stroke; return how many are too narrow and get none."""
    lowest = state.lowest
    width = state.width
    inverse = state.inverse
    narrow = NARROW_SHARE * width
    narrow_count = 0
    for row in range(count):
        place = at(begin + row)
        low = state.lows[place] - lowest
        high = state.highs[place] - lowest
        bottom = np.floor(low * inverse)
        top = np.floor(high * inverse)
        bottom = bottom if bottom < top_bin else top_bin
        top = top if top < top_bin else top_bin
        is_wide = high - low > narrow
        density = state.densities[place] if is_wide else 0.0
        narrow_count += 0 if is_wide else 1
        state.bottoms[row] = np.int32(bottom)
        state.tops[row] = np.int32(top)
        state.bottom_parts[row] = density * (bottom * width - low)
        state.top_parts[row] = density * (high - top * width)
        state.wholes[row] = density * width
    return narrow_count


def profile_lay(state: Any, row: int) -> None:
    """Add the slopes that are worked out in one row."""
    whole = state.wholes[at(row)]
    add_pair(state.slopes, 2 * state.bottoms[at(row)], state.bottom_parts[at(row)], whole)
    add_pair(state.slopes, 2 * state.tops[at(row)], state.top_parts[at(row)], -whole)


def profile_change(state: Any, bin_count: int, place: int, times: float) -> None:
    """Add the candle in one place to the slopes (`times` 1) or take it away (-1)."""
    low = state.lows[at(place)] - state.lowest
    high = state.highs[at(place)] - state.lowest
    width = state.width
    if not high - low > NARROW_SHARE * width:
        profile_change_narrow(state, bin_count, low, high, times * state.volumes[at(place)])
        return
    bottom = profile_bin(low * state.inverse, bin_count)
    top = profile_bin(high * state.inverse, bin_count)
    density = times * state.densities[at(place)]
    whole = density * width
    add_pair(state.slopes, 2 * bottom, density * (bottom * width - low), whole)
    add_pair(state.slopes, 2 * top, density * (high - top * width), -whole)


def profile_lay_narrow(state: Any, begin: int, count: int, bin_count: int) -> None:
    """Add those of some candles that are too narrow for slopes."""
    narrow = NARROW_SHARE * state.width
    for place in range(begin, begin + count):
        low = state.lows[place] - state.lowest
        high = state.highs[place] - state.lowest
        if not high - low > narrow:
            profile_change_narrow(state, bin_count, low, high, state.volumes[place])


def profile_change_narrow(state: Any, bin_count: int, low: float, high: float, volume: float) -> None:
    """Add a volume to the one or two bins between two distances from the lowest low."""
    if high <= low:  # all at one price: an edge belongs to the bin above it, so no inverse here, which may miss it
        state.slopes[at(2 * profile_bin(low / state.width, bin_count))] += volume
        return
    bottom = profile_bin(low * state.inverse, bin_count)
    top = profile_bin(high * state.inverse, bin_count)
    below = (top * state.width - low) / (high - low) * volume if bottom < top else 0.0
    below = max(0.0, min(volume, below)) if volume > 0.0 else min(0.0, max(volume, below))
    state.slopes[at(2 * bottom)] += below
    state.slopes[at(2 * top)] += volume - below


def profile_fill(state: Any, bin_count: int) -> float:
    """Sum the slopes into the bins; return the volume of the fullest.

    From both ends at once: all slopes together come to nothing above the top bin, and two sums of half the length are
    done sooner than a whole one.
    """
    half = bin_count // 2
    risen = 0.0
    fallen = 0.0
    fullest = 0.0
    other = 0.0
    for place in range(half):
        risen += state.slopes[at(2 * place + 1)]
        volume = state.slopes[at(2 * place)] + risen
        state.bins[at(place)] = volume
        fullest = volume if volume > fullest else fullest
        opposite = bin_count - 1 - place
        volume = state.slopes[at(2 * opposite)] - fallen
        state.bins[at(opposite)] = volume
        other = volume if volume > other else other
        fallen += state.slopes[at(2 * opposite + 1)]
    if 2 * half < bin_count:
        volume = state.slopes[at(2 * half)] - fallen
        state.bins[at(half)] = volume
        other = volume if volume > other else other
    return fullest if fullest > other else other
