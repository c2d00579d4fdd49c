from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from shared.models import Candle, InstanceKey, OrderSide, Signal
from shared.strategy import BaseStrategy
from shared.strategy_runner import InstanceStamp, StrategyRunner
from shared.testing.builders import ALPHA, BTC, candle
from shared.watchdog import CallGuard

D = Decimal
STAMP = InstanceStamp(age_max=timedelta(minutes=5), mode="paper", config_hash="c", code_hash="d")


class Scripted(BaseStrategy):
    """Does at each candle what its script says."""

    script: Any = None
    warmup: Any = 1

    @property
    def warmup_period(self) -> int:
        return self.warmup  # type: ignore[no-any-return]

    def on_candle(self, candle: Candle) -> Signal | None:
        return self.script(candle)  # type: ignore[no-any-return]


class Broken(Scripted):
    """Raises wherever it is asked for something beside candles."""

    def on_candle(self, candle: Candle) -> Signal | None:
        return self.buy(candle, "x")

    def reset(self) -> None:
        self.resets = getattr(self, "resets", 0) + 1
        if self.resets > 1:
            raise RuntimeError("reset")

    def snapshot(self) -> bytes | None:
        raise RuntimeError("snapshot")

    def restore(self, blob: bytes) -> bool:
        raise RuntimeError(f"restore {len(blob)}")

    def notices(self) -> list[str]:
        raise RuntimeError("notices")


def runner_of(script: Any, *, warmup: Any = 1, key: InstanceKey = ALPHA) -> StrategyRunner:
    kind = type("Own", (Scripted,), {"script": staticmethod(script), "warmup": warmup})
    return StrategyRunner(key, kind(), STAMP, guard=CallGuard(0.05))


def signal_at(candle: Candle, **changes: Any) -> Signal:
    words = {"strategy": "other", "symbol": candle.symbol, "side": OrderSide.BUY, "price": candle.close}
    return Signal(**{**words, "quantity": D(1), **changes})


def test_a_signal_bears_its_candle_and_its_instance_whatever_the_strategy_wrote() -> None:
    signal = runner_of(lambda c: signal_at(c, mode="live", timeframe="1d", id="mine")).feed(candle(7))

    assert signal is not None
    assert (signal.strategy, signal.symbol, signal.timeframe, signal.mode) == ("alpha", BTC, "1m", "paper")
    assert (signal.candle_open_time, signal.created_at) == (candle(7).open_time, candle(7).close_time)
    assert signal.expires_at == candle(7).close_time + timedelta(minutes=5)
    assert (signal.config_hash, signal.code_hash) == ("c", "d")
    assert signal.id != "mine"


def test_the_same_candle_gives_the_same_id_and_another_instance_another() -> None:
    first, again = (runner_of(signal_at).feed(candle(7)) for _ in range(2))
    other = runner_of(signal_at, key=ALPHA._replace(strategy="beta")).feed(candle(7))

    assert first is not None
    assert again is not None
    assert other is not None
    assert first.id == again.id != other.id


def test_candle_number_warmup_is_the_first_to_speak() -> None:
    runner = runner_of(signal_at, warmup=4)

    assert [runner.feed(candle(n)) is not None for n in range(6)] == [False, False, False, True, True, True]


def test_what_is_fed_again_counts_for_the_warm_up() -> None:
    runner = runner_of(signal_at, warmup=4)
    runner.rebuild([candle(n) for n in range(3)])

    assert runner.feed(candle(3)) is not None


def test_a_side_as_a_plain_word_is_understood() -> None:
    signal = runner_of(lambda c: signal_at(c, side="SELL")).feed(candle(0))

    assert signal is not None
    assert signal.side is OrderSide.SELL


def test_money_of_more_than_eighteen_decimals_is_rounded() -> None:
    signal = runner_of(lambda c: signal_at(c, price=D(1) / D(3))).feed(candle(0))

    assert signal is not None
    assert signal.price == D("0.333333333333333333")


def raise_it(error: BaseException) -> Any:
    def script(_: Candle) -> None:
        raise error

    return script


