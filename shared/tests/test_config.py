"""Settings: where they come from, what is refused, and what a refusal says."""

from __future__ import annotations

import contextlib
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from shared.config import ENVIRONMENT_NAMES, KEYS, SECRET_KEYS, Settings, load_settings
from shared.config_keys import edit_distance
from shared.config_values import TIMEFRAMES
from shared.errors import ConfigError
from shared.models import TIMEFRAME_SECONDS

ROOT = Path(__file__).parents[2]
FOREIGN = """PATH HOME USER LANG SHELL TERM PWD OLDPWD SHLVL LOGNAME HOSTNAME EDITOR PAGER DISPLAY TZ MAIL LC_ALL CI
    VIRTUAL_ENV PYTHONPATH PYTHONHASHSEED DATE STAGE STATUS NODE MODE NAME TEMP TMP TMPDIR GITHUB_TOKEN EDGE HTTP_PROXY
    http_proxy no_proxy SSH_AUTH_SOCK XDG_RUNTIME_DIR DEBUG LOG_FILE PORT HOST FEES RISKS GAPS SEEDS DATABASE REDIS_HOST
    POSTGRES_USER POSTGRES_DB MAKEFLAGS MAKELEVEL COLUMNS LINES PS1 _ TRADING_REFERENCE UV_CACHE_DIR SYSTEMD_EXEC_PID
    INVOCATION_ID JOURNAL_STREAM DATADIR SPEC TEAM SITE BASE META BETA"""


def load(env: dict[str, str] | None = None, env_file: Path | None = None, **options: object) -> Settings:
    return load_settings(options, env=env or {}, env_file=env_file)


