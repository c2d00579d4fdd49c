"""A wide run of `trading up`, watched from outside: memory, everything that is bounded, and how far behind it falls."""

from __future__ import annotations

import sqlite3
import subprocess
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import psutil
import redis

from shared.bus_leftover import PID_FILE, BusProcess
from shared.clock import Clock, SystemClock
from shared.testing.platform_runs import PlatformRun, read_cursor
from shared.testing.state_tables import connect_readonly

CONSUMERS: Final = ("engine", "executor", "portfolio")
LOOK_SECONDS: Final = 0.05
SAMPLE_SECONDS: Final = 1.0
START_SECONDS_MAX: Final = 240.0
CATCH_UP_MS: Final = 120_000
BOUNDED_TABLES: Final = ("outbox", "inbox", "dead_letters", "quarantine")


@dataclass(frozen=True, kw_only=True)
class ScaleOptions:
    """How wide and how long; the bounds are small enough to be reached within the run."""

    symbols: int = 50
    speed: float = 60.0
    seconds: float = 300.0
    history_candles: int = 120
    stream_length_max: int = 100
    outbox_rows_max: int = 2_000
    dead_letters_max: int = 1_000
    feed_ahead_max: int = 2_000

    @property
    def bounds(self) -> dict[str, int]:
        """Return what each bounded thing may hold."""
        return {
            "streams": self.stream_length_max,
            "outbox": self.outbox_rows_max,
            "inbox": self.outbox_rows_max,
            "dead_letters": self.dead_letters_max,
            "quarantine": self.dead_letters_max,
            "feed_ahead": self.feed_ahead_max,
        }

    def arguments(self) -> list[str]:
        """Return the options of `trading up`."""
        names = ",".join(f"SYM{number:02d}/USDT" for number in range(1, self.symbols + 1))
        chosen = {
            "symbols": names,
            "speed": self.speed,
            "history-candles": self.history_candles,
            "balance": 1_000_000,
            "risk-order-rate-max": 0,
            "stream-length-max": self.stream_length_max,
            "outbox-rows-max": self.outbox_rows_max,
            "inbox-rows-max": self.outbox_rows_max,
            "dead-letters-max": self.dead_letters_max,
            "feed-ahead-max": self.feed_ahead_max,
        }
        return [text for name, value in chosen.items() for text in (f"--{name}", str(value))]


class ScaleReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to; `largest` against `bounds`, memory in MiB, lag in seconds of the wall clock."""

    symbols: int
    seconds: float
    start_seconds: float
    candles: int
    candles_per_second: float
    signals: int
    fills: int
    rss_mib_early: float
    rss_mib_late: float
    rss_growth: float
    lag_seconds: dict[str, dict[str, float]]
    largest: dict[str, int]
    bounds: dict[str, int]

    @property
    def over_bounds(self) -> dict[str, int]:
        """Return what held more than it may."""
        return {name: held for name, held in self.largest.items() if held > self.bounds[name]}


@dataclass
class _Lag:
    """When each close time was first seen stored, and how much later a consumer had handled it."""

    announced: deque[tuple[int, float]] = field(default_factory=deque)
    seconds: list[float] = field(default_factory=list)

    def handled(self, watermark: int, now: float) -> None:
        while self.announced and self.announced[0][0] <= watermark:
            self.seconds.append(now - self.announced.popleft()[1])


class ScaleWatch:
    """Looks at a running platform twenty times a second for lag, once a second for everything else."""

    def __init__(self, run: PlatformRun, process: subprocess.Popen[bytes], options: ScaleOptions) -> None:
        self._clock = run.clock
        self._options = options
        self._process = psutil.Process(process.pid)
        self._connection = connect_readonly(run.database)
        bus = msgspec.json.decode((run.state / PID_FILE).read_bytes(), type=BusProcess)
        self._bus = redis.Redis(unix_socket_path=bus.socket, socket_timeout=10.0)
        self._newest: int | None = None
        self.lags = {name: _Lag() for name in CONSUMERS}
        self.memory: list[tuple[float, float]] = []
        self.largest: dict[str, int] = dict.fromkeys(options.bounds, 0)

    def close(self) -> None:
        """Let go of what was opened."""
        self._connection.close()
        self._bus.close()

    def look(self) -> None:
        """Note which close times are stored and which are handled."""
        now = self._clock.monotonic()
        stored = read_cursor(self._connection, "collector/watermark")
        if stored is not None and stored != self._newest:
            self._newest = stored
            for lag in self.lags.values():
                lag.announced.append((stored, now))
        for name, lag in self.lags.items():
            lag.handled(read_cursor(self._connection, f"{name}/watermark") or 0, now)

    def sample(self, elapsed: float) -> None:
        """Note memory, the length of every stream and of every bounded table, and the candles ahead."""
        memory = self._process.memory_info().rss
        for child in self._process.children():
            memory += child.memory_info().rss
        self.memory.append((elapsed, memory / 2**20))
        for name in self._bus.scan_iter(_type="stream"):
            what = "dead_letters" if name == b"dead_letters" else "streams"
            self._note(what, int(self._bus.xlen(name)))
        for table in BOUNDED_TABLES:
            self._note(table, self._count(f"SELECT count(*) FROM {table}"))
        behind = max((len(lag.announced) for lag in self.lags.values()), default=0)
        self._note("feed_ahead", behind * self._options.symbols)

    def total(self, table: str) -> int:
        """Return how many rows a table has."""
        return self._count(f"SELECT count(*) FROM {table}")

    def _count(self, statement: str) -> int:
        return int(self._connection.execute(statement).fetchone()[0])

    def _note(self, name: str, held: int) -> None:
        self.largest[name] = max(self.largest[name], held)


def run_scale(folder: Path, options: ScaleOptions, clock: Clock | None = None) -> ScaleReport:
    """Run the platform as wide as `options` say and return what was seen once it had caught up with its history."""
    chosen = clock or SystemClock()
    run = PlatformRun(folder / "state", options.arguments(), chosen)
    began = chosen.monotonic()
    process = run.start()
    try:
        _await_pace(run, process, options)
        started = chosen.monotonic()
        with closing(ScaleWatch(run, process, options)) as watch:
            before = watch.total("candles")
            _watch(watch, options.seconds, process, run)
            seconds = chosen.monotonic() - started
            return _report(watch, options, seconds, started - began, watch.total("candles") - before)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            run.kill(process)


def _await_pace(run: PlatformRun, process: subprocess.Popen[bytes], options: ScaleOptions) -> None:
    """Wait until the history is handled: from there on the feed keeps to its speed."""
    end = run.clock.monotonic() + START_SECONDS_MAX
    wanted = options.symbols * options.history_candles * 9 // 10
    while run.clock.monotonic() < end:
        if process.poll() is not None:
            raise AssertionError(f"the platform ended with {process.returncode}:\n{run.said()[-4000:]}")
        if _has_caught_up(run.database, wanted):
            return
        _pause(process)
    raise AssertionError(f"history not handled within {START_SECONDS_MAX} s:\n{run.said()[-4000:]}")


def _has_caught_up(path: Path, candles_wanted: int) -> bool:
    if not path.exists():
        return False
    try:
        with closing(connect_readonly(path)) as connection:
            stored = read_cursor(connection, "collector/watermark")
            handled = read_cursor(connection, "portfolio/watermark")
            candles = connection.execute("SELECT count(*) FROM candles").fetchone()[0]
    except sqlite3.OperationalError:  # the tables are not there yet
        return False
    return candles >= candles_wanted and None not in (stored, handled) and stored == handled


def _pause(process: subprocess.Popen[bytes], seconds: float = LOOK_SECONDS) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def _watch(watch: ScaleWatch, seconds: float, process: subprocess.Popen[bytes], run: PlatformRun) -> None:
    start = run.clock.monotonic()
    next_sample = start
    while (now := run.clock.monotonic()) - start < seconds:
        watch.look()
        if now >= next_sample:
            watch.sample(now - start)
            next_sample += SAMPLE_SECONDS
        _pause(process)
        if process.poll() is not None:
            raise AssertionError(f"the platform ended with {process.returncode}:\n{run.said()[-4000:]}")


def _report(
    watch: ScaleWatch, options: ScaleOptions, seconds: float, start_seconds: float, candles: int
) -> ScaleReport:
    early, late = _memory(watch.memory, seconds)
    return ScaleReport(
        symbols=options.symbols,
        seconds=round(seconds, 1),
        start_seconds=round(start_seconds, 1),
        candles=candles,
        candles_per_second=round(candles / seconds, 1),
        signals=watch.total("signals"),
        fills=watch.total("trades"),
        rss_mib_early=round(early, 1),
        rss_mib_late=round(late, 1),
        rss_growth=round(late / early - 1, 4),
        lag_seconds={name: percentiles(lag.seconds) for name, lag in watch.lags.items()},
        largest=watch.largest,
        bounds=options.bounds,
    )


def _memory(samples: Sequence[tuple[float, float]], seconds: float) -> tuple[float, float]:
    """Return the memory after the first two fifths, and the largest of the last two fifths."""
    boundary = seconds * 0.4
    early = [value for at, value in samples if at <= boundary][-10:]
    late = [value for at, value in samples if at >= seconds - boundary]
    return sum(early) / len(early), max(late)


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """Return median, 99th percentile and largest (nearest rank); zeros for nothing."""
    ordered = sorted(values)
    if not ordered:
        return {"p50": 0.0, "p99": 0.0, "max": 0.0, "count": 0}

    def rank(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)

    return {"p50": rank(0.5), "p99": rank(0.99), "max": round(ordered[-1], 3), "count": len(ordered)}


def as_lines(report: ScaleReport, required: Mapping[str, str] | None = None) -> list[str]:
    """Return the figures for a person."""
    lag = {name: f"p50 {each['p50']:.2f} p99 {each['p99']:.2f} s" for name, each in report.lag_seconds.items()}
    lines = [
        f"{report.symbols} symbols, {report.candles_per_second:.1f} candles/s for {report.seconds:.0f} s "
        f"(start and history {report.start_seconds:.1f} s), {report.signals} signals, {report.fills} fills",
        f"memory {report.rss_mib_early:.0f} -> {report.rss_mib_late:.0f} MiB ({report.rss_growth:+.1%})",
        "lag " + "; ".join(f"{name} {text}" for name, text in lag.items()),
        "held at most " + ", ".join(f"{name} {held}/{report.bounds[name]}" for name, held in report.largest.items()),
    ]
    return lines + [f"{name}: {text}" for name, text in (required or {}).items()]
