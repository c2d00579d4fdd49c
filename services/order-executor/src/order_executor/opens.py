"""First frames of new candles: heard on the bus, good for one thing, filling what waits for exactly that open."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

from shared.candle_reader import CandleReader
from shared.domain.book import Book
from shared.events import CandleOpened, Event
from shared.models import TIMEFRAME_DELTA

Stream = tuple[str, str]


class OpenWatch:
    """Remembers the newest open of each stream; a lost one costs nothing, the closed candle brings the same price."""

    def __init__(self, streams: Iterable[Stream]) -> None:
        self._streams = frozenset(streams)
        self._newest: dict[Stream, CandleOpened] = {}
        self._tried: dict[Stream, frozenset[str]] = {}  # orders that this open has been offered to

    def hear(self, event: Event) -> None:
        """Take what was said on the bus; anything but the open of a newer candle is passed over."""
        opened = event.data
        if not isinstance(opened, CandleOpened) or price_of(opened) is None:
            return
        stream = (opened.symbol, opened.timeframe)
        known = self._newest.get(stream)
        if stream in self._streams and (known is None or opened.open_time > known.open_time):
            self._newest[stream] = opened
            self._tried.pop(stream, None)

    def due(self, reader: CandleReader, book: Book) -> list[CandleOpened]:
        """Return the opens at which an order waits that was not offered to them before.

        Only the open that follows the stream's last handled candle counts: with a hole between them the candles
        that are missing here come first.
        """
        found = []
        for stream, opened in sorted(self._newest.items()):
            last = reader.open_time(stream)
            if last is None or last + TIMEFRAME_DELTA[stream[1]] != opened.open_time:
                continue
            waiting = frozenset(
                order.id
                for key, account in book.accounts.items()
                if (key.symbol, key.timeframe) == stream
                for order in account.working
            )
            if waiting - self._tried.get(stream, frozenset()):
                self._tried[stream] = waiting
                found.append(opened)
        return found


def price_of(opened: CandleOpened) -> Decimal | None:
    """Return the price of an open; None when it is none."""
    try:
        price = Decimal(opened.open)
    except InvalidOperation:
        return None
    return price if price.is_finite() and price > 0 else None