def refusal(env: dict[str, str] | None = None, env_file: Path | None = None, **options: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(env, env_file, **options)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_the_defaults_are_those_of_the_specification() -> None:
    settings = load()
    assert settings.redis_url == settings.database_url == ""
    assert (settings.log_level, settings.log_format) == ("INFO", "json")
    assert settings.risk_max_position_size == Decimal("0.1")
    assert (settings.risk_stop_loss_pct, settings.risk_daily_loss_limit_pct) == (5, 10)
    assert (settings.paper_balance, settings.fee_taker, settings.slippage_bps) == (10000, Decimal("0.001"), 2)
    assert settings.trading_mode == "paper"
    assert settings.dry_run is True
    assert settings.symbols == ("BTC/USDT", "ETH/USDT")
    assert settings.streams == (("BTC/USDT", "1m"), ("ETH/USDT", "1m"))
    assert settings.quote_asset == "USDT"
    assert (settings.feed, settings.speed, settings.feed_ahead_max) == ("simulated", 1.0, 2000)
    assert settings.telegram_enabled is False


def test_an_option_wins_over_the_environment_which_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("SEED=1\nSPEED=10\nLOG_LEVEL=debug # quiet later\nexport FEE_TAKER='0.002'\n\n# end\n")
    settings = load({"SPEED": "20", "SEED": "2"}, file, seed=3, duration=None)
    assert (settings.seed, settings.speed, settings.log_level) == (3, 20.0, "DEBUG")
    assert settings.fee_taker == Decimal("0.002")


def test_settings_built_alone_read_the_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPPAGE_BPS", "7")
    assert Settings().slippage_bps == 7
    assert Settings(slippage_bps=1).slippage_bps == 1
    assert load_settings(env={}).slippage_bps == 2


def test_the_state_directory_may_be_named_by_its_own_variable() -> None:
    assert load({"TRADING_STATE": "/a", "STATE": "/b"}).state == Path("/a")
    assert load({"TRADING_STATE": "/a"}, state="/c").state == Path("/c")


def test_an_empty_variable_means_the_default() -> None:
    assert load({"LOG_LEVEL": "", "SYMBOLS": " "}) == load()


def test_lists_are_comma_separated_everywhere() -> None:
    settings = load({"SYMBOLS": "BTC/USDT, SOL/USDT", "TIMEFRAMES": "1m,1h", "STRATEGIES": "rsi,macd"})
    assert settings.symbols == ("BTC/USDT", "SOL/USDT")
    assert len(settings.streams) == 4
    assert load(symbols=["BTC/USDT"]).symbols == ("BTC/USDT",)
    shares = load(allocation="rsi=0.3,grid@BTC/USDT=0.2,macd@BTC/USDT:1m=0.5").allocation
    assert [tuple(item) for item in shares] == [
        ("rsi", "", "", Decimal("0.3")),
        ("grid", "BTC/USDT", "", Decimal("0.2")),
        ("macd", "BTC/USDT", "1m", Decimal("0.5")),
    ]


def test_the_files_of_a_replay_name_the_symbols() -> None:
    settings = load(feed="replay", data=["SOL/USDT:1m=/d/a,b=c.csv", "BTC/USDT:5m=x.parquet"])
    assert settings.symbols == ("SOL/USDT", "BTC/USDT")
    assert settings.streams == (("BTC/USDT", "5m"), ("SOL/USDT", "1m"))
    assert settings.data[0].path == Path("/d/a,b=c.csv")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"symbols": "BTCUSDT"}, ["symbols", "BTCUSDT", "BTC/USDT"]),
        ({"symbols": "btc/usdt"}, ["symbols", "BTC/USDT"]),
        ({"symbols": "BTC/USDT,ETH/BTC"}, ["symbols", "BTC, USDT", "quote currency"]),
        ({"symbols": "BTC/USDT,BTC/USDT"}, ["symbols", "twice"]),
        ({"symbols": "BTC/USDT,,ETH/USDT"}, ["symbols", "empty"]),
        ({"symbols": "USDT/USDT"}, ["symbols", "itself"]),
        ({"symbols": ""}, ["symbols", "at least one"]),
        ({"timeframes": "7m"}, ["timeframes", "7m", "5m"]),
        ({"strategies": "../x"}, ["strategies", "../x"]),
        ({"fee_taker": "1.5"}, ["fee_taker", "1.5"]),
        ({"fee_maker": "-0.1"}, ["fee_maker", "-0.1"]),
        ({"fee_taker": "nan"}, ["fee_taker", "nan"]),
        ({"fee_taker": "0,001"}, ["fee_taker", "0,001"]),
        ({"paper_balance": 0}, ["paper_balance", "0"]),
        ({"paper_balance": "Infinity"}, ["paper_balance"]),
        ({"speed": "0"}, ["speed", "max"]),
        ({"speed": float("nan")}, ["speed", "nan"]),
        ({"speed": "fast"}, ["speed", "fast"]),
        ({"duration": "-1"}, ["duration", "-1"]),
        ({"risk_max_position_size": "2"}, ["risk_max_position_size", "2"]),
        ({"risk_stop_loss_pct": "100"}, ["risk_stop_loss_pct", "100"]),
        ({"health_port": 70000}, ["health_port", "70000"]),
        ({"log_level": "verbose"}, ["log_level", "verbose", "WARNING"]),
        ({"log_level": 3}, ["log_level"]),
        ({"trading_mode": "papper"}, ["trading_mode", "papper", "testnet"]),
        ({"mode": "testnet"}, ["no testnet venue", "paper"]),
        ({"mode": "live"}, ["--i-understand-live"]),
        ({"mode": "live", "i_understand_live": "7", "strategies": "rsi"}, ["no live venue"]),
        ({"mode": "live", "i_understand_live": "7"}, ["strategies", "name each"]),
        ({"dry_run": "false"}, ["dry_run", "read-only"]),
        ({"dry_run": "perhaps"}, ["dry_run", "perhaps"]),
        ({"telegram_enabled": True}, ["telegram_bot_token", "TELEGRAM_BOT_TOKEN"]),
        ({"telegram_enabled": True, "telegram_bot_token": "1:A"}, ["telegram_chat_id"]),
        ({"telegram_bot_token": "1:A/../x"}, ["telegram_bot_token"]),
        ({"allocation": "rsi=0.6,macd=0.5"}, ["allocation", "1.1"]),
        ({"allocation": "rsi=0.6,rsi=0.1"}, ["allocation", "twice"]),
        ({"allocation": "rsi"}, ["allocation", "strategy=share"]),
        ({"allocation": "rsi=nan"}, ["allocation", "nan"]),
        ({"allocation": "rsi=0.5", "strategies": "macd"}, ["allocation", "rsi", "macd"]),
        ({"allocation": "rsi@SOL/USDT=0.5"}, ["allocation", "SOL/USDT"]),
        ({"sizing": "half"}, ["sizing", "half", "equity_fraction"]),
        ({"sizing": "equity_fraction:1.5"}, ["sizing", "1.5"]),
        ({"sizing": "quote:-5"}, ["sizing", "-5"]),
        ({"sizing": "risk:1", "risk_stop_loss_pct": "0"}, ["sizing", "risk_stop_loss_pct"]),
        ({"data": "BTC/USDT:1m=f.csv"}, ["data", "--feed replay"]),
        ({"data": "f.csv", "feed": "replay"}, ["data", "SYMBOL:TIMEFRAME=FILE"]),
        ({"data": "BTC/USDT:1m=f.csv", "feed": "replay", "symbols": "ETH/USDT"}, ["symbols", "BTC/USDT"]),
        ({"strategy_params": "{rsi"}, ["strategy_params", "JSON"]),
        ({"strategy_params": '{"rsi": 3}'}, ["strategy_params", "by strategy"]),
        ({"redis_url": "http://x"}, ["redis_url", "redis://", "http://"]),
        ({"circuit_breaker_threshold": "0"}, ["circuit_breaker_threshold", "0"]),
        ({"feed_ahead_max": 1.5}, ["feed_ahead_max", "1.5"]),
        ({"symbls": "x"}, ["symbls", "symbols"]),
    ],
)
def test_what_cannot_be_is_refused_by_name(options: dict[str, Any], words: list[str]) -> None:
    text = refusal(**options)
    assert all(word in text for word in words), text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("RISK_MAX_POSITON_SIZE", "RISK_MAX_POSITION_SIZE"),
        ("RISK_STOPLOSS", "RISK_STOP_LOSS_PCT"),
        ("TELEGRAM_TOKEN", "TELEGRAM_BOT_TOKEN"),
        ("BINANCE_KEY", "BINANCE_API_KEY"),
        ("CIRCUIT_BREAKER_TRESHOLD", "CIRCUIT_BREAKER_THRESHOLD"),
        ("HEALTH_PROT", "HEALTH_PORT"),
        ("PAPER_BALANC", "PAPER_BALANCE"),
        ("SYMBOL", "SYMBOLS"),
        ("TIMEFRAME", "TIMEFRAMES"),
        ("DATABASE_URI", "DATABASE_URL"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("TRADING_MOD", "TRADING_MODE"),
        ("log_level", "LOG_LEVEL"),
        ("SPEEDS", "SPEED"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_nearest_name(name: str, nearest: str) -> None:
    text = refusal({name: "hunter2-value"})
    assert name in text
    assert nearest in text
    assert "hunter2-value" not in text


def test_what_other_programs_put_into_the_environment_is_left_alone() -> None:
    names = FOREIGN.split()
    assert load(dict.fromkeys(names, "x")) == load()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("SYMBOLZ=BTC/USDT", ["line 2", "SYMBOLZ", "SYMBOLS"]),
        ("PATH=/bin", ["line 2", "PATH"]),
        ("just words", ["line 2", "NAME=value"]),
        ("SEED='1", ["line 2", "quote"]),
        ("LOG_LEVEL=INFO\nLOG_LEVEL=DEBUG", ["line 3", "twice"]),
        ("I_UNDERSTAND_LIVE=7", ["I_UNDERSTAND_LIVE", "--i-understand-live"]),
        ("FEE_TAKER=9", [".env", "FEE_TAKER", "9"]),
    ],
)
def test_a_file_holds_settings_and_nothing_else(tmp_path: Path, line: str, words: list[str]) -> None:
    file = tmp_path / ".env"
    file.write_text(f"# mine\n{line}\n")
    text = refusal(env_file=file)
    assert all(word in text for word in words), text


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    assert "missing.env" in refusal(env_file=tmp_path / "missing.env")
    (tmp_path / "bytes.env").write_bytes(b"SEED=\xff\xfe")
    assert "UTF-8" in refusal(env_file=tmp_path / "bytes.env")
    assert str(tmp_path) in refusal(env_file=tmp_path)


