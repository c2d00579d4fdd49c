"""The fullest bin of a volume profile, and on which side of the area around it a price lies.

Plain Python over the fields of `shared.volume_profile`, of a profile whose range is more than one price and whose
volume is not 0. Equal means within 1e-9 of the fullest bin wherever two volumes are compared, and "holds" within 1e-9
of the whole volume, so that rounding decides nothing.
"""

from __future__ import annotations

import math
from typing import Any

from shared.volume_profile import at, profile_bin, profile_fill

PROFILE_TIE = 1e-9
CENTRAL_MARGIN = 1e-6  # more than rounding takes from a part of the volume that is summed without its bins


def profile_bin_of(state: Any, bin_count: int, price: float) -> int:
    """Return the bin [low, high) of a price within the range; the top one is closed."""
    place = profile_bin((price - state.lowest) * state.inverse, bin_count)
    if place > 0 and price < state.lowest + place * state.width:
        return place - 1
    if place < bin_count - 1 and price >= state.lowest + (place + 1) * state.width:
        return place + 1
    return place


def profile_is_central(state: Any, bin_count: int, share: float, price: float) -> bool:
    """Return whether a price lies inside the value area wherever the fullest bin is, without summing the bins.

    Parameters
    ----------
    state : record
        As `profile_renew` leaves it.
    bin_count : int
        As the slopes are laid.
    share : float
        What the area must hold of the volume, in (0, 1].
    price : float
        In quote, within the range.

    Returns
    -------
    bool
        True only if neither what lies above the price's bin nor what lies below it is enough for an area. False says
        nothing: ask `profile_side`.

    Example: one candle from 0 to 4 with volume 4, 4 bins, share 0.7, price 1.5 -> True (1 below, 2 above, 2.8 wanted).
    """
    place = profile_bin_of(state, bin_count, price)
    if price == state.lowest + place * state.width:  # an edge belongs to the area below it as well
        return False
    parts = 0.0
    wholes = 0.0
    levers = 0.0
    for each in range(place):
        whole = state.slopes[at(2 * each + 1)]
        parts += state.slopes[at(2 * each)]
        wholes += whole
        levers += each * whole
    below = parts + place * wholes - levers
    inside = wholes + state.slopes[at(2 * place)] + state.slopes[at(2 * place + 1)]
    wanted = (share - CENTRAL_MARGIN) * state.volume
    return bool(below < wanted and state.volume - below - inside < wanted)


def profile_point(state: Any, bin_count: int, fullest: float) -> int:
    """Return the bin that is the fullest; among those within 1e-9 of it the one nearest the middle, the lower of two."""
    least = fullest * (1.0 - PROFILE_TIE)
    count = 0
    places = 0
    for place in range(bin_count):
        is_full = state.bins[at(place)] >= least
        count += 1 if is_full else 0
        places += place if is_full else 0
    if count == 1:
        return places
    lower = (bin_count - 1) // 2
    upper = bin_count // 2
    while state.bins[at(lower)] < least:
        if state.bins[at(upper)] >= least:
            return upper
        lower -= 1
        upper += 1
    return lower


def profile_between(state: Any, first: int, last: int) -> tuple[float, float]:
    """Return the volume of the bins `first` to before `last`, and that of the emptiest (infinite without any)."""
    even = 0.0
    odd = 0.0
    emptiest = math.inf
    for place in range(first, last - 1, 2):
        left = state.bins[at(place)]
        right = state.bins[at(place + 1)]
        even += left
        odd += right
        less = left if left < right else right
        emptiest = less if less < emptiest else emptiest
    if first < last and (last - first) % 2 == 1:
        left = state.bins[at(last - 1)]
        even += left
        emptiest = left if left < emptiest else emptiest
    return even + odd, emptiest


def profile_reaches_down(state: Any, bin_count: int, point: int, place: int, wanted: float) -> bool:
    """Return whether the value area grown from `point` takes the bin `place` below it.

    It does unless it holds what is wanted before: the bins between, and the upper neighbours that are fuller than the
    emptiest of the bins it must take on the way down.
    """
    between, emptiest = profile_between(state, place + 1, point)
    held = state.bins[at(point)] + between
    emptiest = min(emptiest, state.bins[at(place)]) + PROFILE_TIE * state.bins[at(point)]
    above = point + 1
    while held < wanted and above < bin_count and emptiest < state.bins[at(above)]:
        held += state.bins[at(above)]
        above += 1
    return bool(held < wanted)


def profile_reaches_up(state: Any, point: int, place: int, wanted: float) -> bool:
    """Return whether the value area grown from `point` takes the bin `place` above it, as `profile_reaches_down`."""
    between, emptiest = profile_between(state, point + 1, place)
    held = state.bins[at(point)] + between
    emptiest = min(emptiest, state.bins[at(place)]) - PROFILE_TIE * state.bins[at(point)]
    below = point - 1
    while held < wanted and below >= 0 and state.bins[at(below)] >= emptiest:
        held += state.bins[at(below)]
        below -= 1
    return bool(held < wanted)


def profile_side(state: Any, bin_count: int, share: float, price: float) -> int:
    """Return -1, 0 or 1: `price` lies below, inside or above the value area; bins and point of control are put down.

    The same answer as from `profile_area`, without growing the whole area.

    Parameters
    ----------
    state : record
        As `profile_renew` leaves it.
    bin_count : int
        As the slopes are laid.
    share : float
        What the area must hold of the volume, in (0, 1].
    price : float
        In quote, within the range.

    Source: Steidlmayer & Hawkins, "Steidlmayer on Markets", 2003.
    Example: one candle from 0 to 4 with volume 4, 4 bins, share 0.7, price 3.5 -> 1 (the area is 0 to 3).
    """
    point = profile_point(state, bin_count, profile_fill(state, bin_count))
    state.point = point
    state.point_of_control = state.lowest + (point + 0.5) * state.width
    wanted = (share - PROFILE_TIE) * state.volume
    place = profile_bin_of(state, bin_count, price)
    if place < point:
        return 0 if profile_reaches_down(state, bin_count, point, place, wanted) else -1
    if price == state.lowest + place * state.width:  # an upper edge belongs to the area below it
        place -= 1
    if place > point:
        return 0 if profile_reaches_up(state, point, place, wanted) else 1
    return 0


def profile_area(state: Any, bin_count: int, share: float) -> None:
    """Grow the value area from the point of control, after `profile_side`; put its low and its high down.

    The fuller neighbour is taken, the lower of two that are equal.

    Parameters
    ----------
    state : record
        As `profile_side` leaves it.
    bin_count : int
        As the slopes are laid.
    share : float
        What the area must hold of the volume, in (0, 1].

    Example: one candle from 0 to 4 with volume 4, 4 bins, share 0.7 -> 0 to 3.
    """
    point = state.point
    slack = PROFILE_TIE * state.bins[at(point)]
    wanted = (share - PROFILE_TIE) * state.volume
    first = point
    last = point
    held = state.bins[at(point)]
    while held < wanted and (first > 0 or last < bin_count - 1):
        below = state.bins[at(first - 1)] if first > 0 else -1.0
        above = state.bins[at(last + 1)] if last < bin_count - 1 else -1.0
        if first > 0 and (last == bin_count - 1 or below >= above - slack):
            first -= 1
            held += below
        else:
            last += 1
            held += above
    state.value_low = state.lowest + first * state.width
    state.value_high = state.highest if last == bin_count - 1 else state.lowest + (last + 1) * state.width
