"""`trading new-strategy`: a strategy of one's own, small enough to read and ready to run."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

import click

from shared.errors import ConfigError
from shared.plugins import bundled_strategies_dir, discover

NAME_LENGTH_MAX = 60
DIRECTORY_DEFAULT = Path("strategies")
SOURCE = '''"""{title}: buys a fall of so many percent since the last signal, sells a rise."""

from strategies.base import BaseStrategy, StrategyParams


class {cls}Params(StrategyParams):
    move_pct: float = 0.3


class {cls}Strategy(BaseStrategy):
    name = "{name}"
    Params = {cls}Params
    warmup_period = 2  # the first candle whose signal counts

    def reset(self):
        self.anchor = None

    def on_candle(self, candle):
        close = float(candle.close)
        self.anchor = self.anchor or close
        move = 100 * (close / self.anchor - 1)
        if not abs(move) >= self.params.move_pct:
            return None
        self.anchor, reason = close, f"moved {{move:+.2f}} %"
        return self.buy(candle, reason) if move < 0 else self.sell(candle, reason)
'''
YAML = """# parameters of {name}; --param and STRATEGY_PARAMS win over them
enabled: true
move_pct: 0.3
quantity: "0.01"
"""


@click.command("new-strategy")
@click.argument("name")
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=DIRECTORY_DEFAULT,
    show_default=True,
    help="folder of your strategies",
)
def new_strategy(name: str, directory: Path) -> None:
    """Write NAME_strategy.py with its parameters beside it, and say how to run it."""
    check_name(name)
    source, config = directory / f"{name}_strategy.py", directory / "config" / f"{name}_strategy.yaml"
    for path in (source, config):
        if path.exists():
            raise ConfigError(f"{path}: is there already; choose another name, or move it away first")
    title = name.replace("_", " ").capitalize()
    cls = "".join(word.capitalize() for word in name.split("_"))
    write_new(source, SOURCE.format(title=title, cls=cls, name=name))
    write_new(config, YAML.format(name=name))
    click.echo(f"wrote {source}\nwrote {config}\n")
    click.echo("run it over candles of yours:")
    click.echo(
        f"  trading backtest --strategies-dir {directory} --strategy {name} --data candles.parquet "
        "--symbol BTC/USDT --timeframe 1m"
    )
    click.echo(f"trade it on paper:\n  trading up --strategies-dir {directory} --strategies {name}")


def check_name(name: str) -> None:
    """Refuse a name that no strategy can bear: it becomes a file, a class and a word in every table."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name) or name.endswith("_"):
        suggestion = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")
        usable = re.fullmatch(r"[a-z][a-z0-9_]*", suggestion) and not keyword.iskeyword(suggestion)
        hint = f"for example {suggestion}" if usable else "for example my_breakout"
        raise ConfigError(f"name: {name!r} cannot name a strategy; use small letters, digits and underscores, {hint}")
    if len(name) > NAME_LENGTH_MAX:
        raise ConfigError(f"name: {len(name)} letters, at most {NAME_LENGTH_MAX}; choose a shorter one")
    if name.endswith("_strategy"):
        raise ConfigError(f"name: leave out the ending `_strategy` of {name!r}; the file gets it by itself")
    if name in discover(bundled_strategies_dir()).names:
        raise ConfigError(f"name: {name!r} is a strategy that comes with the platform; choose another")


def write_new(path: Path, text: str) -> None:
    """Write a file that must not be there yet."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); give another --dir") from error
