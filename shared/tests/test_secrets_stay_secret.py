"""Nothing that holds a secret shows it when it is printed, fails, or is logged with everything around it."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from urllib.parse import quote

import pytest
import structlog

from shared.broker import RedisBroker
from shared.config import SECRET_KEYS, Settings, load_settings
from shared.db import Database
from shared.errors import TradingError
from shared.logging import LogOptions, setup_logging
from shared.notifier import TelegramNotifier
from shared.service import open_notifier

CANARIES = {key: f"canary%{number}/{key}@:x" for number, key in enumerate(sorted(SECRET_KEYS))}
CANARIES["telegram_bot_token"] = "123456789:canaryCanaryCanaryCanaryCanary"


def settings() -> Settings:
    own = {key.upper(): text for key, text in CANARIES.items() if not key.endswith("_url")}
    schemes = {"redis_url": "redis", "database_url": "postgresql", "binance_stream_url": "ws"}
    urls = {
        key.upper(): f"{schemes.get(key, 'http')}://me:{quote(canary, safe='')}@127.0.0.1:1/0"
        for key, canary in CANARIES.items()
        if key.endswith("_url")
    }
    more = {"TELEGRAM_CHAT_ID": "42", "TELEGRAM_ENABLED": "true", "TELEGRAM_CLOSE_SECONDS_MAX": "0"}
    return load_settings(env={**own, **urls, **more})


def shown(text: str) -> list[str]:
    forms = {key: {text, quote(text, safe="")} for key, text in CANARIES.items()}
    return [key for key, known in forms.items() if any(form in text for form in known)]


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_the_settings_know_every_one_of_their_secrets() -> None:
    assert set(CANARIES.values()) <= set(settings().secret_values())


async def test_no_part_shows_a_secret_when_it_is_printed() -> None:
    chosen = settings()
    database, broker = Database(chosen.database_url), RedisBroker(chosen.redis_url)
    notifier = TelegramNotifier(chosen.telegram_bot_token, chosen.telegram_chat_id)
    parts = [chosen, database, broker, notifier, {"settings": chosen}, (database,)]
    assert shown("".join(f"{part!r} {part}" for part in parts)) == []
    await database.close()
    await broker.close()


async def test_servers_that_are_away_are_named_without_their_passwords(said: io.StringIO) -> None:
    chosen = settings()
    log = setup_logging("service", "DEBUG", options=LogOptions(stream=said, secrets=chosen.secret_values()))
    database, broker = Database(chosen.database_url), RedisBroker(chosen.redis_url)
    texts = []
    for attempt in (database.ping, database.connect, broker.connect, lambda: broker.depth("signals")):
        try:
            await attempt()
        except TradingError as error:
            log.exception("away", url=chosen.database_url, reason=str(error))
            texts.append(str(error))
    await database.close()
    await broker.close()
    assert len(texts) == 4
    assert shown(" ".join(texts)) == []
    assert "Traceback" in said.getvalue()
    assert shown(said.getvalue()) == []


async def test_an_error_full_of_secrets_reaches_neither_log_nor_person(said: io.StringIO) -> None:
    chosen = settings()
    log = setup_logging("service", "DEBUG", options=LogOptions(stream=said, secrets=chosen.secret_values()))
    text = " ".join([*CANARIES.values(), chosen.database_url, chosen.redis_url])
    assert sorted(shown(text)) == sorted(CANARIES), "the net itself catches every one"
    async with open_notifier(chosen, "service"):
        try:
            raise RuntimeError(text)
        except RuntimeError:
            log.exception("failed", settings=repr(chosen), bot_token=chosen.telegram_bot_token.get_secret_value())
    assert "failed" in said.getvalue()
    assert shown(said.getvalue()) == []