def test_a_secret_shows_neither_in_a_refusal_nor_in_the_settings_text() -> None:
    settings = load({"BINANCE_API_SECRET": "s3cr3t-s3cr3t", "REDIS_URL": "redis://:pass%21word@host/0"})
    assert "s3cr3t" not in repr(settings)
    assert "pass" not in repr(settings).replace("postgres_password", "").replace("grafana_password", "")
    assert {"s3cr3t-s3cr3t", "pass%21word", "pass!word"} <= set(settings.secret_values())
    assert "hunter2" not in refusal({"DATABASE_URL": "mysql://u:hunter2@h/d"})
    assert "hunter2" not in refusal(binance_api_key=["hunter2"])
    assert {"telegram_bot_token", "binance_api_key", "database_url"} <= SECRET_KEYS


def test_settings_are_frozen() -> None:
    settings = load()
    with pytest.raises(ValidationError):
        settings.seed = 5  # type: ignore[misc]


def test_what_is_not_set_but_needed_is_named() -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL"):
        load({"REDIS_URL": "redis://h"}).require("redis_url", "database_url")
    load(binance_api_key=SecretStr("k")).require("binance_api_key")


def test_every_service_has_a_port_of_its_own_until_one_is_set() -> None:
    services = ("data-collector", "strategy-engine", "order-executor", "portfolio-manager")
    assert [load().health_port_of(name) for name in services] == [8080, 8081, 8082, 8083]
    assert load({"HEALTH_PORT": "0"}).health_port_of("order-executor") == 0


