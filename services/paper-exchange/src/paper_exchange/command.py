"""`trading paper-exchange`: a Binance-compatible exchange on this machine."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from paper_exchange.faults.plan import FaultPlan, read_fault_plan
from paper_exchange.market.run_plan import ALIGNMENTS
from paper_exchange.market.sources import (
    HISTORY_CANDLES,
    Recording,
    SimulatedOptions,
    file_recording,
    read_files,
    simulated_recording,
)
from paper_exchange.server import ExchangeOptions, PaperExchange
from shared.clock import SystemClock
from shared.config_values import parse_data_files, parse_symbols, parse_timeframes
from shared.errors import ConfigError
from shared.instruments import KNOWN, load_instruments

_SPEED = click.FloatRange(min=0, min_open=True, max=100_000)
_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--port", default=9443, show_default=True, type=click.IntRange(0, 65535), help="0 picks a free one"),
    click.option(
        "--data",
        multiple=True,
        metavar="SYMBOL:TF=FILE",
        help="candles to play; may be repeated, or several with commas",
    ),
    click.option("--feed", type=click.Choice(["replay", "simulated"]), help="[default: replay with --data]"),
    click.option("--symbols", default="BTC/USDT,ETH/USDT", show_default=True, help="of the simulated market"),
    click.option("--timeframes", default="1m", show_default=True, help="its shortest is what the others are made of"),
    click.option("--seed", default=1, show_default=True, type=click.IntRange(min=0), help="of the simulated market"),
    click.option("--speed", default=1.0, show_default=True, type=_SPEED, help="of candles; server time is the clock"),
    click.option(
        "--align",
        "alignment",
        default="end",
        show_default=True,
        type=click.Choice(ALIGNMENTS),
        help="the candle that meets the clock: the run's last, or its first",
    ),
    click.option(
        "--history",
        type=click.IntRange(0, 1_000_000),
        help=f"candles already over at the beginning  [default: at most half, at most {HISTORY_CANDLES}]",
    ),
    click.option(
        "--behind",
        "behind_hours",
        default=24.0,
        show_default=True,
        type=click.FloatRange(min=0, max=24 * 366),
        help="hours that a simulated market lies behind the clock at first, at a speed above one",
    ),
    click.option("--faults", type=click.Path(path_type=Path), help="a YAML or JSON file of what goes wrong, and when"),
    click.option("--wait", is_flag=True, help="the market stands still until somebody asks for it"),
)


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command("paper-exchange")
@_with_options
def paper_exchange(**options: Any) -> None:
    """Serve Binance Spot's protocol on 127.0.0.1, from candle files or a simulated market.

    Server time is the wall clock. At a speed above one candles lie behind it and the run's last one meets it;
    --align start lets the first one meet it instead.
    """
    recording = _recording(options)
    instruments = load_instruments(KNOWN, sorted({symbol for symbol, _ in recording.tapes}))
    chosen = ExchangeOptions(
        port=options["port"],
        speed=options["speed"],
        alignment=options["alignment"],
        wait=options["wait"],
        faults=read_fault_plan(options["faults"]) if options["faults"] else FaultPlan(),
        instruments=instruments.rules,
    )
    asyncio.run(_serve(PaperExchange(recording, chosen, SystemClock())))


def _recording(options: dict[str, Any]) -> Recording:
    data = [item for text in options["data"] for item in _parsed("data", parse_data_files, text)]
    feed = options["feed"] or ("replay" if data else "simulated")
    if feed == "replay":
        return file_recording(read_files(data), options["history"])
    if data:
        raise ConfigError("feed: simulated takes no --data; leave one of them away")
    return simulated_recording(
        SimulatedOptions(
            symbols=_parsed("symbols", parse_symbols, options["symbols"]),
            timeframes=_parsed("timeframes", parse_timeframes, options["timeframes"]),
            seed=options["seed"],
            history_candles=HISTORY_CANDLES if options["history"] is None else options["history"],
            run_hours=options["behind_hours"],
        )
    )


def _parsed[T](name: str, parse: Callable[[Any], T], value: Any) -> T:
    try:
        return parse(value)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


async def _serve(exchange: PaperExchange) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with exchange.running() as urls:
        click.echo(f"paper-exchange: {urls.rest} and {urls.stream}")
        parts = [asyncio.create_task(part) for part in (stop.wait(), _tell_end(exchange), exchange.broken())]
        try:
            while not stop.is_set():
                done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
                for part in done:
                    part.result()
                    parts.remove(part)
        finally:
            for part in parts:
                part.cancel()


async def _tell_end(exchange: PaperExchange) -> None:
    await exchange.over()
    click.echo("paper-exchange: the recording is over; what it told can still be asked for")
