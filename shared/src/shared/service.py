"""How every process of the platform starts and ends: settings, logging, serve, signals, exit code."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final

from structlog.stdlib import BoundLogger

from shared.config import Settings, load_settings
from shared.errors import TradingError
from shared.logging import LogOptions, add_error_sink, setup_logging
from shared.metrics import ServiceMetrics
from shared.notifier import OUTCOMES, NotifierLimits, TelegramNotifier

type Serve = Callable[[Settings, asyncio.Event], Awaitable[int | None]]
type TaskFactory = Callable[[], Awaitable[object]]

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130
GC_THRESHOLDS: Final = (50_000, 20, 100)


@dataclass(frozen=True, kw_only=True)
class ServicePolicy:
    """How a process ends and where it writes."""

    stop_seconds_max: float = 10.0
    interrupted_exit_code: int = EXIT_INTERRUPTED
    log_to_state: bool = False
    """Also write `log/<name>.jsonl` in the state directory."""
    quiet: bool = False
    """Only warnings on the terminal, where a live table is drawn."""


def run_service(
    name: str,
    serve: Serve,
    load: Callable[[], Settings] = load_settings,
    *,
    policy: ServicePolicy | None = None,
) -> int:
    """Run `serve(settings, stop)` until it returns, fails or a signal sets `stop`; return the process's exit code.

    The first SIGTERM or SIGINT sets `stop` and gives `serve` `stop_seconds_max` to end; a second one ends the
    process at once. A `TradingError` is one line on standard error and its own exit code; any other exception is
    logged with its traceback. `serve` may return an exit code of its own.
    """
    chosen = policy or ServicePolicy()
    try:
        settings = load()
        log = _set_up_log(name, settings, chosen)
        # Candles and rows die young and hold no cycles: looking for cycles at the usual pace takes a tenth of the time.
        gc.set_threshold(*GC_THRESHOLDS)
        with _Signals(chosen.stop_seconds_max) as signals, asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_run(name, serve, settings, log, signals, chosen))
    except TradingError as error:
        print(f"{name}: {_one_line(error)}", file=sys.stderr)  # noqa: T201 - before or beside any log
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


async def _run(
    name: str, serve: Serve, settings: Settings, log: BoundLogger, signals: _Signals, policy: ServicePolicy
) -> int:
    stop = asyncio.Event()
    signals.attach(asyncio.get_running_loop(), stop)
    log.info("started", mode=settings.trading_mode, pid=os.getpid())
    task = asyncio.ensure_future(_serve_resolved(serve, settings, stop))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if signals.received:
        log.info("stopping", signal=signals.received)
    if not task.done():
        await asyncio.wait({task}, timeout=policy.stop_seconds_max)
    if not task.done():
        log.error("stop took too long and was forced", seconds_max=policy.stop_seconds_max)
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)
        return EXIT_FAILED
    return _exit_code(name, task, log, policy.interrupted_exit_code if signals.received == "SIGINT" else EXIT_DONE)


async def _serve_resolved(serve: Serve, settings: Settings, stop: asyncio.Event) -> int | None:
    """Serve once every symbol is BASE/QUOTE; a name of the venue's own is looked up there."""
    if any("/" not in symbol for symbol in settings.symbols):
        from shared.clock import SystemClock
        from shared.venue_symbols import resolve_symbols  # no other start needs a venue's client

        settings = await resolve_symbols(settings, SystemClock())
    return await serve(settings, stop)


def _exit_code(name: str, task: asyncio.Future[int | None], log: BoundLogger, code_of_signal: int) -> int:
    if task.cancelled():
        log.error("ended by cancellation from within")
        return EXIT_FAILED
    error = task.exception()
    if error is None:
        log.info("stopped")
        return task.result() or code_of_signal
    fault = first_fault(error)
    if isinstance(fault, TradingError):
        log.error("ended by an error", error=_one_line(fault), error_type=type(fault).__name__)
        raise fault
    log.error("ended by an unexpected error", exc_info=error)
    where = ", ".join(getattr(fault, "__notes__", ()))
    text = f"{type(fault).__name__}: {_one_line(fault)}"
    print(f"{name}: unexpected {text}{f' ({where})' if where else ''}; the log has the traceback", file=sys.stderr)  # noqa: T201
    return EXIT_FAILED


