"""Ready strategies from a folder of strategy files."""

from __future__ import annotations

import logging
from pathlib import Path

from shared.plugins import discover
from shared.strategy import BaseStrategy


def load_strategies(strategies_dir: Path | str | None = None) -> list[BaseStrategy]:
    """Return an instance of every enabled strategy of a folder, YAML applied, sorted by file.

    A file that cannot be used is left out and logged with its mistake and the way out.
    """
    found = discover(strategies_dir)
    for problem in found.problems:
        logging.getLogger("strategy_engine.plugin_loader").error("strategy left out: %s", problem)
    return [plugin.create() for plugin in found.plugins if plugin.enabled]
