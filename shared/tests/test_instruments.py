from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from shared.errors import ConfigError
from shared.instruments import load_instruments

D = Decimal


def test_the_rules_that_ship_know_btc_and_say_where_they_are_from() -> None:
    book = load_instruments("known", ["BTC/USDT", "ETH/USDT"])

    assert (book["BTC/USDT"].tick_size, book["BTC/USDT"].notional_min) == (D("0.01"), 5)
    assert len(book.notes) == 1
    assert "Binance" in book.notes[0]
    assert "20" in book.notes[0]


def test_a_symbol_that_is_not_known_trades_free_and_says_so() -> None:
    book = load_instruments("known", ["FOO/USDT"])

    assert (book["FOO/USDT"].tick_size, book["FOO/USDT"].step_size, book["FOO/USDT"].notional_min) == (0, D("1e-8"), 0)
    assert any("FOO/USDT" in note and "free" in note for note in book.notes)


def test_free_means_free_for_every_symbol() -> None:
    book = load_instruments("free", ["BTC/USDT"])

    assert book["BTC/USDT"].notional_min == 0
    assert book.notes == ("instrument rules: free (no tick, step 1e-8, no minimum)",)


def test_a_persons_own_file_is_used(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "source: me\ndate: 2026-01-02\ninstruments:\n  BTC/USDT: {tick_size: '0.5', step_size: 0.1, notional_min: 7}\n"
    )

    book = load_instruments(str(path), ["BTC/USDT", "ETH/USDT"])

    rules = book["BTC/USDT"]
    assert (rules.tick_size, rules.step_size, rules.notional_min) == (D("0.5"), D("0.1"), 7)
    assert "me, 2026-01-02" in book.notes[0]
    assert "ETH/USDT" in book.notes[1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no `instruments`"),
        (b"instruments: [1, 2]", "no `instruments`"),
        (b"[1", "no YAML"),
        (b"\x00\xff\xfe", "no text"),
        (b"instruments: {BTC/USDT: 5}", "BTC/USDT"),
        (b"instruments: {BTC/USDT: {tick: 1}}", "tick_size, step_size, notional_min"),
        (b"instruments: {BTC/USDT: {step_size: 0}}", "step must be > 0"),
        (b"instruments: {BTC/USDT: {step_size: -1}}", "step must be > 0"),
        (b"instruments: {BTC/USDT: {tick_size: abc}}", "BTC/USDT"),
        (b"instruments: {BTC/USDT: {tick_size: .nan}}", "BTC/USDT"),
        (b"instruments: {BTC/USDT: {step_size: .inf}}", "BTC/USDT"),
        (b"#" * 1_000_001, "larger than"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name_with_the_form(
    tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(content)

    with pytest.raises(ConfigError) as refusal:
        load_instruments(str(path), ["BTC/USDT"])

    assert words in str(refusal.value)
    assert "own.yaml" in str(refusal.value)
    assert "write `instruments:`" in str(refusal.value)


def test_a_file_that_is_not_there_is_refused_with_the_choices() -> None:
    with pytest.raises(ConfigError, match="is no file; give a file, `known` or `free`"):
        load_instruments("nowhere.yaml", ["BTC/USDT"])
