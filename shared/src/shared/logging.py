"""One form for every log record, ours and the libraries': time, level, service, logger, event, context."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, MutableMapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec
import structlog
from structlog.stdlib import BoundLogger, ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

from shared.clock import Clock, SystemClock
from shared.errors import ConfigError
from shared.log_handlers import ErrorSink, FileHandler, SinkHandler, StreamHandler
from shared.redaction import Redactor

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
FORMATS: Final = ("json", "console")
# Libraries that speak of every statement or request at INFO or DEBUG.
QUIET_LIBRARIES: Final = (
    "aiohttp.access",
    "aiosqlite",
    "alembic",
    "asyncio",
    "ccxt",  # at DEBUG it prints requests with key and signature
    "numba",
    "sqlalchemy.engine",
)
_FIRST: Final = ("time", "level", "service", "logger", "event")


@dataclass(frozen=True, kw_only=True)
class LogOptions:
    """Where records go beside the terminal, and what they may not show."""

    secrets: Iterable[str] = ()
    stream: TextIO | None = None
    """Instead of standard error."""
    terminal_level: str | None = None
    """A higher level for the terminal alone, for instance while a table is drawn there."""
    directory: Path | None = None
    """Where `<service>.jsonl` is written; none, no file."""
    file_bytes_max: int = 10_000_000
    files_max: int = 5
    error_repeat_seconds: float = 300.0
    clock: Clock = field(default_factory=SystemClock)


def setup_logging(
    service_name: str,
    log_level: str = "INFO",
    log_format: str = "json",
    *,
    error_sink: ErrorSink | None = None,
    options: LogOptions | None = None,
) -> BoundLogger:
    """Set the process's logging up, replacing an earlier set-up of ours, and return the service's logger.

    Records of structlog and of the standard library take the same form; a secret is hidden wherever it stands.
    `error_sink(text, service)` hears each error once per `error_repeat_seconds`.
    """
    chosen = options or LogOptions()
    level = _checked("log_level", log_level, str(log_level).strip().upper(), LEVELS)
    form = _checked("log_format", log_format, str(log_format).strip().lower(), FORMATS)
    redactor = Redactor(chosen.secrets)
    shared = _shared_processors(service_name, chosen.clock)
    handlers: list[logging.Handler] = [StreamHandler(chosen.stream)]
    handlers[0].setFormatter(_RedactingFormatter(redactor, shared, form))
    handlers[0].setLevel(chosen.terminal_level or logging.NOTSET)
    if chosen.directory is not None:
        path = chosen.directory / f"{service_name}.jsonl"
        handlers.append(FileHandler(path, chosen.file_bytes_max, chosen.files_max))
        handlers[1].setFormatter(_RedactingFormatter(redactor, shared, "json"))
    _install(handlers, level)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=BoundLogger,
        cache_logger_on_first_use=False,
    )
    if error_sink is not None:
        add_error_sink(error_sink, service_name, options=chosen)
    logger: BoundLogger = structlog.stdlib.get_logger(service_name)
    return logger.bind(service=service_name)


def add_error_sink(sink: ErrorSink, service_name: str, *, options: LogOptions | None = None) -> Callable[[], None]:
    """Let `sink(text, service)` hear of errors from now on; return what ends it."""
    chosen = options or LogOptions()
    handler = SinkHandler(
        sink,
        service_name,
        redactor=Redactor(chosen.secrets),
        clock=chosen.clock,
        repeat_seconds=chosen.error_repeat_seconds,
    )
    root = logging.getLogger()
    root.addHandler(handler)
    return lambda: root.removeHandler(handler)


def bound_correlation(correlation_id: str) -> AbstractContextManager[None]:
    """Put `correlation_id` on every record logged inside, in this task and those it starts."""
    return structlog.contextvars.bound_contextvars(correlation_id=correlation_id)


def _checked(key: str, given: object, value: str, known: tuple[str, ...]) -> str:
    if value in known and isinstance(given, str):
        return value
    raise ConfigError(f"{key}: unknown value {given!r}; choose one of {', '.join(known)}")


def _install(handlers: list[logging.Handler], level: str) -> None:
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, StreamHandler | FileHandler | SinkHandler):
            root.removeHandler(handler)
            handler.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)
    for name in QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)


def _shared_processors(service_name: str, clock: Clock) -> list[Processor]:
    def add_origin(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["time"] = clock.now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event.setdefault("service", service_name)
        return event

    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        add_origin,
    ]


class _RedactingFormatter(ProcessorFormatter):
    """Renders an event dictionary, hides by name before and by value after."""

    def __init__(self, redactor: Redactor, shared: list[Processor], form: str) -> None:
        self._redactor = redactor
        render: list[Processor] = [structlog.processors.format_exc_info, self._hide_named, _ordered]
        render.append(structlog.processors.JSONRenderer(serializer=_dump) if form == "json" else _console)
        super().__init__(
            processors=[ProcessorFormatter.remove_processors_meta, *render], foreign_pre_chain=[*shared, _drop_echo]
        )

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without any secret."""
        return self._redactor.text(super().format(record))

    def _hide_named(self, _: WrappedLogger, __: str, event: MutableMapping[str, Any]) -> EventDict:
        return {key: self._redactor.value(key, value) for key, value in event.items()}


def _drop_echo(_: WrappedLogger, __: str, event: MutableMapping[str, Any]) -> EventDict:
    """Drop what another handler's formatter left on a library's record: the event once more."""
    return {key: value for key, value in event.items() if key not in {"message", "asctime"}}


def _ordered(_: WrappedLogger, __: str, event: MutableMapping[str, Any]) -> EventDict:
    first = {key: event[key] for key in _FIRST if key in event}
    return {**first, **{key: value for key, value in event.items() if key not in first}}


def _console(_: WrappedLogger, __: str, event: MutableMapping[str, Any]) -> str:
    exception = event.pop("exception", "")
    head = f"{event.pop('time')} {str(event.pop('level')).upper():<8} {event.pop('service')}: {event.pop('event')}"
    event.pop("logger", None)
    tail = " ".join(f"{key}={value}" for key, value in event.items())
    line = " ".join(part for part in (head, tail) if part)
    return f"{line}\n{exception}" if exception else line


def _dump(event: Any, **_: Any) -> str:
    """Return strict JSON on one line: no NaN, whatever the values are."""
    try:
        return msgspec.json.encode(event, enc_hook=repr).decode()
    except (TypeError, ValueError, RecursionError):  # such as half a character, or a key that is no text
        plain = (str, int, bool, type(None))
        return json.dumps({str(k): value if isinstance(value, plain) else repr(value) for k, value in event.items()})
