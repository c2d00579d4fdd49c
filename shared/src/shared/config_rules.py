"""Rules between settings: each returns what is wrong, or "" when nothing is."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from decimal import Decimal

from shared.config_values import Allocation, DataFile, parse_symbol


def feed_fault(feed: str, exchange: str) -> str:
    """Refuse the feed ccxt without an exchange, and an exchange without it."""
    kind, _, named = feed.partition(":")
    if kind != "ccxt":
        return (
            f"exchange: {exchange!r} belongs to the feed ccxt, but the feed is {feed}; leave it out" if exchange else ""
        )
    if named and exchange and named != exchange:
        return f"exchange: {exchange!r} contradicts the feed {feed!r}; name the exchange once"
    return (
        "" if named or exchange else "exchange: the feed ccxt needs one; give --feed ccxt:kraken or --exchange kraken"
    )


def symbols_fault(feed: str, symbols: Iterable[str]) -> str:
    """Refuse a name that only a venue could explain where no venue is asked."""
    if feed.partition(":")[0] in ("binance", "ccxt"):
        return ""
    for symbol in symbols:
        if "/" not in symbol:
            try:
                parse_symbol(symbol)
            except ValueError as error:
                return f"symbols: {error}; only the feed of a venue can look its names up, so give --symbols BASE/QUOTE"
    return ""


def quote_fault(symbols: Iterable[str]) -> str:
    """All symbols of one run share one quote currency; those still to be looked up are judged then."""
    quotes = sorted({symbol.partition("/")[2] for symbol in symbols if "/" in symbol})
    if len(quotes) <= 1:
        return ""
    return f"symbols: all must share one quote currency, found {', '.join(quotes)}; run one state per quote currency"


def data_fault(feed: str, files: Collection[DataFile], symbols: Collection[str]) -> str:
    """Files belong to a replay, and symbols that were named have theirs."""
    if not files:
        return ""
    if feed != "replay":
        return f"data: files are read by the feed replay only, but the feed is {feed}; give --feed replay or leave data out"
    named = {item.symbol for item in files}
    for symbol in sorted(named.symmetric_difference(symbols)):
        what = "has a file but is not among the symbols" if symbol in named else "has no file"
        return f"symbols: {symbol} {what}; leave symbols out to replay what the files hold"
    return ""


def telegram_fault(*, enabled: bool, token: str, chat_id: str) -> str:
    """Messages need a sender and an addressee."""
    if any(letter.isspace() or letter in "/?#" or not letter.isprintable() for letter in token):
        return "telegram_bot_token: holds a character that no token has; copy it anew from @BotFather"
    if not enabled:
        return ""
    if not token:
        return "telegram_bot_token: not set, but telegram_enabled is true; set TELEGRAM_BOT_TOKEN"
    if not chat_id:
        return "telegram_chat_id: not set, but telegram_enabled is true; set TELEGRAM_CHAT_ID"
    return ""


def sizing_fault(sizing: str, stop_loss_pct: Decimal) -> str:
    """Sizing by the loss at the stop needs a stop."""
    if sizing.startswith("risk:") and stop_loss_pct == 0:
        return "sizing: risk sizes by the loss at the stop, but risk_stop_loss_pct is 0; set a stop or another sizing"
    return ""


def live_fault(mode: str, account: str, strategies: Collection[str]) -> str:
    """Real money needs two words and the strategies by name."""
    if mode != "live":
        return ""
    if not account:
        return "trading_mode: live also needs the option --i-understand-live ACCOUNT_ID; nothing was connected"
    return "" if strategies else "strategies: live must name each strategy it runs, found none; set STRATEGIES"


def allocation_fault(allocation: Iterable[Allocation], strategies: Collection[str], symbols: Collection[str]) -> str:
    """Shares are for what runs."""
    for item in allocation:
        if strategies and item.strategy not in strategies:
            return f"allocation: {item.strategy} is not among the strategies ({', '.join(strategies)})"
        if item.symbol and item.symbol not in symbols:
            return f"allocation: {item.symbol} is not among the symbols ({', '.join(symbols)})"
    return ""


def dry_run_fault(value: object, mode: object) -> str:
    """`dry_run` follows from the mode and may be stated, not chosen."""
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    stated = value if isinstance(value, bool) else words.get(str(value).strip().lower())
    if stated is None:
        return f"dry_run: expected true or false, was {value!r}; leave it out, it follows from trading_mode"
    if stated == (mode == "paper"):
        return ""
    means = "true: no order leaves the house" if mode == "paper" else "false: orders go to a venue"
    return f"dry_run: read-only, was {value!r}, but trading_mode {mode} means {means}; leave dry_run out"
