"""Pairs by hand, and the laws that hold for any fills."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtester.metrics import TradeRecord
from shared.clock import seeded_random
from shared.domain.pairing import Pairing, open_positions, pair_trades
from shared.testing.examples import examples

pytestmark = pytest.mark.thorough

START = datetime(2024, 1, 1, tzinfo=UTC)
TOLERANCE = Decimal("1e-12")


def fill(
    minute: int, side: str, quantity: str, price: str, fee: str = "0", symbol: str = "BTC/USDT", strategy: str = ""
) -> TradeRecord:
    return TradeRecord(
        START + timedelta(minutes=minute), symbol, side, Decimal(price), Decimal(quantity), Decimal(fee), strategy
    )


def test_a_pair_is_net_of_both_legs_fees() -> None:
    (pair,) = pair_trades([fill(0, "BUY", "2", "100", "0.2"), fill(30, "SELL", "2", "110", "0.22")]).pairs
    assert pair.pnl == Decimal("19.58")  # 2 x 10 - 0.2 - 0.22
    assert pair.gross_pnl == 20
    assert pair.fees == Decimal("0.42")
    assert pair.pnl_pct == pytest.approx(9.79)
    assert pair.holding_period == timedelta(minutes=30)


def test_partial_lots_close_oldest_first_and_share_the_fees() -> None:
    pairing = pair_trades(
        [fill(0, "BUY", "1", "100", "0.1"), fill(1, "BUY", "3", "120", "0.36"), fill(2, "SELL", "2", "130", "0.26")]
    )
    first, second = pairing.pairs
    assert (first.entry_price, first.quantity, first.fees) == (100, 1, Decimal("0.23"))  # 0.1 + 0.13
    assert (second.entry_price, second.quantity, second.fees) == (120, 1, Decimal("0.25"))  # 0.12 + 0.13
    (lot,) = pairing.lots
    assert (lot.quantity, lot.price, lot.fee) == (2, 120, Decimal("0.24"))


def test_newest_first_closes_the_latest_entry() -> None:
    trades = [fill(0, "BUY", "1", "100"), fill(1, "BUY", "1", "120"), fill(2, "SELL", "1", "130")]
    assert pair_trades(trades, newest_first=True).pairs[0].entry_price == 120
    assert pair_trades(trades).pairs[0].entry_price == 100


def test_symbols_and_strategies_never_pair_with_each_other() -> None:
    pairing = pair_trades(
        [
            fill(0, "BUY", "1", "100", strategy="rsi"),
            fill(1, "BUY", "1", "10", symbol="ETH/USDT", strategy="rsi"),
            fill(2, "SELL", "1", "110", strategy="macd"),
            fill(3, "SELL", "1", "11", symbol="ETH/USDT", strategy="rsi"),
        ]
    )
    assert [(pair.symbol, pair.strategy, pair.pnl) for pair in pairing.pairs] == [("ETH/USDT", "rsi", 1)]
    assert [trade.strategy for trade in pairing.unmatched] == ["macd"]


@pytest.mark.parametrize("order", ["as it happened", "reversed"])
def test_at_one_instant_a_sell_closes_the_old_lot_before_a_new_one_opens(order: str) -> None:
    trades = [fill(0, "BUY", "1", "100"), fill(5, "SELL", "1", "110"), fill(5, "BUY", "1", "111")]
    pairing = pair_trades(trades if order == "as it happened" else trades[::-1])
    assert [(trip.pnl, trip.exit_time is None) for trip in pairing.round_trips] == [(10, False), (0, True)]


def test_a_sell_listed_before_the_buy_of_its_own_instant_finds_it() -> None:
    pairing = pair_trades([fill(0, "SELL", "1", "99"), fill(0, "BUY", "1", "100")])
    assert [pair.pnl for pair in pairing.pairs] == [-1]
    assert pairing.unmatched == ()


def test_a_sell_beyond_what_was_bought_keeps_its_uncovered_part() -> None:
    pairing = pair_trades([fill(0, "BUY", "1", "100"), fill(1, "SELL", "3", "110", "0.3")])
    assert [pair.quantity for pair in pairing.pairs] == [1]
    assert [(trade.quantity, trade.fee) for trade in pairing.unmatched] == [(2, Decimal("0.2"))]


def test_a_round_trip_ends_when_only_dust_is_left() -> None:
    pairing = pair_trades([fill(0, "BUY", "0.00999", "100"), fill(1, "SELL", "0.009989999", "110")])
    assert [trip.exit_time for trip in pairing.round_trips] == [START + timedelta(minutes=1)]


def test_entries_max_counts_entries_open_together() -> None:
    trades = [
        fill(0, "BUY", "1", "100"),
        fill(1, "BUY", "1", "90"),
        fill(2, "SELL", "1", "95"),
        fill(3, "BUY", "1", "90"),
        fill(4, "SELL", "2", "99"),
    ]
    assert pair_trades(trades).entries_max == 2


def test_an_open_position_stands_at_average_cost() -> None:
    pairing = pair_trades([fill(0, "BUY", "1", "100"), fill(1, "BUY", "1", "120"), fill(2, "SELL", "1", "130")])
    (position,) = open_positions(pairing, {"BTC/USDT": Decimal(125)})
    assert (position.quantity, position.avg_entry_price, position.unrealized_pnl) == (1, 110, 15)
    assert open_positions(pairing)[0].unrealized_pnl is None


@pytest.mark.parametrize(
    ("change", "found"),
    [({"side": "HOLD"}, "BUY or SELL"), ({"quantity": 0}, "quantity"), ({"price": float("nan")}, "price")],
)
def test_what_cannot_have_been_a_fill_is_refused(change: dict[str, object], found: str) -> None:
    fields: dict[str, object] = {"time": START, "symbol": "BTC/USDT", "side": "BUY", "price": 1, "quantity": 1}
    with pytest.raises(ValueError, match=found):
        TradeRecord(**(fields | change))  # type: ignore[arg-type]


def test_floats_ints_and_naive_times_are_taken_as_a_person_means_them() -> None:
    trade = TradeRecord(datetime(2024, 1, 1), "BTC/USDT", "buy", 0.1, 3)  # type: ignore[arg-type]  # noqa: DTZ001
    assert (trade.time, trade.side, trade.price, trade.quantity) == (START, "BUY", Decimal("0.1"), 3)


amounts = st.decimals("0.00000001", "1000", places=8)
prices = st.decimals("0.01", "100000", places=2)


@st.composite
def histories(draw: st.DrawFn) -> list[TradeRecord]:
    """Spot fills of two owners: no SELL exceeds what its owner holds."""
    held = {"rsi": Decimal(0), "grid": Decimal(0)}
    trades = []
    for minute in range(draw(st.integers(0, 25))):
        strategy = draw(st.sampled_from(sorted(held)))
        sell = held[strategy] > 0 and draw(st.booleans())
        share = draw(st.sampled_from(["1", "0.5", "0.3"]))
        quantity = (held[strategy] * Decimal(share)).quantize(Decimal("1e-8")) if sell else draw(amounts)
        if quantity <= 0:
            continue
        held[strategy] += -quantity if sell else quantity
        price = draw(prices)
        trades.append(
            TradeRecord(
                START + timedelta(minutes=minute // 2 if not sell else minute),
                "BTC/USDT",
                "SELL" if sell else "BUY",
                price,
                quantity,
                price * quantity * Decimal("0.001"),
                strategy,
            )
        )
    return trades


def cash_change(trades: list[TradeRecord]) -> Decimal:
    return sum(
        ((1 if t.side == "SELL" else -1) * t.price * t.quantity - t.fee for t in trades),
        Decimal(0),
    )


def gain(pairing: Pairing, last: Decimal) -> Decimal:
    lots = sum(((last - lot.price) * lot.quantity - lot.fee for lot in pairing.lots), Decimal(0))
    return sum((pair.pnl for pair in pairing.pairs), lots)


@settings(max_examples=examples(200), deadline=None)
@given(trades=histories(), last=prices, newest_first=st.booleans(), seed=st.integers(0, 99))
def test_pairs_and_open_lots_together_are_the_change_of_equity(
    trades: list[TradeRecord], last: Decimal, newest_first: bool, seed: int
) -> None:
    pairing = pair_trades(trades, newest_first=newest_first)
    held = sum((lot.quantity for lot in pairing.lots), Decimal(0))
    assert pairing.unmatched == ()
    assert abs(gain(pairing, last) - (cash_change(trades) + held * last)) < TOLERANCE
    shuffled = list(trades)
    seeded_random(seed).shuffle(shuffled)
    assert abs(gain(pair_trades(shuffled, newest_first=newest_first), last) - gain(pairing, last)) < TOLERANCE


@settings(max_examples=examples(100), deadline=None)
@given(trades=histories(), last=prices)
def test_average_cost_and_first_in_first_out_agree_on_realised_plus_unrealised(
    trades: list[TradeRecord], last: Decimal
) -> None:
    total = Decimal(0)
    for strategy in {trade.strategy for trade in trades}:
        quantity = average = Decimal(0)
        for trade in sorted((t for t in trades if t.strategy == strategy), key=lambda t: t.time):
            if trade.side == "BUY":
                average = (average * quantity + trade.price * trade.quantity) / (quantity + trade.quantity)
                quantity += trade.quantity
            else:
                total += (trade.price - average) * trade.quantity
                quantity -= trade.quantity
            total -= trade.fee
        total += (last - average) * quantity
    assert abs(gain(pair_trades(trades), last) - total) < TOLERANCE


@settings(max_examples=examples(100), deadline=None)
@given(trades=histories())
def test_no_fee_and_no_quantity_is_lost_by_splitting(trades: list[TradeRecord]) -> None:
    pairing = pair_trades(trades)
    fees = sum((pair.fees for pair in pairing.pairs), sum((lot.fee for lot in pairing.lots), Decimal(0)))
    assert fees == sum((trade.fee for trade in trades), Decimal(0))
    sold = sum((trade.quantity for trade in trades if trade.side == "SELL"), Decimal(0))
    assert sum((pair.quantity for pair in pairing.pairs), Decimal(0)) == sold
