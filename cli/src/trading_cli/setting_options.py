"""Command-line options made from the settings' schema: every option is the setting of the same name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import click

from shared.config import Settings, option_of

SECRETS = frozenset(
    {"telegram_bot_token", "binance_api_key", "binance_api_secret", "postgres_password", "grafana_password"}
)


def setting_options(leave_out: Collection[str] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds an option for every setting but secrets, which a process list would show."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for key, field in reversed(Settings.model_fields.items()):
            if key in SECRETS or key in leave_out:
                continue
            names = dict.fromkeys(
                (option_of(key), f"--{key.replace('_', '-')}")
            )  # the short one, and the setting's own
            option = click.option(
                *names,
                key,
                multiple=key in ("data", "allocation"),
                default=None,
                metavar=option_of(key).removeprefix("--").replace("-", "_").upper(),
                help=field.description,
            )
            function = option(function)
        return function

    return decorate


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given, lists joined as the settings read them."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if value is None or value == ():
            continue
        found[key] = ",".join(value) if isinstance(value, tuple) else value
    return found
