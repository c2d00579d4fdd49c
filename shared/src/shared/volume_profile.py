"""Volume profile: how much was traded at which price, its fullest price and the area around it.

Plain Python over float64 arrays, taken by a step into its own machine code. Equal means within 1e-9 of the fullest
bin wherever two volumes are compared, so that rounding decides nothing. No value may be NaN.

The candles are rows of four numbers (low, high, volume, volume a price unit of low..high) in any order. A `profile`
is eight numbers: lowest low, highest high, volume, low of the value area, point of control, high of the value area,
width of a bin and its inverse. `bins` are the volumes of `bin_count` bins, then as many and one more places of scratch.
"""

from __future__ import annotations

from typing import Any

PROFILE_TIE = 1e-9
PROFILE_NUMBERS = 8
CANDLE_NUMBERS = 4


def profile_room(bin_count: int) -> int:
    """Return how many float64 the bins and their scratch need."""
    return 2 * bin_count + 1


def profile_put(candles: Any, place: int, low: float, high: float, volume: float) -> None:
    """Write one candle into its row; volume in base units, >= 0."""
    at = CANDLE_NUMBERS * place
    candles[at] = low
    candles[at + 1] = high
    candles[at + 2] = volume
    candles[at + 3] = volume / (high - low) if high > low else 0.0


def profile_range(candles: Any, count: int, profile: Any) -> None:
    """Put the lowest low and the highest high of the first `count` candles into the profile."""
    lowest = candles[0]
    highest = candles[1]
    for at in range(0, CANDLE_NUMBERS * count, CANDLE_NUMBERS):
        lowest = min(lowest, candles[at])
        highest = max(highest, candles[at + 1])
    profile[0] = lowest
    profile[1] = highest


def profile_bin(distance: float, inverse: float, bin_count: int) -> int:
    """Return the bin so far above the lowest low, which at an edge may be the one beside; the top bin is closed."""
    return min(int(distance * inverse), bin_count - 1)


def profile_exact_bin(distance: float, width: float, bin_count: int) -> int:
    """Return the bin [low, high) so far above the lowest low, edges included; the top bin is closed."""
    return max(0, min(int(distance / width), bin_count - 1))


def profile_fill(candles: Any, count: int, bins: Any, bin_count: int, profile: Any) -> None:
    """Spread each candle's volume evenly over its own low..high into `bins`; volume and width of a bin are put down.

    Whole bins are written as two ends of a step and summed once, so the work is candles plus bins, not their product.

    Parameters
    ----------
    candles : ndarray of float64
        `count` rows of `profile_put`.
    bins : ndarray of float64, at least `profile_room(bin_count)` long
        Receives the volume of each bin.
    profile : ndarray of float64
        Lowest low and highest high (above the lowest), as `profile_range` leaves them.
    """
    lowest = profile[0]
    profile[6] = width = (profile[1] - lowest) / bin_count
    profile[7] = inverse = bin_count / (profile[1] - lowest)
    bins[: 2 * bin_count + 1] = 0.0
    total = 0.0
    for at in range(0, CANDLE_NUMBERS * count, CANDLE_NUMBERS):
        low = candles[at] - lowest
        high = candles[at + 1] - lowest
        density = candles[at + 3]
        total += candles[at + 2]
        first = profile_bin(low, inverse, bin_count)
        last = profile_bin(high, inverse, bin_count)
        if first >= last:
            place = first if high > low else profile_exact_bin(low, width, bin_count)
            bins[place] += candles[at + 2]
            continue
        bins[first] += density * max(0.0, (first + 1) * width - low)
        bins[last] += density * max(0.0, high - last * width)
        bins[bin_count + first + 1] += density * width
        bins[bin_count + last] -= density * width
    profile[2] = total
    running = 0.0
    for place in range(bin_count):
        running += bins[bin_count + place]
        bins[place] += running


def profile_change(candles: Any, place: int, times: float, bins: Any, bin_count: int, profile: Any) -> None:
    """Add one candle to the bins and the volume (`times` 1) or take it away (-1); it lies within the range."""
    at = CANDLE_NUMBERS * place
    lowest = profile[0]
    low = candles[at] - lowest
    high = candles[at + 1] - lowest
    volume = times * candles[at + 2]
    density = times * candles[at + 3]
    width = profile[6]
    inverse = profile[7]
    profile[2] += volume
    first = profile_bin(low, inverse, bin_count)
    last = profile_bin(high, inverse, bin_count)
    if first >= last:
        if high <= low:
            first = profile_exact_bin(low, width, bin_count)
        bins[first] += volume
        return
    bins[first] += density * max(0.0, (first + 1) * width - low)
    bins[last] += density * max(0.0, high - last * width)
    whole = density * width
    for each in range(first + 1, last):
        bins[each] += whole