def first_fault(error: BaseException) -> BaseException:
    """Return the one error that explains an exception group: a `TradingError` if there is one, else the first."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    faults = [first_fault(inner) for inner in error.exceptions]
    return next((fault for fault in faults if isinstance(fault, TradingError)), faults[0])


async def supervise(tasks: Mapping[str, TaskFactory], stop: asyncio.Event, log: BoundLogger) -> None:
    """Run named tasks together; when one fails the others are cancelled and its error is raised, naming it.

    A task that returns is done and the others go on. The first failure sets `stop` too, so that whatever watches
    it learns of the end.
    """

    async def guarded(name: str, factory: TaskFactory) -> None:
        try:
            await factory()
        except Exception as error:
            stop.set()
            error.add_note(f"in {name}")
            log.warning("a task failed", task=name, error=_one_line(error), error_type=type(error).__name__)
            raise

    gc.freeze()  # what is loaded by now stays: the collector need not look at it again and again
    try:
        async with asyncio.TaskGroup() as group:
            for name, factory in tasks.items():
                group.create_task(guarded(name, factory), name=name)
    except BaseExceptionGroup as group_error:
        raise first_fault(group_error) from group_error


@asynccontextmanager
async def open_notifier(
    settings: Settings, service: str, metrics: ServiceMetrics | None = None
) -> AsyncIterator[TelegramNotifier]:
    """Give the notifier that the settings describe, fed with the logs' errors, and close it at the end."""
    notifier = TelegramNotifier(
        settings.telegram_bot_token,
        settings.telegram_chat_id,
        enabled=settings.telegram_enabled,
        base_url=settings.telegram_api_url or "https://api.telegram.org",
        limits=NotifierLimits(
            topics=settings.telegram_topics,
            queue_max=settings.telegram_queue_max,
            close_seconds_max=settings.telegram_close_seconds_max,
            attempts_max=settings.retry_attempts_max,
            delay_seconds_max=settings.retry_delay_max,
            breaker_threshold=settings.circuit_breaker_threshold,
            breaker_seconds=settings.circuit_breaker_timeout,
        ),
        on_outcome=metrics.notification if metrics is not None else None,
    )
    if metrics is not None:  # an alarm about the first failure needs the 0 before it
        for outcome in OUTCOMES:
            metrics.notification(outcome, 0)
        metrics.queue_dropped("telegram", 0)
    if not notifier.enabled:
        yield notifier
        return
    remove_sink = add_error_sink(notifier.post_error, service, options=LogOptions(secrets=settings.secret_values()))
    notifier.start()
    try:
        yield notifier
    finally:
        remove_sink()
        await notifier.close()


class _Signals:
    """Turns the first signal into `stop`; the second, or a stop that hangs the loop, ends the process.

    Handlers of the interpreter, not of the loop: they run even when the loop is held up by a call.
    """

    def __init__(self, stop_seconds_max: float) -> None:
        self.received = ""
        self._stop_seconds_max = stop_seconds_max
        self._before: dict[signal.Signals, object] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._watchdog: threading.Timer | None = None

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def attach(self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
        """Say what to stop; a signal that came before counts."""
        self._loop, self._stop = loop, stop
        if self.received:
            stop.set()

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.received:
            self._force(128 + number)
        self.received = signal.Signals(number).name
        if self._loop is None or self._stop is None:
            return
        # Later than the orderly way, which cancels and reports; this one is for a loop that no longer turns.
        self._watchdog = threading.Timer(self._stop_seconds_max + 2.0, self._force, [EXIT_FAILED])
        self._watchdog.daemon = True
        self._watchdog.start()
        self._loop.call_soon_threadsafe(self._stop.set)

    def _force(self, code: int) -> None:
        os.write(2, b"forced to end\n")
        os._exit(code)


def _set_up_log(name: str, settings: Settings, policy: ServicePolicy) -> BoundLogger:
    chosen = "log_format" in settings.model_fields_set
    log_format = "console" if not chosen and sys.stderr.isatty() else settings.log_format
    options = LogOptions(
        secrets=settings.secret_values(),
        directory=settings.state / "log" if policy.log_to_state else None,
        terminal_level="WARNING" if policy.quiet else None,
    )
    return setup_logging(name, settings.log_level, log_format, options=options)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def running_metrics(metrics: ServiceMetrics) -> Iterator[ServiceMetrics]:
    """Say `service_up` 1 inside and 0 after."""
    metrics.up(True)
    try:
        yield metrics
    finally:
        metrics.up(False)
