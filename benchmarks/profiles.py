"""What bounds a rate: the platform's own functions by the time they take themselves, under cProfile."""

from __future__ import annotations

import asyncio
import cProfile
import pstats
from pathlib import Path

from benchmarks.market import Market
from shared.config import load_settings
from trading_cli.composition import open_platform

TOP = 18


def profile_replay(folder: Path, market: Market, name: str, strategies_dir: str = "") -> str:
    """Return the heaviest functions of a replay at max speed in this process."""
    state = folder / f"profile-{name}"
    state.mkdir()
    options = {
        "state": state,
        "feed": "replay",
        "data": f"BTC/USDT:1m={market.path}",
        "speed": "max",
        "paper_balance": 100_000,
        "health_port": 0,
        "strategies_dir": strategies_dir,
    }
    settings = load_settings(options, env={})
    profiler = cProfile.Profile()

    async def run() -> None:
        async with open_platform(settings) as platform:
            profiler.enable()
            await platform.run(asyncio.Event())
            profiler.disable()

    asyncio.run(run())
    stats = pstats.Stats(profiler)
    total = stats.total_tt  # type: ignore[attr-defined]
    rows = sorted(stats.stats.items(), key=lambda item: -item[1][2])[:TOP]  # type: ignore[attr-defined]
    lines = [f"{name}: {market.rows} candles, {total:.1f} s on the loop's thread under the profiler"]
    for (file, line, function), (_, calls, own, _, _) in rows:
        lines.append(f"  {100 * own / total:5.1f} %  {calls:>9} x  {Path(file).name}:{line} {function}")
    return "\n".join(lines)
