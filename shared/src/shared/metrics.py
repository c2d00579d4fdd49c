"""What is measured, under which name: every metric of the platform is declared here, once per registry."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from shared.clock import Clock, SystemClock

_SECONDS_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_FAMILIES_ATTRIBUTE: Final = "trading_metric_families"


class MetricFamilies:
    """The collectors of one registry; services differ by the label `service`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"trading_{name}", text, ("service", *labels), registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"trading_{name}", text, ("service", *labels), registry=registry)

        def seconds(name: str, text: str) -> Histogram:
            return Histogram(f"trading_{name}", text, ("service",), registry=registry, buckets=_SECONDS_BUCKETS)

        self.errors_total = counter("errors", "Errors by class name", "error_type")
        self.events_processed = counter("events_processed", "Events handled and committed", "event_type")
        self.processing_seconds = seconds("processing_seconds", "Time to handle one batch of events")
        self.service_up = gauge(
            "service_up", "1 while the service runs, 0 once it has stopped or its loop stands still"
        )
        self.build_info = gauge("build_info", "Always 1; the labels say what runs", "version", "python")
        # Data
        self.data_age_seconds = gauge(
            "data_age_seconds", "Since a stream's newest candle closed; a replayed one closes when it is sent", "stream"
        )
        self.data_age_seconds_max = gauge("data_age_seconds_max", "Age at which a stream counts as silent", "stream")
        self.gaps_total = counter("gaps", "Holes found in a stream", "stream")
        self.quarantined_total = counter("quarantined", "Malformed candles put aside", "reason")
        self.dead_letters_total = counter("dead_letters", "Messages that could not be read", "stream")
        # Flow
        self.lag_seconds = gauge("lag_seconds", "Business time not yet handled", "stream")
        self.end_to_end_lag_seconds = gauge(
            "end_to_end_lag_seconds", "Business time from the last close handled here to the newest one stored"
        )
        self.queue_depth = gauge("queue_depth", "Entries waiting in a queue", "queue")
        self.queue_depth_max = gauge("queue_depth_max", "Entries a queue may hold", "queue")
        self.queue_dropped_total = counter("queue_dropped", "Entries a full queue let go", "queue")
        self.stream_length = gauge("stream_length", "Entries of a bus stream", "stream")
        self.outbox_rows = gauge("outbox_rows", "Outbox rows not yet acknowledged", "topic")
        self.order_latency_seconds = seconds(
            "order_latency_seconds", "From a candle's close (live) or announcement (replay) to its orders' commit"
        )
        # Trading
        self.signals_total = counter("signals", "Signals stored", "strategy", "side")
        self.orders_total = counter("orders", "Orders by status reached", "status")
        self.fills_total = counter("fills", "Fills booked", "strategy", "side")
        self.refused_total = counter("refused", "Signals refused by our own rules", "reason")
        self.ignored_total = counter("ignored", "Signals with nothing to do", "reason")
        self.equity_quote = gauge("equity_quote", "Cash and positions at last close, in quote")
        self.pnl_quote = gauge("pnl_quote", "Profit and loss in quote: realized, unrealized, day", "kind")
        self.drawdown_ratio = gauge("drawdown_ratio", "Fall from the equity peak, 0 to 1")
        self.exposure_ratio = gauge("exposure_ratio", "Positions divided by equity", "symbol")
        self.control_state = gauge("control_state", "0 active, 1 reduce only, 2 halt, 3 flatten")
        # Outside
        self.breaker_state = gauge("breaker_state", "0 closed, 1 half open, 2 open", "breaker")
        self.retries_total = counter("retries", "Calls made again", "call")
        self.check_ok = gauge("check_ok", "1 while a check of /ready passes", "check")
        self.notifications_total = counter("notifications", "Messages to people: sent, failed, dropped", "outcome")


def families_of(registry: CollectorRegistry) -> MetricFamilies:
    """Return the collectors registered in `registry`, made at the first call; the registry keeps them."""
    kept = vars(registry)
    if _FAMILIES_ATTRIBUTE not in kept:
        kept[_FAMILIES_ATTRIBUTE] = MetricFamilies(registry)
    families = kept[_FAMILIES_ATTRIBUTE]
    assert isinstance(families, MetricFamilies)
    return families


