"""`trading up`: the whole platform in one process, with a live table."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import click

from portfolio_manager.verification import verify_database
from shared.clock import Clock, SystemClock
from shared.config import Settings, load_settings
from shared.errors import ConfigError
from shared.service import ServicePolicy, run_service
from trading_cli.composition import Platform, open_platform
from trading_cli.setting_options import given, setting_options
from trading_cli.state_dir import hold_state
from trading_cli.up_report import make_report, read_totals, summary_lines, to_json

PLAIN_LINE_SECONDS = 10.0
TABLE_SECONDS = 1.0


@click.command("up")
@setting_options()
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="write the run's figures")
@click.pass_context
def up(context: click.Context, /, json_path: Path | None, **options: Any) -> None:
    """Start every service in one process, on paper money, from the state directory."""
    env_file = Path(".env")
    settings = load_settings(given(options), env_file=env_file if env_file.is_file() else None)
    if settings.feed == "replay":
        settings.require("data")
    if json_path is not None:
        refuse_unwritable(json_path)
    is_terminal = sys.stdout.isatty()
    policy = ServicePolicy(log_to_state=True, quiet=is_terminal or "log_level" not in settings.model_fields_set)
    # The environment may name the production servers for `trading run`; `up` takes others than its own by option only.
    run = UpRun(settings, json_path, redis_url=options["redis_url"] or "", db_url=options["database_url"] or "")
    with hold_state(settings.state):
        context.exit(run_service("trading up", run.serve, lambda: settings, policy=policy))


def refuse_unwritable(path: Path) -> None:
    """Refuse a file that cannot be written now, rather than after an hour of trading."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"option --json: {folder} is no folder; make it, or name a file elsewhere")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ConfigError(f"option --json: {path} cannot be written; give another file")


class UpRun:
    """One run of `up`: platform, view, clock for `--duration`, last words."""

    def __init__(self, settings: Settings, json_path: Path | None, *, redis_url: str, db_url: str) -> None:
        self._settings = settings
        self._json_path = json_path
        self._redis_url = redis_url
        self._db_url = db_url
        self._clock: Clock = SystemClock()

    async def serve(self, settings: Settings, stop: asyncio.Event) -> int:
        """Run until the feed ends, the duration is over or a signal comes; return 1 when the ledger check fails."""
        async with open_platform(settings, redis_url=self._redis_url, db_url=self._db_url) as platform:
            for note in platform.plan.notes:
                click.echo(f"note: {note}")
            before = await read_totals(platform.database)
            started = self._clock.monotonic()
            view = asyncio.create_task(self._watch(platform, stop))
            timer = asyncio.create_task(self._end_after(settings.duration, stop)) if settings.duration else None
            try:
                await platform.run(stop)
            finally:
                stop.set()
                for task in (view, timer):
                    if task is not None:
                        task.cancel()
                await asyncio.gather(*(task for task in (view, timer) if task is not None), return_exceptions=True)
            seconds = self._clock.monotonic() - started
            report = await make_report(platform.database, before, seconds, platform.latency.percentiles_ms())
            verification = await verify_database(platform.database)
        if self._json_path is not None:
            self._json_path.write_bytes(to_json(report))
        for line in summary_lines(report, verification, os.fspath(settings.state), platform.engine.notices()):
            click.echo(line)
        return 0 if verification.is_clean else 1

    async def _watch(self, platform: Platform, stop: asyncio.Event) -> None:
        if sys.stdout.isatty():
            from trading_cli.live_view import show_live

            await show_live(platform, stop, TABLE_SECONDS)
            return
        started = self._clock.monotonic()
        while not stop.is_set():
            await self._clock.sleep(PLAIN_LINE_SECONDS)
            totals = await read_totals(platform.database)
            book = platform.executor.executor.book if platform.executor.executor.is_loaded else None
            equity = f"{book.figures.equity:.2f}" if book else "unknown"
            at = platform.collector.watermark
            click.echo(
                f"{self._clock.monotonic() - started:6.0f} s  feed {at:%Y-%m-%d %H:%M}  equity {equity}  "
                f"candles {totals.candles}  signals {totals.signals}  fills {totals.fills}"
                if at
                else f"waiting for the first candle ({(await platform.collector.check())[1]})"
            )

    async def _end_after(self, seconds: float, stop: asyncio.Event) -> None:
        await self._clock.sleep(seconds)
        stop.set()