def test_dry_run_may_be_stated_if_it_is_true() -> None:
    assert load({"DRY_RUN": "true"}).dry_run is True
    assert Settings(_environment={}, trading_mode="testnet", dry_run=False).dry_run is False


def test_max_is_the_speed_without_limit() -> None:
    assert load(speed="max").speed == math.inf


def test_the_timeframes_of_settings_and_models_are_the_same() -> None:
    assert tuple(TIMEFRAME_SECONDS) == TIMEFRAMES


def test_the_example_file_lists_every_key_at_its_default(tmp_path: Path) -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    settings = [line[1:] for line in lines if line.startswith("#") and not line.startswith("# ")]
    assert {line.partition("=")[0].lower() for line in settings} == KEYS - {"i_understand_live"}
    file = tmp_path / ".env"
    file.write_text("\n".join(settings))
    assert load(env_file=file) == load()
    assert load(env_file=ROOT / ".env.example") == load()


@given(st.sampled_from(sorted(ENVIRONMENT_NAMES - {"I_UNDERSTAND_LIVE"})), st.text(max_size=30))
def test_no_value_whatever_ends_in_anything_but_settings_or_a_refusal(name: str, value: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(load({name: value}), Settings)


@given(st.text("AB_", max_size=6), st.text("AB_", max_size=6))
def test_the_edit_distance_is_a_distance(left: str, right: str) -> None:
    distance = edit_distance(left, right)
    assert distance == edit_distance(right, left)
    assert (distance == 0) == (left == right)
    assert abs(len(left) - len(right)) <= distance <= max(len(left), len(right))
