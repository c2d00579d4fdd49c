"""`trading paper-exchange`: a Binance-compatible exchange on this machine."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import click

from paper_exchange.market.run_plan import ALIGNMENTS
from paper_exchange.market.sources import Recording, file_recording, read_files
from paper_exchange.server import ExchangeOptions, PaperExchange
from shared.clock import SystemClock
from shared.config_values import parse_data_files
from shared.errors import ConfigError
from shared.instruments import KNOWN, load_instruments


@click.command("paper-exchange")
@click.option("--port", default=9443, show_default=True, type=click.IntRange(0, 65535), help="0 picks a free one")
@click.option("--data", multiple=True, metavar="SYMBOL:TF=FILE", help="candles to play; may be repeated")
@click.option("--feed", type=click.Choice(["replay", "simulated"]), help="[default: replay with --data]")
@click.option(
    "--speed",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="of candles; server time is the clock's",
)
@click.option(
    "--align",
    "alignment",
    default="end",
    show_default=True,
    type=click.Choice(ALIGNMENTS),
    help="the candle that meets the clock: the run's last, or its first",
)
@click.option(
    "--history",
    type=click.IntRange(min=0),
    help="candles already over at the beginning  [default: half of them, at most 400]",
)
@click.option("--wait", is_flag=True, help="the market stands still until somebody asks for it")
def paper_exchange(**options: Any) -> None:
    """Serve Binance Spot's protocol on 127.0.0.1 from candle files."""
    recording = _recording(options)
    instruments = load_instruments(KNOWN, sorted({symbol for symbol, _ in recording.tapes}))
    chosen = ExchangeOptions(
        port=options["port"],
        speed=options["speed"],
        alignment=options["alignment"],
        wait=options["wait"],
        instruments=instruments.rules,
    )
    asyncio.run(_serve(PaperExchange(recording, chosen, SystemClock())))


def _recording(options: dict[str, Any]) -> Recording:
    try:
        data = parse_data_files(list(options["data"]))
    except ValueError as error:
        raise ConfigError(f"data: {error}") from None
    return file_recording(read_files(data), options["history"])


async def _serve(exchange: PaperExchange) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with exchange.running() as urls:
        click.echo(f"paper-exchange: {urls.rest} and {urls.stream}")
        await stop.wait()
