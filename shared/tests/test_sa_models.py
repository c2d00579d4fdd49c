"""Rows and column types: exact money, UTC to the microsecond, the words of the domain."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import CheckConstraint, Table, func, select
from sqlalchemy.dialects import postgresql, sqlite

from shared.db import Database
from shared.models import OrderSide, OrderStatus
from shared.sa_models import Base, CursorRow, MovementRow, OrderRow, PositionRow, SignalRow, TradeRow
from shared.sa_types import Money, money_to_numeric, money_to_text, utc_checked, utc_to_text

MOMENT = datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC)
AMOUNTS = st.builds(
    lambda digits, places: Decimal(f"{digits}E-{places}"),
    st.integers(min_value=-(10**38) + 1, max_value=10**38 - 1),
    st.integers(min_value=0, max_value=18),
).filter(lambda amount: amount.copy_abs() < 10**20)
INSTANTS = st.datetimes(timezones=st.just(UTC)).filter(lambda moment: 1 < moment.year < 9999)


def checked_words(table: Table, column: str) -> str:
    name = f"ck_{table.name}_{column}"
    return next(
        str(rule.sqltext) for rule in table.constraints if isinstance(rule, CheckConstraint) and rule.name == name
    )


async def stored(database: Database, amount: Decimal, moment: datetime) -> tuple[Decimal, datetime]:
    row = {"ext_id": "1", "account": "paper", "asset": "USDT", "delta": amount, "kind": "deposit", "as_of": moment}
    async with database.get_session() as session:
        await database.upsert_rows(session, MovementRow, [row])
    async with database.read() as session:
        found = (await session.execute(select(MovementRow.delta, MovementRow.as_of))).one()
    return found.delta, found.as_of


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(amount=AMOUNTS, moment=INSTANTS)
async def test_money_and_time_come_back_as_they_went(database: Database, amount: Decimal, moment: datetime) -> None:
    delta, as_of = await stored(database, amount, moment)
    assert delta == amount
    assert as_of == moment
    assert as_of.tzinfo is UTC or as_of.utcoffset() == timedelta(0)


@given(amount=AMOUNTS)
def test_text_of_money_is_plain_and_exact(amount: Decimal) -> None:
    text = money_to_text(amount)
    assert "E" not in text
    assert Decimal(text) == amount


@given(moment=INSTANTS, is_whole=st.booleans())
def test_text_of_times_has_six_decimals_and_the_offset(moment: datetime, is_whole: bool) -> None:
    moment = moment.replace(microsecond=0) if is_whole else moment
    assert utc_to_text(moment) == moment.astimezone(UTC).isoformat(" ", "microseconds")


@given(first=INSTANTS, second=INSTANTS)
def test_text_of_times_sorts_as_the_times_do(first: datetime, second: datetime) -> None:
    assert (utc_to_text(first) < utc_to_text(second)) == (first < second)
    assert datetime.fromisoformat(utc_to_text(first)) == first


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "sNaN",
        "100000000000000000000",
        "1E+30",
        "99999999999999999999.9999999999999999996",
    ],
)
def test_what_is_no_storable_number_is_refused(text: str) -> None:
    for convert in (money_to_text, money_to_numeric):
        with pytest.raises(ValueError, match="money"):
            convert(Decimal(text))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("0.0000000000000000005", "0.000000000000000000"),
        ("0.0000000000000000015", "0.000000000000000002"),
        ("-0.00000000000000000251", "-0.000000000000000003"),
        ("1E-30", "0.000000000000000000"),
        ("99999999999999999999.9999999999999999994", "99999999999999999999.999999999999999999"),
    ],
)
async def test_the_nineteenth_decimal_is_rounded_half_even_on_both(database: Database, text: str, kept: str) -> None:
    delta, _ = await stored(database, Decimal(text), MOMENT)
    assert delta == Decimal(kept)


async def test_the_orm_stores_the_same_as_the_bulk_way(database: Database) -> None:
    position = PositionRow(
        symbol="BTC/USDT",
        quantity=Decimal("0.000000000000000001"),
        avg_entry_price=Decimal("12345678901234567890.123456789012345678"),
        current_price=Decimal("1E+3"),
        updated_at=MOMENT.astimezone(timezone(timedelta(hours=5, minutes=30))),
    )
    async with database.get_session() as session:
        session.add(position)
    async with database.read() as session:
        found = (await session.execute(select(PositionRow))).scalar_one()
    assert found.quantity == Decimal("0.000000000000000001")
    assert found.avg_entry_price == Decimal("12345678901234567890.123456789012345678")
    assert found.current_price == 1000
    assert found.updated_at == MOMENT


def test_a_naive_time_is_refused() -> None:
    for convert in (utc_to_text, utc_checked):
        with pytest.raises(ValueError, match="zone"):
            convert(datetime(2024, 1, 1))  # noqa: DTZ001 - that is the point


def test_a_time_of_another_zone_is_stored_in_utc() -> None:
    assert (
        utc_to_text(datetime(2024, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))) == "2024-01-01 00:00:00.000000+00:00"
    )


@pytest.mark.parametrize(
    "compute",
    [
        lambda column: column + 1,
        lambda column: column < 5,
        lambda column: column == Decimal(5),
        lambda column: column.desc(),
        lambda column: column.in_([Decimal(1)]),
    ],
)
def test_money_is_not_computed_compared_or_ordered_in_sql(compute: object) -> None:
    with pytest.raises(TypeError, match="Decimal"):
        compute(OrderRow.price)  # type: ignore[operator]


def test_a_missing_amount_can_be_asked_for() -> None:
    assert "IS NULL" in str(select(OrderRow.id).where(OrderRow.avg_fill_price.is_(None)))


def test_only_text_and_numeric_hold_money() -> None:
    columns = [column for table in Base.metadata.tables.values() for column in table.columns]
    money = [column for column in columns if isinstance(column.type, Money)]
    assert len(money) > 40
    assert {column.type.compile(dialect=sqlite.dialect()) for column in money} == {"TEXT"}
    assert {column.type.compile(dialect=postgresql.dialect()) for column in money} == {"NUMERIC(38, 18)"}


def test_the_words_allowed_are_the_words_of_the_domain() -> None:
    for row in (SignalRow, OrderRow, TradeRow):
        assert checked_words(row.__table__, "side") == f"side IN ({', '.join(repr(str(side)) for side in OrderSide)})"
    statuses = ", ".join(repr(str(status)) for status in OrderStatus)
    assert checked_words(OrderRow.__table__, "status") == f"status IN ({statuses})"


def test_every_rule_of_the_tables_has_a_name() -> None:
    for table in Base.metadata.tables.values():
        assert all(rule.name for rule in table.constraints), table.name
        assert all(index.name for index in table.indexes), table.name


async def test_defaults_live_in_the_database(database: Database) -> None:
    async with database.get_session() as session:
        await database.insert_rows(session, CursorRow, [{"name": "a", "value": "1"}])
        assert (await session.execute(select(func.count()).select_from(CursorRow))).scalar_one() == 1