def loop_for_ever(_: Candle) -> None:
    while True:
        pass


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (raise_it(ValueError("oh")), "ValueError: oh"),
        (raise_it(SystemExit(3)), "SystemExit: 3"),
        (raise_it(RecursionError()), "RecursionError"),
        (raise_it(ValueError("a\x00\ud800" + "x" * 9000)), "ValueError: a?xxx"),
        (loop_for_ever, "no answer within 0.05 s"),
        (lambda _: "BUY", "must return a Signal or None, was str"),
        (lambda c: signal_at(c, symbol="ETH/USDT"), "ETH/USDT"),
        (lambda c: signal_at(c, side="HOLD"), "HOLD"),
        (lambda c: signal_at(c, quantity=D(0)), "quantity"),
        (lambda c: signal_at(c, quantity=D("NaN")), "quantity"),
        (lambda c: signal_at(c, price=D("1e18")), "price"),
    ],
)
def test_what_goes_wrong_silences_the_instance_and_says_at_which_candle(script: Any, words: str) -> None:
    runner = runner_of(script)

    assert runner.feed(candle(0)) is None
    assert words in runner.fault
    assert runner.fault.endswith("(candle of 2024-03-04 00:00 UTC)")
    assert len(runner.fault) < 600
    assert runner.notices() == [f"put aside, {runner.fault}"]


def test_a_faulty_instance_is_not_asked_again_and_not_checkpointed() -> None:
    asked = []

    def script(candle: Candle) -> None:
        asked.append(candle)
        raise ValueError("once")

    runner = runner_of(script)
    for number in range(3):
        runner.feed(candle(number))

    assert len(asked) == 1
    assert runner.candles_seen == 0
    assert runner.snapshot() is None


def test_a_person_who_interrupts_is_heard() -> None:
    with pytest.raises(KeyboardInterrupt):
        runner_of(raise_it(KeyboardInterrupt())).feed(candle(0))


def test_a_non_finite_candle_is_not_shown_to_a_plain_strategy() -> None:
    runner = runner_of(signal_at)

    assert runner.feed(msgspec.structs.replace(candle(0), low=D("NaN"))) is None
    assert not runner.fault
    assert runner.feed(candle(1)) is not None


@pytest.mark.parametrize("warmup", [None, "5", 2.5])
def test_a_warm_up_that_is_no_number_is_a_fault(warmup: Any) -> None:
    assert "warmup_period must be a whole number" in runner_of(signal_at, warmup=warmup).fault


@pytest.mark.parametrize(
    ("ask", "answer", "words"),
    [
        (lambda runner: runner.reset(), None, "reset"),
        (lambda runner: runner.snapshot(), None, "snapshot"),
        (lambda runner: runner.restore(b"123", 5), False, "restore 3"),
        (lambda runner: runner.notices(), ["put aside, RuntimeError: notices"], "notices"),
    ],
)
def test_a_strategy_that_raises_beside_its_candles_is_put_aside_too(ask: Any, answer: Any, words: str) -> None:
    runner = StrategyRunner(ALPHA, Broken(), STAMP)

    assert ask(runner) == answer
    assert runner.fault == f"RuntimeError: {words}"
    assert runner.feed(candle(0)) is None


@pytest.mark.parametrize("fault_at", [None, 0, 17])
@pytest.mark.parametrize("warmup", [1, 10])
def test_many_candles_at_once_say_what_they_say_one_by_one(fault_at: int | None, warmup: int) -> None:
    candles = [candle(number, 100 + number % 7) for number in range(40)]
    candles[5] = msgspec.structs.replace(candles[5], volume=D("NaN"))

    def script(now: Candle) -> Signal | None:
        if fault_at is not None and now is candles[fault_at]:
            raise RuntimeError("broken on purpose")
        return signal_at(now, side="SELL") if now.close % 3 == 0 else None  # a plain word, as plug-ins write it

    one_by_one, at_once = runner_of(script, warmup=warmup), runner_of(script, warmup=warmup)
    with CallGuard(2.0) as guard:
        at_once = StrategyRunner(ALPHA, at_once.strategy, STAMP, guard=guard)
        said = at_once.feed_many(candles[:20]) + [(20 + place, it) for place, it in at_once.feed_many(candles[20:])]
    expected = [(place, it) for place, now in enumerate(candles) if (it := one_by_one.feed(now)) is not None]
    assert said == expected
    assert (at_once.candles_seen, at_once.fault) == (one_by_one.candles_seen, one_by_one.fault)
    assert len(said) > 5 or fault_at is not None


def test_a_candle_that_never_ends_is_interrupted_among_many() -> None:
    def hang(now: Candle) -> Signal | None:
        while now.open_time >= candle(3).open_time:
            pass
        return signal_at(now)

    with CallGuard(0.05) as guard:
        runner = StrategyRunner(ALPHA, runner_of(hang).strategy, STAMP, guard=guard)
        said = runner.feed_many([candle(number) for number in range(9)])
    assert [place for place, _ in said] == [0, 1, 2]
    assert "no answer within" in runner.fault
