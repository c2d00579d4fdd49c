"""GET exchangeInfo: the rules of the exchange and of every symbol."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from paper_exchange.rest.budget import BudgetRules
from paper_exchange.rest.context import RestContext
from paper_exchange.rest.errors import invalid_symbol, optional_combination
from paper_exchange.rest.parameters import Parameters
from shared.domain.rounding import Instrument
from shared.models import split_symbol

ORDER_TYPES = [
    "LIMIT",
    "LIMIT_MAKER",
    "MARKET",
    "STOP_LOSS",
    "STOP_LOSS_LIMIT",
    "TAKE_PROFIT",
    "TAKE_PROFIT_LIMIT",
]
_STATUSES = ("", "TRADING", "HALT", "BREAK")
_PRICE_MAX, _QUANTITY_MAX = Decimal(1_000_000), Decimal(9_000_000)
_SMALLEST = Decimal("0.00000001")
_COUNT_FILTERS: Final[tuple[dict[str, Any], ...]] = (
    {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
    {"filterType": "MAX_NUM_ORDER_LISTS", "maxNumOrderLists": 20},
    {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": 5},
    {"filterType": "MAX_NUM_ORDER_AMENDS", "maxNumOrderAmends": 10},
)


def exchange_info(parameters: Parameters, context: RestContext) -> dict[str, Any]:
    """Return limits and symbols."""
    wanted = parameters.symbols()
    permissions = parameters.text("permissions")
    parameters.choice("showPermissionSets", ("true", "false"))
    status = parameters.choice("symbolStatus", _STATUSES)
    parameters.check_all_read()
    if wanted is not None and status:
        raise optional_combination()
    known = {symbol.replace("/", ""): symbol for symbol in context.run.symbols}
    if wanted is not None and any(symbol not in known for symbol in wanted):
        raise invalid_symbol()
    shown = [known[name] for name in (wanted if wanted is not None else known)]
    if status not in ("", "TRADING") or (permissions is not None and "SPOT" not in permissions):
        shown = []
    return {
        "timezone": "UTC",
        "serverTime": context.now,
        "rateLimits": rate_limits(context.rules),
        "exchangeFilters": [],
        "symbols": [symbol_info(symbol, context.instruments[symbol]) for symbol in shown],
    }


def rate_limits(rules: BudgetRules) -> list[dict[str, Any]]:
    """Return the limits of an address and of an account."""
    return [
        _limit("REQUEST_WEIGHT", "MINUTE", 1, rules.weight_max),
        _limit("ORDERS", "SECOND", 10, 100),
        _limit("ORDERS", "DAY", 1, 200_000),
        _limit("RAW_REQUESTS", "MINUTE", 5, 300_000),
    ]


def _limit(kind: str, interval: str, number: int, limit: int) -> dict[str, Any]:
    return {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": limit}


def symbol_info(symbol: str, instrument: Instrument) -> dict[str, Any]:
    """Return what a symbol is and which orders it takes."""
    base, quote = split_symbol(symbol)
    return {
        "symbol": base + quote,
        "status": "TRADING",
        "baseAsset": base,
        "baseAssetPrecision": 8,
        "quoteAsset": quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ORDER_TYPES,
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "opoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "amendAllowed": True,
        "pegInstructionsAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": filters(instrument),
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": [
            "NONE",
            "EXPIRE_TAKER",
            "EXPIRE_MAKER",
            "EXPIRE_BOTH",
            "DECREMENT",
            "TRANSFER",
        ],
    }


def filters(instrument: Instrument) -> list[dict[str, Any]]:
    """Return a symbol's filters: the three that the instrument's rules decide, and the usual others."""
    tick = instrument.tick_size or _SMALLEST
    step = instrument.step_size or _SMALLEST
    return [
        {"filterType": "PRICE_FILTER", "minPrice": _text(tick), "maxPrice": _text(_PRICE_MAX), "tickSize": _text(tick)},
        {"filterType": "LOT_SIZE", "minQty": _text(step), "maxQty": _text(_QUANTITY_MAX), "stepSize": _text(step)},
        *_usual_filters(),
        {
            "filterType": "NOTIONAL",
            "minNotional": _text(instrument.notional_min),
            "applyMinToMarket": True,
            "maxNotional": _text(_QUANTITY_MAX),
            "applyMaxToMarket": False,
            "avgPriceMins": 5,
        },
        *_COUNT_FILTERS,
    ]


def _usual_filters() -> list[dict[str, Any]]:
    return [
        {"filterType": "ICEBERG_PARTS", "limit": 100},
        {
            "filterType": "MARKET_LOT_SIZE",
            "minQty": _text(Decimal(0)),
            "maxQty": _text(_QUANTITY_MAX),
            "stepSize": _text(Decimal(0)),
        },
        {
            "filterType": "TRAILING_DELTA",
            "minTrailingAboveDelta": 10,
            "maxTrailingAboveDelta": 2000,
            "minTrailingBelowDelta": 10,
            "maxTrailingBelowDelta": 2000,
        },
        {
            "filterType": "PERCENT_PRICE_BY_SIDE",
            "bidMultiplierUp": "2",
            "bidMultiplierDown": "0.5",
            "askMultiplierUp": "2",
            "askMultiplierDown": "0.5",
            "avgPriceMins": 5,
        },
    ]


def _text(value: Decimal) -> str:
    return f"{value:.8f}"