def profile_point(bins: Any, bin_count: int) -> int:
    """Return the fullest bin; among those within 1e-9 of it the one nearest the middle, the lower of two."""
    first = second = third = fourth = bins[0]
    for place in range(0, bin_count - 3, 4):
        first = bins[place] if bins[place] > first else first
        second = bins[place + 1] if bins[place + 1] > second else second
        third = bins[place + 2] if bins[place + 2] > third else third
        fourth = bins[place + 3] if bins[place + 3] > fourth else fourth
    for place in range(bin_count - bin_count % 4, bin_count):
        first = max(first, bins[place])
    least = max(max(first, second), max(third, fourth)) * (1.0 - PROFILE_TIE)
    lower = (bin_count - 1) // 2
    upper = bin_count // 2
    while bins[lower] < least:
        if bins[upper] >= least:
            return upper
        lower -= 1
        upper += 1
    return lower


def profile_reaches_down(bins: Any, bin_count: int, point: int, place: int, wanted: float) -> bool:
    """Return whether the value area grown from `point` takes the bin `place` below it.

    It does unless it holds what is wanted before: the bins between, and the upper neighbours that are fuller than the
    emptiest of the bins it must take on the way down.
    """
    slack = PROFILE_TIE * bins[point]
    emptiest = bins[place]
    held = bins[point]
    for each in range(place + 1, point):
        held += bins[each]
        emptiest = min(emptiest, bins[each])
    above = point + 1
    while held < wanted and above < bin_count and emptiest < bins[above] - slack:
        held += bins[above]
        above += 1
    return bool(held < wanted)


def profile_reaches_up(bins: Any, point: int, place: int, wanted: float) -> bool:
    """Return whether the value area grown from `point` takes the bin `place` above it, as `profile_reaches_down`."""
    slack = PROFILE_TIE * bins[point]
    emptiest = bins[place]
    held = bins[point]
    for each in range(point + 1, place):
        held += bins[each]
        emptiest = min(emptiest, bins[each])
    below = point - 1
    while held < wanted and below >= 0 and bins[below] >= emptiest - slack:
        held += bins[below]
        below -= 1
    return bool(held < wanted)


def profile_side(bins: Any, bin_count: int, share: float, profile: Any, price: float) -> int:
    """Return -1, 0 or 1: `price` lies below, inside or above the value area; the point of control is put down.

    The same answer as from `profile_area`, without growing the whole area.

    Parameters
    ----------
    bins : ndarray of float64
        The volume of `bin_count` bins.
    share : float
        What the area must hold of the volume, in (0, 1].
    profile : ndarray of float64
        As `profile_fill` leaves it.
    price : float
        Within the profile's range.
    """
    lowest = profile[0]
    width = profile[6]
    point = profile_point(bins, bin_count)
    profile[4] = lowest + (point + 0.5) * width
    wanted = share * profile[2] - PROFILE_TIE * profile[2]
    place = profile_bin(price - lowest, profile[7], bin_count)
    if price < lowest + place * width:
        place -= 1
    elif place < bin_count - 1 and price >= lowest + (place + 1) * width:
        place += 1
    if place < point:
        return 0 if profile_reaches_down(bins, bin_count, point, place, wanted) else -1
    if price == lowest + place * width:  # an upper edge belongs to the area below it
        place -= 1
    if place > point:
        return 0 if profile_reaches_up(bins, point, place, wanted) else 1
    return 0


def profile_area(bins: Any, bin_count: int, share: float, profile: Any) -> None:
    """Grow the value area from the fullest bin; put its low, the point of control and its high into the profile.

    Parameters
    ----------
    bins : ndarray of float64
        The volume of `bin_count` bins.
    share : float
        What the area must hold of the volume, in (0, 1].
    profile : ndarray of float64
        As `profile_fill` leaves it.

    The fuller neighbour is taken, the lower of two that are equal. Equal means within 1e-9 of the fullest bin, and
    "holds" within 1e-9 of the volume, so that rounding decides nothing.
    """
    point = profile_point(bins, bin_count)
    slack = PROFILE_TIE * bins[point]
    wanted = share * profile[2] - PROFILE_TIE * profile[2]
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
    profile[3] = profile[0] + first * profile[6]
    profile[4] = profile[0] + (point + 0.5) * profile[6]
    profile[5] = profile[1] if last == bin_count - 1 else profile[0] + (last + 1) * profile[6]
