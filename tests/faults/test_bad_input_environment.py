"""A mistake in the environment or in `.env` is named with the nearest key, and never shows a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

SECRET = "hunter2-secret-value"
UP = ("up", "--health-port", "0", "--duration", "0.1")

ENVIRONMENTS = {
    "a limit misspelt": ({"RISK_MAX_POSITON_SIZE": "0.1"}, ("RISK_MAX_POSITON_SIZE", "RISK_MAX_POSITION_SIZE")),
    "a limit that is none": ({"RISK_LEVEL": "low"}, ("RISK_LEVEL", "no such setting")),
    "a balance misspelt": ({"PAPER_BALANC": "1000"}, ("PAPER_BALANC", "PAPER_BALANCE")),
    "a group of ours, unknown": ({"TELEGRAM_TOKEN": SECRET}, ("TELEGRAM_TOKEN", "TELEGRAM_BOT_TOKEN")),
    "a port misspelt": ({"HEALTH_PROT": "8080"}, ("HEALTH_PROT", "HEALTH_PORT")),
    "a breaker misspelt": ({"CIRCUIT_BREAKER_TRESHOLD": "5"}, ("CIRCUIT_BREAKER_THRESHOLD",)),
    "one letter from a key": ({"SYMBOL": "BTC/USDT"}, ("SYMBOL", "did you mean SYMBOLS?")),
    "two letters from a key": ({"TRADING_MDOE": "paper"}, ("TRADING_MDOE", "did you mean TRADING_MODE?")),
    "a value out of range": ({"RISK_MAX_POSITION_SIZE": "2"}, ("environment RISK_MAX_POSITION_SIZE", "'2'")),
    "a value of the wrong type": ({"FEE_TAKER": "low"}, ("environment FEE_TAKER", "'low'")),
    "live by environment alone": ({"TRADING_MODE": "live", "I_UNDERSTAND_LIVE": "7"}, ("--i-understand-live",)),
    "dry_run against the mode": ({"DRY_RUN": "false"}, ("dry_run", "leave dry_run out")),
    "Telegram without a chat": (
        {"TELEGRAM_ENABLED": "true", "TELEGRAM_BOT_TOKEN": SECRET},
        ("telegram_chat_id", "TELEGRAM_CHAT_ID"),
    ),
    "a token with a slash": ({"TELEGRAM_BOT_TOKEN": f"{SECRET}/x"}, ("telegram_bot_token", "@BotFather")),
    "a list with a hole": ({"TIMEFRAMES": "1m,,5m"}, ("environment TIMEFRAMES", "empty")),
    "a database without a scheme": ({"DATABASE_URL": f"user:{SECRET}@host/x"}, ("environment DATABASE_URL",)),
    "a bus without a scheme": ({"REDIS_URL": f"{SECRET}@host"}, ("environment REDIS_URL", "redis://")),
}

FILES = {
    "a foreign key": ("HOME_ASSISTANT=1\n", ("line 1", "HOME_ASSISTANT")),
    "a key misspelt": ("LOG_LEVEL=INFO\nLOG_FROMAT=json\n", ("line 2", "LOG_FROMAT", "LOG_FORMAT")),
    "a key twice": ("SPEED=1\nSPEED=2\n", ("line 2", "SPEED is given twice")),
    "no NAME=value": (f"SPEED=1\n{SECRET}\n", ("line 2", "NAME=value")),
    "an open quote": (f'BINANCE_API_KEY="{SECRET}\n', ("line 1", "not closed")),
    "a wrong value": ("SPEED=fast\n", ("SPEED", "'fast'")),
    "bytes that are no text": ("SPEED=1\n\udcff\udcfe\n", ("not UTF-8",)),
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_wrong_name_or_value_in_the_environment_is_refused(
    name: str, trading: Any, refused: Any, clean_place: Path
) -> None:
    environment, fragments = ENVIRONMENTS[name]
    outcome = trading(*UP, env=environment)
    refused(outcome, *fragments)
    assert SECRET not in outcome.said
    assert not list(clean_place.iterdir())


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_line_of_the_env_file_is_refused(name: str, trading: Any, refused: Any, clean_place: Path) -> None:
    text, fragments = FILES[name]
    (clean_place / ".env").write_bytes(text.encode("utf-8", "surrogateescape"))
    outcome = trading(*UP)
    refused(outcome, ".env", *fragments)
    assert SECRET not in outcome.said
    assert [path.name for path in clean_place.iterdir()] == [".env"]


@pytest.mark.parametrize("service", ["data-collector", "strategy-engine", "order-executor", "portfolio-manager"])
def test_a_service_refuses_the_same_mistakes(service: str, trading: Any, refused: Any) -> None:
    refused(trading("run", service, env={"RISK_STOP_LOSS": "5"}), "RISK_STOP_LOSS", "RISK_STOP_LOSS_PCT")


def test_an_option_wins_over_a_wrong_environment_only_where_the_name_is_right(trading: Any, refused: Any) -> None:
    refused(trading("up", "--speed", "1", "--balance", "1", env={"PAPER_BALANCES": "1"}), "PAPER_BALANCES")
