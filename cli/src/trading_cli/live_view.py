"""The live table of `trading up`: where the money is, who did what, and what was refused."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from portfolio_manager.verification import Verification, verify_database
from shared.config import Settings
from shared.domain.rounding import ZERO, minus, times
from trading_cli.overview import AccountOverview, InstanceOverview, Overview, OverviewMemory, read_overview

if TYPE_CHECKING:
    from trading_cli.composition import Platform

LEDGER_CHECK_SECONDS = 30.0
HINTS = (
    "trading status",
    "trading trades --csv",
    "trading verify",
    "trading positions",
    "trading new-strategy my_idea",
)
NOTICES_MAX = 3


async def show_live(platform: Platform, stop: asyncio.Event, every_seconds: float) -> None:
    """Draw the table again and again until `stop`."""
    memory = OverviewMemory()
    checked_at, verification = platform.clock.monotonic(), platform.portfolio.verification
    with Live(console=Console(), auto_refresh=False, transient=True) as live:
        while not stop.is_set():
            overview = await read_overview(platform.database, memory)
            if platform.clock.monotonic() - checked_at > LEDGER_CHECK_SECONDS:
                checked_at, verification = platform.clock.monotonic(), await verify_database(platform.database)
            latency = platform.latency.percentiles_ms()
            moment = render(overview, platform.settings, verification, latency, platform.engine.notices())
            live.update(moment, refresh=True)
            await platform.clock.sleep(every_seconds)


def render(
    overview: Overview,
    settings: Settings,
    verification: Verification | None,
    latency_ms: dict[str, float | None],
    notices: Sequence[str] = (),
) -> Group:
    """Return one moment as something a terminal can show."""
    state = str(settings.state)
    parts: list[Table | Text] = [_headline(overview, settings), _instances(overview)]
    parts.append(Text.from_markup(_counts("refused", overview.refused) + "   " + _counts("ignored", overview.ignored)))
    parts.append(Text.from_markup(_machine(overview, verification, latency_ms)))
    orphans = ", ".join(str(each.key) for each in overview.orphans)
    if orphans:
        parts.append(Text.from_markup(f"[yellow]orphans (no strategy, stops armed): {escape(orphans)}[/]"))
    hint = HINTS[overview.fills // 25 % len(HINTS)]
    suffix = "" if state == "var" or hint.startswith("trading new") else f" --state {state}"
    parts.extend(Text.from_markup(f"[yellow]{escape(notice)}[/]") for notice in notices[:NOTICES_MAX])
    parts.append(
        Text.from_markup(f"[dim]try next, in another terminal: {escape(hint + suffix)}; Ctrl-C ends with a summary[/]")
    )
    return Group(*parts)


def loss_left_today(account: AccountOverview, settings: Settings) -> Decimal | None:
    """Return how much more may be lost today before only reducing orders pass; None when the limit is off."""
    if settings.risk == "off" or settings.risk_daily_loss_limit_pct <= 0:
        return None
    allowed = times(account.day_base, settings.risk_daily_loss_limit_pct / 100)
    return max(ZERO, allowed + account.day_pnl)


def _headline(overview: Overview, settings: Settings) -> Text:
    account = overview.account
    if account is None or account.as_of is None:
        return Text("waiting for the first candle")
    pace = "max" if settings.speed == float("inf") else f"{settings.speed:g}x"
    left = loss_left_today(account, settings)
    worst = "no daily limit" if left is None else f"{left:.2f} more"
    peak = account.equity_peak
    exposure = float(account.exposure / account.equity * 100) if account.equity > 0 else 0.0
    control = account.state if overview.control_state == "ACTIVE" else overview.control_state
    why = account.state_reason or overview.control_reason
    colour = "green" if control == "ACTIVE" else "red"
    return Text.from_markup(
        f"[bold]{account.as_of:%Y-%m-%d %H:%M} UTC[/] {settings.feed} {pace}  "
        f"[bold]equity {account.equity:.2f} {account.quote_asset}[/] ({_signed(account.change)})  "
        f"today {_signed(account.day_pnl)}  drawdown {account.drawdown_pct:.2f} % of {peak:.2f}  "
        f"exposure {exposure:.1f} %  you can lose today: {worst}  "
        f"[{colour}]{control}[/]{' ' + escape(why) if why else ''}"
    )


def _instances(overview: Overview) -> Table:
    table = Table(expand=True, pad_edge=False, header_style="bold", row_styles=["", "dim"])
    table.add_column("strategy", no_wrap=True)
    table.add_column("symbol", no_wrap=True)
    for name in ("signals", "fills", "position", "average", "PnL", "fees", "b/e bps"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("last reason", ratio=1, no_wrap=True, overflow="ellipsis")
    for each in overview.instances:
        table.add_row(*_cells(each))
    return table


def _cells(each: InstanceOverview) -> list[str]:
    name = each.key.strategy if each.active else f"{each.key.strategy} (off)"
    breakeven = "" if each.breakeven_bps is None else f"{each.breakeven_bps:.1f}"
    return [
        escape(name),
        f"{each.key.symbol} {each.key.timeframe}",
        str(each.signals),
        str(each.fills),
        f"{each.quantity.normalize():f}" if each.quantity else "-",
        f"{each.avg_entry_price:.2f}" if each.quantity else "-",
        _signed(each.pnl),
        f"{each.fees:.2f}",
        breakeven,
        escape(str(each.last_signal or "")),
    ]


def _machine(overview: Overview, verification: Verification | None, latency_ms: dict[str, float | None]) -> str:
    lag = max(overview.lags.values(), default=0.0)
    p50, p99 = latency_ms.get("p50"), latency_ms.get("p99")
    speed = "no orders yet" if p50 is None else f"order after candle p50 {p50:.1f} ms, p99 {p99:.1f} ms"
    if verification is None:
        ledger = "not checked yet"
    elif verification.is_clean:
        ledger = f"[green]clean[/] ({verification.fills} fills)"
    else:
        ledger = f"[red]{len(verification.differences)} differences[/]"
    return (
        f"gaps {overview.gap_count}  quarantined {overview.quarantined}  dead letters {overview.dead_letters}  "
        f"market lag {timedelta(seconds=lag)}  {speed}  ledger check: {ledger}"
    )


def _counts(title: str, counts: Mapping[str, int]) -> str:
    words = "  ".join(f"{escape(reason)} {count}" for reason, count in counts.items())
    return f"[bold]{title}:[/] {words or 'none'}"


def _signed(amount: Decimal) -> str:
    colour = "green" if amount > 0 else "red" if amount < 0 else "default"
    return f"[{colour}]{minus(amount, ZERO):+.2f}[/]"
