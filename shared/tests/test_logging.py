"""Logs: one form for all records, tracebacks kept, secrets hidden, errors told once."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.clock import ManualClock
from shared.errors import ConfigError
from shared.logging import LogOptions, add_error_sink, bound_correlation, setup_logging
from shared.redaction import HIDDEN, Redactor, is_secret_name, redact_text

TOKEN = "123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in stream.getvalue().split("\n") if line]


def test_records_of_ours_and_of_libraries_take_one_form() -> None:
    stream = io.StringIO()
    log = setup_logging("engine", options=LogOptions(stream=stream, clock=ManualClock()))
    log.info("signal stored", strategy="rsi", quantity=3)
    logging.getLogger("library.part").warning("took %d ms", 5, extra={"host": "h"})
    ours, theirs = read(stream)
    assert ours == {
        "time": "2024-01-01T00:00:00.000Z",
        "level": "info",
        "service": "engine",
        "logger": "engine",
        "event": "signal stored",
        "strategy": "rsi",
        "quantity": 3,
    }
    assert {key: theirs[key] for key in ("time", "level", "logger", "service", "event", "host")} == {
        "time": "2024-01-01T00:00:00.000Z",
        "level": "warning",
        "logger": "library.part",
        "service": "engine",
        "event": "took 5 ms",
        "host": "h",
    }


def test_tracebacks_are_kept_in_both() -> None:
    stream = io.StringIO()
    log = setup_logging("engine", options=LogOptions(stream=stream))
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        log.exception("ours")
        logging.getLogger("library").exception("theirs")
    for record in read(stream):
        assert "Traceback" in record["exception"]
        assert "ZeroDivisionError" in record["exception"]


def test_the_console_shows_level_event_values_and_traceback() -> None:
    stream = io.StringIO()
    log = setup_logging("engine", log_format="console", options=LogOptions(stream=stream))
    log.warning("a gap", stream="BTC")
    try:
        raise ValueError("odd")
    except ValueError:
        log.exception("failed")
    text = stream.getvalue()
    assert "WARNING  engine: a gap stream=BTC" in text
    assert "ValueError: odd" in text


def test_the_level_is_a_threshold_and_its_case_does_not_matter() -> None:
    stream = io.StringIO()
    log = setup_logging("engine", "warning", options=LogOptions(stream=stream))
    log.info("silent")
    logging.getLogger("library").info("silent")
    log.error("loud")
    assert [record["event"] for record in read(stream)] == ["loud"]


@pytest.mark.parametrize(("level", "form"), [("LOUD", "json"), ("", "json"), (10, "json"), ("INFO", "xml")])
def test_a_wrong_level_or_form_is_refused(level: Any, form: str) -> None:
    with pytest.raises(ConfigError, match=r"log_level|log_format"):
        setup_logging("engine", level, form)


def test_setting_up_twice_does_not_double_records() -> None:
    first, second = io.StringIO(), io.StringIO()
    setup_logging("engine", options=LogOptions(stream=first))
    setup_logging("engine", options=LogOptions(stream=second)).info("once")
    assert first.getvalue() == ""
    assert len(read(second)) == 1


def test_without_a_stream_records_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("engine").info("hello")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["event"] == "hello"


def test_warnings_of_python_are_records_too() -> None:
    stream = io.StringIO()
    setup_logging("engine", options=LogOptions(stream=stream))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old way", stacklevel=1)
    assert "old way" in read(stream)[0]["event"]


def test_the_correlation_id_is_on_every_record_inside() -> None:
    stream = io.StringIO()
    log = setup_logging("engine", options=LogOptions(stream=stream))
    with bound_correlation("c-1"):
        log.info("inside")
        logging.getLogger("library").info("inside")
    log.info("outside")
    assert [record.get("correlation_id") for record in read(stream)] == ["c-1", "c-1", None]


def test_a_secret_is_hidden_wherever_it_stands() -> None:
    stream = io.StringIO()
    secret = 'p"ass\\wörd/1'
    log = setup_logging("engine", options=LogOptions(stream=stream, secrets=[secret, ""]))

    class Holder:
        def __repr__(self) -> str:
            return f"Holder({secret})"

    log.info(f"event {secret}", value=secret, nested={"deep": [secret]}, holder=Holder())
    logging.getLogger("library").info("GET https://api.telegram.org/bot%s/sendMessage", TOKEN)
    log.info("dsn", url="postgresql://me:p@ss@host/db?x=1", headers={"X-MBX-APIKEY": "abcdefgh"})
    log.info("names", bot_token="t1t1", api_key="k1k1", inner={"apiSecret": "s1s1", "password": None})
    try:
        raise ValueError(secret)
    except ValueError:
        log.exception("failed")
    text = stream.getvalue()
    for part in ("ass\\", "wörd", "AAHdq", "p@ss", "abcdefgh", "t1t1", "k1k1", "s1s1"):
        assert part not in text, part
    assert len(read(stream)) == 5
    assert text.count(HIDDEN) >= 9


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.text(min_size=4, max_size=30), st.text(max_size=20), st.text(max_size=20))
def test_no_line_ever_holds_a_known_secret(secret: str, before: str, after: str) -> None:
    stream = io.StringIO()
    setup_logging("engine", options=LogOptions(stream=stream, secrets=[secret])).info(
        "x", value=before + secret + after
    )
    (record,) = read(stream)
    if secret not in HIDDEN:
        assert secret not in record["value"].replace(HIDDEN, "\0")


def test_odd_values_are_logged_all_the_same() -> None:
    stream = io.StringIO()
    log = setup_logging("engine", options=LogOptions(stream=stream))
    log.info("odd", nan=float("nan"), half="\ud800", raw=b"\xff", keys={(1, 2): 3}, line="a\nb")
    (record,) = read(stream)
    assert record["event"] == "odd"


def test_the_file_is_json_turned_over_and_bounded(tmp_path: Path) -> None:
    options = LogOptions(stream=io.StringIO(), directory=tmp_path / "log", file_bytes_max=2000, files_max=3)
    log = setup_logging("engine", log_format="console", options=options)
    for number in range(100):
        log.info("line", number=number)
    files = sorted((tmp_path / "log").iterdir())
    assert [file.name for file in files] == ["engine.jsonl", "engine.jsonl.1", "engine.jsonl.2"]
    assert all(file.stat().st_size <= 2000 for file in files)
    assert json.loads(files[0].read_text().splitlines()[-1])["number"] == 99


def test_a_log_directory_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be written"):
        setup_logging("engine", options=LogOptions(stream=io.StringIO(), directory=tmp_path / "log"))


async def test_the_sink_hears_each_error_once_in_a_while() -> None:
    heard: list[tuple[str, str]] = []
    clock = ManualClock()
    options = LogOptions(stream=io.StringIO(), clock=clock, secrets=["hunter2"])
    log = setup_logging("engine", error_sink=lambda text, service: heard.append((text, service)), options=options)
    for _ in range(5):
        try:
            raise ConnectionError("no hunter2 here")
        except ConnectionError:
            log.exception("bus lost")
    log.warning("not an error")
    logging.getLogger("library").error("disk %s", "full")
    assert heard == [(f"bus lost: ConnectionError: no {HIDDEN} here", "engine"), ("disk full", "engine")]
    await clock.advance(300)
    log.error("bus lost")
    assert len(heard) == 3, "another class of error is another error"
    try:
        raise ConnectionError("again")
    except ConnectionError:
        log.exception("bus lost")
    assert heard[-1] == ("bus lost: ConnectionError: again (and 4 more like it)", "engine")


def test_a_sink_that_fails_or_logs_does_no_harm() -> None:
    stream = io.StringIO()

    def sink(text: str, service: str) -> None:
        logging.getLogger("anywhere").error("while telling: %s", text)
        raise RuntimeError(service)

    log = setup_logging("engine", error_sink=sink, options=LogOptions(stream=stream))
    log.error("first")
    logging.getLogger("shared.notifier").error("its own trouble")
    assert {record["event"] for record in read(stream)} == {"first", "while telling: first", "its own trouble"}


def test_a_sink_can_be_taken_away() -> None:
    heard: list[str] = []
    log = setup_logging("engine", options=LogOptions(stream=io.StringIO()))
    remove = add_error_sink(lambda text, _: heard.append(text), "engine")
    log.error("one")
    remove()
    log.error("two")
    assert heard == ["one"]


@pytest.mark.parametrize(
    "name", ["token", "bot_token", "apiSecret", "API_KEY", "key", "password", "X-MBX-APIKEY", "dsn"]
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["event", "symbol", "keys", "tokens_left", "secretary", "monkey", ""])
def test_names_of_other_things(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "text", ["12:30:45 all is well", "http://host:8080/health?mail=a@b", "BTC/USDT:1m=file", "redis://host:6379/0"]
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert redact_text(text) == text


def test_a_short_secret_does_not_garble_everything() -> None:
    assert Redactor(["a", "ab"]).text("abracadabra") == "abracadabra"
