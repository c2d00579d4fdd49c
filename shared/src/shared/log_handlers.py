"""Where log records go: the terminal, a rotating file, and a sink for errors that a person should hear of."""

from __future__ import annotations

import logging
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final, TextIO

from shared.clock import Clock
from shared.errors import ConfigError
from shared.redaction import Redactor

type ErrorSink = Callable[[str, str], object]

REPEATS_REMEMBERED_MAX: Final = 1000
# Records of these loggers never go to the sink: it would be told of its own troubles.
SINK_LOGGERS: Final = ("shared.notifier", "shared.telegram", "aiohttp")


class StreamHandler(logging.StreamHandler[TextIO]):
    """Writes to the stream it was given, or to whatever standard error is at that moment."""

    def __init__(self, stream: TextIO | None) -> None:
        self._given = stream
        super().__init__(stream or sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        self.stream = self._given or sys.stderr
        super().emit(record)


class FileHandler(RotatingFileHandler):
    """A JSON lines file that is turned over at a size, a bounded number of them kept."""

    def __init__(self, path: Path, bytes_max: int, files_max: int) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            super().__init__(path, maxBytes=bytes_max, backupCount=files_max - 1, encoding="utf-8", errors="replace")
        except OSError as error:
            raise ConfigError(
                f"log file {path}: cannot be written ({error.strerror}); choose another --state"
            ) from None

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, to a new file when it would pass the size; rendered once, where the library renders twice."""
        try:
            line = self.format(record) + self.terminator
            if self.stream is None:
                self.stream = self._open()
            if self.stream.tell() + len(line.encode("utf-8", "replace")) > self.maxBytes:
                self.doRollover()
            self.stream.write(line)
            self.flush()
        except Exception:  # noqa: BLE001 - a task boundary: what cannot be logged stops nothing
            self.handleError(record)


class SinkHandler(logging.Handler):
    """Tells the sink of each error once, then no sooner than `repeat_seconds` later, with the number held back."""

    def __init__(
        self, sink: ErrorSink, service: str, *, redactor: Redactor, clock: Clock, repeat_seconds: float
    ) -> None:
        super().__init__(logging.ERROR)
        self.faults = 0
        self._sink, self._service, self._redactor, self._clock = sink, service, redactor, clock
        self._repeat_seconds = repeat_seconds
        self._told: OrderedDict[tuple[str, ...], tuple[float, int]] = OrderedDict()
        self._inside = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        """Pass an error on unless it was told lately; whatever the sink does, logging goes on."""
        if record.name.startswith(SINK_LOGGERS) or getattr(self._inside, "busy", False):
            return
        self._inside.busy = True
        try:
            text, service, kind = self._describe(record)
            held_back = self._held_back((record.name, service, text.partition(":")[0], kind))
            if held_back is not None:
                more = f" (and {held_back} more like it)" if held_back else ""
                self._sink(self._redactor.text(text) + more, service)
        except Exception:  # noqa: BLE001 - a task boundary: an error about an error must not spread
            self.faults += 1
        finally:
            self._inside.busy = False

    def _describe(self, record: logging.LogRecord) -> tuple[str, str, str]:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(record.msg, dict):  # a structlog record: its event dictionary
            event, service = str(record.msg.get("event", "")), str(record.msg.get("service", self._service))
            found = record.msg.get("exc_info") or record.msg.get("error")
            error = (
                found if isinstance(found, BaseException) else error or (sys.exc_info()[1] if found is True else None)
            )
            detail = f"{type(error).__name__}: {error}" if error is not None else str(record.msg.get("error", ""))
        else:
            event, service = record.getMessage(), self._service
            detail = f"{type(error).__name__}: {error}" if error is not None else ""
        return (f"{event}: {detail}" if detail else event), service, type(error).__name__

    def _held_back(self, key: tuple[str, ...]) -> int | None:
        """Return how many were held back since the last one told, or None when this one is held back too."""
        now = self._clock.monotonic()
        last, count = self._told.get(key, (None, 0))
        if last is not None and now - last < self._repeat_seconds:
            self._told[key] = (last, count + 1)
            return None
        self._told[key] = (now, 0)
        self._told.move_to_end(key)
        while len(self._told) > REPEATS_REMEMBERED_MAX:
            self._told.popitem(last=False)
        return count
