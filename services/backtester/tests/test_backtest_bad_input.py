"""What a person may get wrong in a backtest's costs, sizes and files: one sentence each, or a stated behaviour."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from backtester.command import backtest
from shared.errors import TradingError

pytestmark = pytest.mark.thorough

WAVE = [100.0 + 5 * ((number // 30) % 2) + 0.1 * (number % 30) for number in range(200)]
HEADER = "open_time,open,high,low,close,volume\n"
AMOUNT = "2024-03-04T00:00:00Z,{0},{0},{0},{0},1\n"
EXITS = ("--stop-loss-pct", "1", "--take-profit-pct", "1")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TRADING_STATE", "STATE", "DATABASE_URL", "STRATEGIES_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def answer(path: Path, *words: str) -> tuple[int, str, str]:
    """Return exit code, standard output and the words of the refusal; any other exception is the test's failure."""
    fixed = ["--strategy", "ema_crossover", "--symbol", "BTC/USDT", "--no-trials"]
    result = CliRunner().invoke(backtest, [*fixed, "--data", str(path), *words])
    if isinstance(result.exception, TradingError):
        return result.exception.exit_code, result.stdout, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--fee", "1"), "must be a fraction in [0, 1), was 1; 0.1 % is 0.001"),
        (("--fee-maker", "1"), "fee maker: must be a fraction"),
        (("--fee-maker", "little"), "is not a number"),
        (("--slippage-bps", "2", "--impact-bps", "3"), "two models of the same cost; give one of them"),
        (("--slippage-bps", "0", "--half-spread-bps", "3"), "two models of the same cost; give one of them"),
        (("--half-spread-bps", "-1"), "half_spread_bps: must be 0 or more basis points"),
        (("--impact-bps", "1000"), "the whole price"),
        (("--initial-balance", "0"), "initial balance: must be > 0"),
        (("--initial-balance", "1e-19"), "initial balance: must be in"),
        (("--initial-balance", "1e400"), "out of range"),
        (("--sizing", "quote:1e300"), "sizing: must be at most"),
        (("--max-entries", "9" * 30), "is not in the range"),
        (("--start", "2025-01-01"), "no candle from 2025-01-01 00:00 UTC to before the end"),
        (("--end", "2024-01-01"), "no candle from the beginning"),
        (("--start", "2024-03-04T01:00", "--end", "2024-03-04T01:00"), "is not after start"),
        (("--param", "quantity=1e100"), "quantity: Input should be less than or equal to 1000000000000000000"),
        (("--param", "enabled=false"), "--param enabled: is no parameter of a run"),
        (("--param", "symbols=BTC/USDT"), "--param symbols: is no parameter of a run"),
        (("--symbol", "BTC/USDT:1m"), "write it like BTC/USDT, the timeframe apart"),
        (("--symbol", "BTC /USDT"), "is not of the form BASE/QUOTE"),
        (("--detail", "none.csv", *EXITS), "none.csv: no such file"),
        (("--detail", "candles.csv", *EXITS), "give finer ones whose length divides it"),
        (("--detail", "candles.csv"), "give finer ones whose length divides it"),
    ],
    ids=" ".join,
)
def test_costs_and_sizes_that_cannot_be_are_refused_with_the_remedy(
    write_csv: Callable[..., Path], words: tuple[str, ...], sentence: str
) -> None:
    code, _, refusal = answer(write_csv(WAVE), *words)
    assert (code, sentence in refusal) == (2, True), refusal
    assert "Traceback" not in refusal


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (HEADER + AMOUNT.format("1e300"), "line 2: open 1e+300 is out of range"),
        (HEADER + AMOUNT.format("1e-300"), "line 2: open 1e-300 is out of range"),
        (HEADER.strip() + ",symbol\n" + AMOUNT.format(1).strip() + ",ETH/USDT\n", "symbol column says 'ETH/USDT'"),
        (HEADER.strip() + ",timeframe\n" + AMOUNT.format(1).strip() + ",1h\n", "timeframe column says '1h'"),
    ],
)
def test_a_file_of_another_market_or_unit_is_refused(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "odd.csv").write_text(content)
    code, _, refusal = answer(tmp_path / "odd.csv")
    assert (code, sentence in refusal) == (2, True), refusal


