from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from shared.domain.allocation import (
    SubAccountCash,
    Transfer,
    allocated_cash,
    divide_pool,
    equal_shares,
    plan_transfers,
)
from shared.models import InstanceKey

D = Decimal
KEYS = [InstanceKey(f"s{number}", "BTC/USDT", "1m") for number in range(6)]
A, B, C = KEYS[:3]
cash = st.decimals(min_value=0, max_value=10_000, places=8)


def test_equal_shares_are_equal_and_never_above_one() -> None:
    shares = equal_shares(KEYS)

    assert len(set(shares.values())) == 1
    assert sum(shares.values()) <= 1
    assert equal_shares([]) == {}


def test_an_allocation_is_floored_to_eight_decimals() -> None:
    assert allocated_cash(D(100_000), equal_shares(range(7))[0]) == D("14285.71428571")  # type: ignore[arg-type, index]


def test_two_give_to_a_third() -> None:
    shares = equal_shares([A, B, C])
    accounts = {A: SubAccountCash(D(500), False), B: SubAccountCash(D(500), False)}

    found = plan_transfers(equity=D(1000), reserve=D(0), shares=shares, accounts=accounts)

    assert found == [
        Transfer(A, D("-166.66666666")),
        Transfer(B, D("-166.66666666")),
        Transfer(C, D("333.33333332")),
    ]


def test_one_that_is_not_wanted_gives_all_and_a_busy_one_nothing() -> None:
    accounts = {A: SubAccountCash(D(700), False), B: SubAccountCash(D(300), True)}

    found = plan_transfers(equity=D(1000), reserve=D(0), shares={C: D(1)}, accounts=accounts)

    assert found == [Transfer(A, D(-700)), Transfer(C, D(700))]


def test_a_pool_is_divided_by_what_each_lacks() -> None:
    assert divide_pool(D(300), {A: D(200), B: D(400), C: D(-5)}) == [Transfer(A, D(100)), Transfer(B, D(200))]


def test_nobody_gets_more_than_it_lacks() -> None:
    assert divide_pool(D(9000), {A: D(200)}) == [Transfer(A, D(200))]


def test_an_empty_pool_moves_nothing() -> None:
    assert divide_pool(D(0), {A: D(1)}) == []
    assert divide_pool(D(-4), {A: D(1)}) == []
    assert divide_pool(D(4), {}) == []


@given(pool=cash, lacks=st.lists(st.decimals(min_value=-100, max_value=5_000, places=18), max_size=6))
def test_what_is_divided_never_exceeds_the_pool(pool: Decimal, lacks: list[Decimal]) -> None:
    lacking = dict(zip(KEYS, lacks, strict=False))

    found = divide_pool(pool, lacking)

    assert sum((transfer.delta for transfer in found), D(0)) <= pool
    assert all(0 < transfer.delta <= lacking[transfer.key] for transfer in found)


@given(
    accounts=st.dictionaries(st.sampled_from(KEYS), st.builds(SubAccountCash, cash, st.booleans()), max_size=6),
    wanted=st.sets(st.sampled_from(KEYS), min_size=1),
    reserve=cash,
)
def test_transfers_take_only_what_is_there(
    accounts: dict[InstanceKey, SubAccountCash], wanted: set[InstanceKey], reserve: Decimal
) -> None:
    equity = reserve + sum((account.cash for account in accounts.values()), D(0))

    found = plan_transfers(equity=equity, reserve=reserve, shares=equal_shares(sorted(wanted)), accounts=accounts)

    assert sum((transfer.delta for transfer in found), D(0)) <= reserve
    for transfer in found:
        if transfer.delta < 0:
            assert not accounts[transfer.key].is_busy
            assert -transfer.delta <= accounts[transfer.key].cash