class ServiceMetrics:
    """One service's view of the metrics; a second one of the same name counts on where the first is."""

    def __init__(
        self, service_name: str, registry: CollectorRegistry | None = None, *, clock: Clock | None = None
    ) -> None:
        self.service = service_name
        self.registry = REGISTRY if registry is None else registry
        self.families = families_of(self.registry)
        self._clock = clock or SystemClock()
        self.errors_total = self.families.errors_total
        self.events_processed = self.families.events_processed
        self.processing_seconds = self.families.processing_seconds
        self.service_up = self.families.service_up
        self.families.build_info.labels(service_name, _build_version(), platform.python_version()).set(1)
        self.up(True)

    def up(self, running: bool) -> None:
        """Say whether the service runs."""
        self._is_running = running
        self.service_up.labels(self.service).set(int(running))

    def live(self, turning: bool) -> None:
        """Say whether the loops of a service that runs still turn; one that stands still counts as stopped."""
        self.service_up.labels(self.service).set(int(self._is_running and turning))

    def error(self, error: BaseException | str) -> None:
        """Count an error under its class name."""
        name = error if isinstance(error, str) else type(error).__name__
        self.errors_total.labels(self.service, name).inc()

    def event(self, event_type: str, count: int = 1) -> None:
        """Count events that were handled and committed."""
        self.events_processed.labels(self.service, event_type).inc(count)

    @contextmanager
    def processing(self) -> Iterator[None]:
        """Observe how long the block takes, whether it succeeds or not."""
        start = self._clock.monotonic()
        try:
            yield
        finally:
            self.processing_seconds.labels(self.service).observe(self._clock.monotonic() - start)

    def data_age(self, stream: str, seconds: float, seconds_max: float | None = None) -> None:
        """Set how old a stream's newest candle is, and from which age on the stream counts as silent."""
        self.families.data_age_seconds.labels(self.service, stream).set(seconds)
        if seconds_max is not None:
            self.families.data_age_seconds_max.labels(self.service, stream).set(seconds_max)

    def gap(self, stream: str, count: int = 1) -> None:
        """Count holes in a stream; 0 makes the series known before the first one."""
        self.families.gaps_total.labels(self.service, stream).inc(count)

    def quarantined(self, reason: str, count: int = 1) -> None:
        """Count malformed candles; 0 makes the series known before the first one."""
        self.families.quarantined_total.labels(self.service, reason).inc(count)

    def dead_letter(self, stream: str, count: int = 1) -> None:
        """Count messages that could not be read; 0 makes the series known before the first one."""
        self.families.dead_letters_total.labels(self.service, stream).inc(count)

    def lag(self, stream: str, seconds: float) -> None:
        """Set how much business time of a stream is not yet handled."""
        self.families.lag_seconds.labels(self.service, stream).set(seconds)

    def end_to_end_lag(self, seconds: float) -> None:
        """Set how far behind the newest stored close time this service is, in business time."""
        self.families.end_to_end_lag_seconds.labels(self.service).set(seconds)

    def queue(self, name: str, depth: int, depth_max: int) -> None:
        """Set how full a queue is."""
        self.families.queue_depth.labels(self.service, name).set(depth)
        self.families.queue_depth_max.labels(self.service, name).set(depth_max)

    def queue_dropped(self, name: str, count: int = 1) -> None:
        """Count entries that a full queue let go; 0 makes the series known before the first one."""
        self.families.queue_dropped_total.labels(self.service, name).inc(count)

    def stream_length(self, stream: str, length: int) -> None:
        """Set how long a bus stream is."""
        self.families.stream_length.labels(self.service, stream).set(length)

    def outbox(self, topic: str, rows: int) -> None:
        """Set how many outbox rows wait for their acknowledgement."""
        self.families.outbox_rows.labels(self.service, topic).set(rows)

    def order_latency(self, seconds: float) -> None:
        """Observe the time from a published candle to a committed order."""
        self.families.order_latency_seconds.labels(self.service).observe(seconds)

    def signal(self, strategy: str, side: str) -> None:
        """Count a stored signal."""
        self.families.signals_total.labels(self.service, strategy, side).inc()

    def order(self, status: str) -> None:
        """Count an order that reached `status`."""
        self.families.orders_total.labels(self.service, status).inc()

    def fill(self, strategy: str, side: str) -> None:
        """Count a booked fill."""
        self.families.fills_total.labels(self.service, strategy, side).inc()

    def refused(self, reason: str) -> None:
        """Count a signal refused by our own rules."""
        self.families.refused_total.labels(self.service, reason).inc()

    def ignored(self, reason: str) -> None:
        """Count a signal that had nothing to do."""
        self.families.ignored_total.labels(self.service, reason).inc()

    def equity(self, equity: float, drawdown: float) -> None:
        """Set the account's worth in quote and its fall from the peak (0 to 1)."""
        self.families.equity_quote.labels(self.service).set(equity)
        self.families.drawdown_ratio.labels(self.service).set(drawdown)

    def pnl(self, kind: str, amount: float) -> None:
        """Set a profit or loss in quote; `kind` is realized, unrealized or day."""
        self.families.pnl_quote.labels(self.service, kind).set(amount)

    def exposure(self, symbol: str, ratio: float) -> None:
        """Set a symbol's position as a share of equity."""
        self.families.exposure_ratio.labels(self.service, symbol).set(ratio)

    def control(self, state: str) -> None:
        """Set how much the account may do: ACTIVE, REDUCE_ONLY, HALT or FLATTEN."""
        self.families.control_state.labels(self.service).set(("ACTIVE", "REDUCE_ONLY", "HALT", "FLATTEN").index(state))

    def check(self, name: str, *, ok: bool) -> None:
        """Set whether a check of /ready passes."""
        self.families.check_ok.labels(self.service, name).set(int(ok))

    def breaker(self, name: str, state: str) -> None:
        """Set a breaker's state by its name: closed, half_open or open."""
        self.families.breaker_state.labels(self.service, name).set(("closed", "half_open", "open").index(state))

    def retry(self, call: str, count: int = 1) -> None:
        """Count calls that were made again; 0 makes the series known before the first one."""
        self.families.retries_total.labels(self.service, call).inc(count)

    def notification(self, outcome: str, count: int = 1) -> None:
        """Count messages to people; `outcome` is sent, failed or dropped; 0 makes the series known before the first."""
        self.families.notifications_total.labels(self.service, outcome).inc(count)


def _build_version() -> str:
    try:
        return version("trading-shared")
    except PackageNotFoundError:
        return "unknown"
