"""`trading status`: the state at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from trading_cli.overview import InstanceOverview, Overview, read_overview
from trading_cli.rows_output import console, short_money, short_number, short_text, to_json
from trading_cli.state_dir import state_holder
from trading_cli.stored_state import StoredState, find_state, read_stored, state_options

SCHEMA = "status/1"
INSTANCE_COLUMNS = (
    *("strategy", "symbol", "signals", "fills", "position", "average", "PnL net", "fees", "break-even"),
    "last signal",
)


@click.command("status")
@state_options
@click.option("--json", "as_json", is_flag=True, help="everything as JSON")
def status(state: Path | None, database_url: str | None, *, as_json: bool) -> None:
    """Show account, strategies, refusals, gaps and lag of a state, running or not."""
    stored = find_state(state, database_url)
    overview = read_stored(stored, read_overview)
    holder = state_holder(stored.directory) if stored.is_own else None
    if as_json:
        click.echo(to_json(_document(stored, overview, holder)))
    else:
        _show(stored, overview, holder)


def _document(stored: StoredState, overview: Overview, holder: int | None) -> dict[str, Any]:
    instances = [
        {**instance.key._asdict(), **{key: value for key, value in asdict(instance).items() if key != "key"}}
        for instance in overview.instances
    ]
    return {
        "schema": SCHEMA,
        "state": stored.name,
        "running": holder is not None,
        "pid": holder,
        **asdict(overview),
        "instances": instances,
        "orphans": [str(instance.key) for instance in overview.orphans],
    }


def _show(stored: StoredState, overview: Overview, holder: int | None) -> None:
    page = console()
    for line in _head_lines(stored, overview, holder):
        page.print(Text(line))
    if overview.instances:
        page.print(_instance_table(overview))
    for line in _tail_lines(overview):
        page.print(Text(line))


def _head_lines(stored: StoredState, overview: Overview, holder: int | None) -> list[str]:
    account = overview.account
    running = f"`trading up` runs (pid {holder})" if holder is not None else "no `trading up` runs on it"
    lines = [f"{stored.name}: {running if stored.is_own else 'a database that services share'}"]
    if account is None:
        return [*lines, "nothing has been traded yet: the account opens when the first candles are handled"]
    change = account.change
    percent = change / account.initial_balance * 100 if account.initial_balance else change
    exposure = account.exposure / account.equity * 100 if account.equity else account.exposure
    lines += [
        f"{account.mode}  up to {short_text(account.as_of)} UTC",
        f"equity {short_money(account.equity)} {account.quote_asset} ({percent:+.2f} %)   "
        f"cash {short_money(account.cash)}   day PnL {short_money(account.day_pnl)}   "
        f"drawdown {account.drawdown_pct:.2f} %   exposure {exposure:.1f} %",
        _state_line(overview),
    ]
    return lines


def _state_line(overview: Overview) -> str:
    account = overview.account
    assert account is not None, "status: a state line needs an account"
    state, reason = account.state, account.state_reason
    if overview.control_state != "ACTIVE":
        state, reason = overview.control_state, overview.control_reason
    return f"state {state}" + (f" ({short_text(reason)})" if reason else "")


def _instance_table(overview: Overview) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for column in INSTANCE_COLUMNS:
        is_last, is_text = column == "last signal", column in ("strategy", "symbol", "last signal")
        table.add_column(  # the last one takes what room is left, and ends in ... where that is too little
            column,
            justify="left" if is_text else "right",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if is_last else None,
        )
    for instance in overview.instances:
        table.add_row(*(Text(short_text(cell)) for cell in _cells(instance)))
    return table


def _cells(instance: InstanceOverview) -> list[str]:
    key, last = instance.key, instance.last_signal
    bps = "-" if instance.breakeven_bps is None else f"{instance.breakeven_bps:+.1f} bps"
    return [
        key.strategy + (" (orphan)" if instance.is_orphan else "" if instance.active else " (off)"),
        f"{key.symbol} {key.timeframe}",
        str(instance.signals),
        str(instance.fills),
        short_number(instance.quantity) if instance.quantity else "-",
        short_number(instance.avg_entry_price) if instance.quantity else "-",
        short_money(instance.pnl),
        short_money(instance.fees),
        bps,
        "-" if last is None else str(last),
    ]


def _tail_lines(overview: Overview) -> list[str]:
    lines = [
        f"signals {overview.signals}   fills {overview.fills}   orders {_counts(overview.orders)}",
        f"refused  {_counts(overview.refused)}",
        f"ignored  {_counts(overview.ignored)}",
        f"gaps     {overview.gap_count or 'none'}",
    ]
    lines += [
        f"  {gap.symbol} {gap.timeframe} {short_text(gap.start)} to {short_text(gap.end)}: "
        f"{gap.candles_missing} missing{'' if gap.confirmed else ', not confirmed'}"
        for gap in overview.gaps
    ]
    if overview.quarantined or overview.dead_letters:
        lines.append(f"quarantined candles {overview.quarantined}, dead letters {overview.dead_letters}")
    if overview.orphans:
        lines.append("orphans  " + "; ".join(str(orphan.key) for orphan in overview.orphans))
    lines.append("lag      " + (", ".join(f"{name} {lag:.0f} s" for name, lag in overview.lags.items()) or "unknown"))
    return lines


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name or 'no reason'} {count}" for name, count in counts.items()) or "none"
