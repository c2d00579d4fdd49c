"""Every deliberate error of the platform.

TradingError                 exit_code 1, retryable False
├─ ConfigError               a person's mistake: option, setting, file, environment; exit_code 2
│  └─ StateLocked            another instance holds the state, or a lease on it; exit_code 3
├─ MarketDataError
│  ├─ MalformedMessage       a message or candle that cannot be read: quarantine or dead letter
│  ├─ DataGap                a hole in a stream
│  └─ StaleData              older than its limit
├─ VenueError                the venue's code and text are kept verbatim
│  ├─ VenueUnavailable       retryable: time-out, 5xx, disconnect
│  ├─ RateLimited            retryable after `retry_after_seconds`
│  ├─ OrderRejected          final
│  └─ OrderUnknown           sent without an answer: ask by client order id, never resend blindly
├─ BrokerError               the message bus is away: retryable
├─ DatabaseError             the database is away, full or of another revision
│  ├─ DatabaseUnavailable    retryable
│  ├─ LeaseLost              another process has taken over: this one writes nothing; exit_code 3
│  └─ UnknownOrder           an order id that no row bears
└─ PluginError               a strategy file that cannot be used

A refusal by our own rules is a value (`shared.domain`), never an exception. A broken invariant is an
`AssertionError`: crash, restart, rebuild. Messages read: where: what was wrong, what was found; what to do.
"""

from __future__ import annotations

from datetime import datetime


class TradingError(Exception):
    """The root of every deliberate error."""

    exit_code = 1
    retryable = False


class ConfigError(TradingError):
    """A person's mistake, found before anything was touched."""

    exit_code = 2


class StateLocked(ConfigError):
    """Another instance holds the state, or a lease on it."""

    exit_code = 3


class MarketDataError(TradingError):
    """Something is wrong with the market data."""

    exit_code = 2


class MalformedMessage(MarketDataError):
    """A message or candle that cannot be read."""


class DataGap(MarketDataError):
    """A hole in a stream of candles."""

    def __init__(self, symbol: str, timeframe: str, start: datetime, end: datetime) -> None:
        self.symbol, self.timeframe, self.start, self.end = symbol, timeframe, start, end
        super().__init__(f"{symbol} {timeframe}: no candles from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC")


class StaleData(MarketDataError):
    """Market data older than its limit."""

    def __init__(self, stream: str, age_seconds: float, age_seconds_max: float) -> None:
        self.stream, self.age_seconds, self.age_seconds_max = stream, age_seconds, age_seconds_max
        super().__init__(f"{stream}: last data {age_seconds:.0f} s old, at most {age_seconds_max:.0f} s allowed")


class VenueError(TradingError):
    """The venue answered with an error, or not at all."""

    def __init__(self, venue: str, text: str, code: int | None = None) -> None:
        self.venue, self.text, self.code = venue, text, code
        super().__init__(f"{venue}: {text}" if code is None else f"{venue}: {code} {text}")


class VenueUnavailable(VenueError):
    """Time-out, 5xx or disconnect on a call that may be repeated."""

    retryable = True


class RateLimited(VenueError):
    """The venue asks us to wait."""

    retryable = True

    def __init__(self, venue: str, text: str, retry_after_seconds: float, code: int | None = None) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(venue, text, code)


class OrderRejected(VenueError):
    """The venue refused an order for good."""


class OrderUnknown(VenueError):
    """An order was sent and no answer came: it may live at the venue."""


class BrokerError(TradingError):
    """The message bus cannot be reached."""

    exit_code = 2
    retryable = True


class DatabaseError(TradingError):
    """The database cannot be used."""

    exit_code = 2


class DatabaseUnavailable(DatabaseError):
    """The database cannot be reached now."""

    retryable = True


class LeaseLost(DatabaseError):
    """Another process holds the lease of what this one writes."""

    exit_code = 3


class UnknownOrder(DatabaseError):
    """An order id that no row bears."""

    exit_code = 1


class PluginError(ConfigError):
    """A strategy file that cannot be found, checked, imported or configured."""