@pytest.mark.parametrize("engine", ["event", "auto"])
def test_one_candle_is_a_run_without_trades(write_csv: Callable[..., Path], engine: str) -> None:
    code, out, _ = answer(write_csv([100.0]), "--engine", engine, "--json", "-")
    document = json.loads(out)
    assert (code, document["data"]["rows"], document["trades"]) == (0, 1, [])
    assert document["final_balance"] == document["initial_balance"]


@pytest.mark.parametrize("engine", ["event", "auto"])
def test_a_quantity_below_the_step_is_refused_order_by_order_and_counted(
    write_csv: Callable[..., Path], tmp_path: Path, engine: str
) -> None:
    (tmp_path / "rules.yaml").write_text("instruments:\n  BTC/USDT: {step_size: '1'}\n")
    words = ("--instrument", "rules.yaml", "--engine", engine, "--json", "-")
    code, out, _ = answer(write_csv(WAVE), *words)
    document = json.loads(out)
    assert (code, document["trades"]) == (0, [])
    assert document["refused"]["below_min_notional"] > 0


def document_of(path: Path, *words: str) -> dict[str, Any]:
    code, out, refusal = answer(path, *words, "--json", "-")
    assert code == 0, refusal
    document: dict[str, Any] = json.loads(out)
    return document


def test_size_partial_cash_and_finer_candles_are_in_the_document(
    write_csv: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_csv(WAVE)
    sized = document_of(path, "--half-spread-bps", "1", "--impact-bps", "50", "--param", "quantity=0.25")
    assert sized["participation_max"] == 0.25  # of a volume of 1 in every candle
    assert sized["slippage_bps"] == pytest.approx(26)
    assert sized["options"]["impact_bps"] == 50
    poor = ("--initial-balance", "50", "--param", "quantity=1", "--fee", "0")
    assert document_of(path, *poor)["refused"]["insufficient_cash"] > 0
    assert document_of(path, *poor, "--partial-cash")["entries_cut"] > 0
    assert document_of(path)["live_limits"] == {}
    assert document_of(path, "--param", "quantity=20")["live_limits"]["position_size"] > 0
    assert document_of(path, "--risk", "live")["live_limits"] is None


def notes_of(path: Path, *words: str) -> str:
    code, out, said = answer(path, "--json", "-", *words)
    assert code == 0, said
    return "; ".join(json.loads(out)["notes"])


def test_candles_that_open_or_close_outside_their_own_range_are_counted_in_the_report(tmp_path: Path) -> None:
    path = tmp_path / "candles.csv"
    path.write_text(HEADER + "2024-03-04T00:00:00Z,100,101,99,100,1\n2024-03-04T00:01:00Z,100,101,99,150,1\n")
    assert "1 candle(s) open or close outside their low to high, the first 2024-03-04 00:01 UTC" in notes_of(path)


def test_a_warm_up_longer_than_the_data_is_said(write_csv: Callable[..., Path]) -> None:
    told = notes_of(write_csv(WAVE), "--param", "long_period=500")
    assert "may speak from candle 500 on, and the data holds 200" in told


def test_a_time_too_large_to_count_is_named_by_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "candles.csv"
    path.write_text(HEADER + "1709510400000,1,1,1,1,1\n" + "9" * 20 + ",1,1,1,1,1\n")
    assert "line 3: open_time '99999999999999999999' is no time" in answer(path)[2]


def test_an_output_without_a_name_is_refused(write_csv: Callable[..., Path]) -> None:
    code, _, said = answer(write_csv(WAVE), "--json", "")
    assert (code, "--json: names no file" in said) == (2, True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--json", "candles.csv"), "--json candles.csv: would take the place of"),
        (("--html", "./finer.csv", "--detail", "finer.csv", *EXITS), "would take the place of finer.csv"),
        (("--csv", "var/trials.parquet"), "would take the place of var/trials.parquet, which is read here"),
        (("--json", "out", "--csv", "./out"), "--json and --csv: two go to the same place"),
    ],
    ids=" ".join,
)
def test_no_output_takes_the_place_of_what_is_read_or_of_another(
    write_csv: Callable[..., Path], words: tuple[str, ...], sentence: str
) -> None:
    path = write_csv(WAVE)
    before = path.read_bytes()
    code, _, said = answer(path, *words)
    assert (code, sentence in said, path.read_bytes() == before) == (2, True, True), said


def test_a_fee_that_cannot_be_is_named_as_it_was_given(write_csv: Callable[..., Path]) -> None:
    assert "maker" not in answer(write_csv(WAVE), "--fee", "1")[2]
