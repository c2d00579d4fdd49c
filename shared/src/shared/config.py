"""One schema of settings for every service: options win over the environment, which wins over a `.env` file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from shared import config_rules as rules
from shared import config_values as values_of
from shared.config_keys import present_values, read_env_file, refuse_misspelt_environment, unknown_name_text
from shared.errors import ConfigError

SERVICE_PORTS: Final[Mapping[str, int]] = {
    "data-collector": 8080,
    "strategy-engine": 8081,
    "order-executor": 8082,
    "portfolio-manager": 8083,
}
# Names that options and the environment may use for a key.
OPTION_ALIASES: Final[Mapping[str, str]] = {"mode": "trading_mode", "balance": "paper_balance"}
ENVIRONMENT_ALIASES: Final[Mapping[str, str]] = {"TRADING_STATE": "state"}
_OPTION_NAMES: Final[Mapping[str, str]] = {key: name for name, key in OPTION_ALIASES.items()}
# An address may hold a password.
_CREDENTIAL_URLS: Final = (
    "redis_url",
    "database_url",
    "exchange_url",
    "binance_rest_url",
    "binance_stream_url",
    "telegram_api_url",
)


class Settings(BaseSettings):
    """How a process runs; built once, at the door. `Settings()` reads the process environment."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    # Connections
    redis_url: values_of.RedisUrl = Field("", repr=False, description="message bus; `up` uses a private server instead")
    database_url: values_of.DatabaseUrl = Field(
        "", repr=False, description="database; `up` uses a file in the state directory"
    )
    database_connections_max: values_of.Count = Field(10, description="connections of one process to PostgreSQL")
    statement_seconds_max: values_of.PositiveSeconds = Field(60.0, description="time-out of one statement (PostgreSQL)")
    lock_seconds_max: values_of.PositiveSeconds = Field(30.0, description="longest wait for a lock (PostgreSQL)")
    start_seconds_max: values_of.PositiveSeconds = Field(20.0, description="`run`: longest wait for a server at start")
    lease_seconds: values_of.PositiveSeconds = Field(
        15.0, description="`run`: a second copy takes over when the first has been silent so long"
    )
    postgres_password: SecretStr = Field(SecretStr(""), description="read by docker-compose.yml only")
    grafana_password: SecretStr = Field(SecretStr(""), description="read by docker-compose.yml only")
    # What is traded
    trading_mode: Literal["paper", "testnet", "live"] = Field("paper", description="paper, testnet or live")
    i_understand_live: values_of.Text = Field(
        "", description="the account id; given as an option, never by the environment"
    )
    symbols: values_of.Symbols = Field(("BTC/USDT", "ETH/USDT"), description="BASE/QUOTE, all of one quote currency")
    timeframes: values_of.Timeframes = Field(("1m",), description="1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d")
    strategies: values_of.Strategies = Field((), description="names; empty: all enabled ones (live must name each)")
    strategy_params: values_of.StrategyParams = Field({}, description='JSON by strategy, e.g. {"rsi": {"period": 21}}')
    strategies_dir: values_of.Text = Field("", description="folder of strategy files; empty: those that ship")
    # Feed
    feed: values_of.FeedName = Field("simulated", description="simulated, replay, binance, ccxt or ccxt:EXCHANGE")
    exchange: values_of.Text = Field("", description="feed ccxt: the exchange by ccxt's name, for example kraken")
    exchange_url: values_of.HttpUrl = Field(
        "", repr=False, description="feed ccxt: another server of the exchange's protocol"
    )
    binance_rest_url: values_of.HttpUrl = Field(
        "https://data-api.binance.vision", repr=False, description="feed binance: public market data, no key"
    )
    binance_stream_url: values_of.StreamUrl = Field(
        "wss://data-stream.binance.vision", repr=False, description="feed binance: streams of the same server"
    )
    feed_silence_seconds_max: values_of.PositiveSeconds = Field(
        60.0, description="feed binance: a busy stream silent for so long is connected anew"
    )
    data: values_of.DataFiles = Field(
        (), description="replay: SYMBOL:TIMEFRAME=FILE (.parquet or .csv), comma-separated"
    )
    speed: values_of.Speed = Field(1.0, description="factor of real time, or max")
    duration: values_of.Seconds = Field(0.0, description="wall seconds to run; 0: until stopped or the data ends")
    seed: values_of.CountOrNone = Field(1, description="of the simulated feed")
    history_candles: values_of.CountOrNone = Field(500, description="candles of the past a stream starts with")
    # State
    state: Path = Field(Path("var"), description="directory of database, bus, lock and logs; also TRADING_STATE")
    # Account and costs
    paper_balance: values_of.Balance = Field(Decimal(10000), description="quote money at first start")
    fee_maker: values_of.Rate = Field(Decimal("0.001"), description="fraction of the notional")
    fee_taker: values_of.Rate = Field(Decimal("0.001"), description="fraction of the notional")
    fee_asset: Literal["quote", "received", "bnb"] = Field("quote", description="quote, received or bnb")
    slippage_bps: Annotated[Decimal, Field(ge=0, lt=10000)] = Field(Decimal(2), description="against us, each fill")
    instrument: values_of.Text = Field("known", description="known (rules that ship), free (no rules) or a file")
    # Sizing and entries
    sizing: values_of.Sizing = Field("equity_fraction:0.12", description="fixed, quote:N, equity_fraction:F or risk:P")
    allocation: values_of.Allocations = Field(
        (), description="strategy[@SYMBOL[:TIMEFRAME]]=share, ...; empty: equal shares"
    )
    max_entries: values_of.CountOrNone | None = Field(
        None, description="open entries; 0 unlimited; unset: the strategy's own"
    )
    orphans: Literal["ask", "keep", "close"] = Field(
        "ask", description="positions without a strategy: ask, keep, close"
    )
    gap: Literal["refuse", "fill"] = Field("refuse", description="a BUY whose next open comes too late")
    # Limits
    risk: Literal["live", "off"] = Field("live", description="off switches every account limit off")
    risk_max_position_size: Annotated[Decimal, Field(gt=0, le=1)] = Field(
        Decimal("0.1"), description="of equity in one symbol; 1: off"
    )
    risk_stop_loss_pct: values_of.StopPercent = Field(Decimal(5), description="below the average entry; 0: off")
    risk_daily_loss_limit_pct: values_of.Percent = Field(Decimal(10), description="of the day's opening equity; 0: off")
    risk_max_gross: Annotated[Decimal, Field(gt=0, le=100)] = Field(
        Decimal("1.0"), description="of equity, all symbols"
    )
    risk_max_drawdown_pct: values_of.Percent = Field(Decimal(20), description="from the equity peak; 0: off")
    risk_order_rate_max: values_of.CountOrNone = Field(30, description="increasing orders a minute; 0: off")
    notional_per_hour_max: values_of.Amount = Field(Decimal(0), description="quote money of increasing orders; 0: off")
    take_profit_pct: values_of.Amount = Field(Decimal(0), description="above the average entry; 0: off")
    trailing_pct: values_of.StopPercent = Field(Decimal(0), description="below the best price since entry; 0: off")
    stop_cooldown_candles: values_of.CountOrNone = Field(1, description="candles without an entry after a stop")
    signal_age_max: values_of.Seconds = Field(
        0.0, description="seconds from close to fill; 0: two timeframes, at least 5 min"
    )
    signal_wall_age_max: values_of.PositiveSeconds = Field(
        90.0, description="seconds by the exchange's clock (testnet, live)"
    )
    # Timing and bounds
    snapshot_interval: values_of.PositiveSeconds = Field(60.0, description="seconds of business time")
    engine_wait_seconds: values_of.Seconds = Field(2.0, description="live: wait for the other streams of a close time")
    watermark_wait_seconds: values_of.Seconds = Field(2.0, description="live: wait for the engine's watermark")
    feed_ahead_max: values_of.Count = Field(2000, description="candles ahead of the slowest consumer")
    batch_rows_max: values_of.Count = Field(500, description="messages or candles handled in one transaction")
    checkpoint_candles_max: values_of.Count = Field(1000, description="candles between two checkpoints of a strategy")
    collector_queue_max: values_of.Count = Field(10_000, description="candles between socket and database")
    stream_length_max: values_of.Count = Field(20_000, description="entries of one bus stream")
    outbox_rows_max: values_of.Count = Field(50_000, description="rows kept in the outbox")
    inbox_rows_max: values_of.Count = Field(50_000, description="rows kept in the inbox")
    dead_letters_max: values_of.Count = Field(10_000, description="rows kept of dead letters and quarantine")
    candle_revisions_max: values_of.Count = Field(100_000, description="replaced values of candles that are kept")
    candle_gaps_max: values_of.Count = Field(100_000, description="stated holes in streams that are kept")
    decision_retention_days: values_of.CountOrNone = Field(
        0, description="business days that signals without an order are kept; 0: for ever"
    )
    snapshot_retention_days: values_of.CountOrNone = Field(
        0, description="business days that portfolio snapshots are kept; 0: for ever"
    )
    retry_attempts_max: values_of.Count = Field(5, description="attempts in all of one call")
    retry_delay_max: values_of.PositiveSeconds = Field(60.0, description="seconds between two attempts")
    circuit_breaker_threshold: values_of.Count = Field(5, description="failures in a row that open a breaker")
    circuit_breaker_timeout: values_of.PositiveSeconds = Field(
        60.0, description="seconds until an open breaker tries again"
    )
    # Watching
    log_level: values_of.LogLevel = Field("INFO", description="DEBUG, INFO, WARNING, ERROR or CRITICAL")
    log_format: Literal["json", "console"] = Field("json", description="json or console; unset on a terminal: console")
    health_host: values_of.Text = Field(
        "127.0.0.1", description="address of /health and /metrics; 0.0.0.0 in a container"
    )
    health_port: values_of.Port = Field(
        8080, description="unset in `run`: 8080 collector, 8081 engine, 8082 executor, 8083 portfolio"
    )
    health_check_seconds_max: values_of.PositiveSeconds = Field(5.0, description="time-out of one check")
    telegram_enabled: bool = Field(False, description="true needs token and chat id")
    telegram_bot_token: SecretStr = Field(SecretStr(""), description="of @BotFather")
    telegram_chat_id: values_of.Text = Field("", description="where messages go")
    telegram_topics: values_of.Topics = Field(
        values_of.TELEGRAM_TOPICS, description="kinds of message: signals, orders, refusals, errors, summary"
    )
    telegram_api_url: values_of.HttpUrl = Field(
        "https://api.telegram.org", repr=False, description="another server of the same protocol"
    )
    telegram_queue_max: values_of.Count = Field(1000, description="messages waiting; the oldest are dropped first")
    telegram_close_seconds_max: values_of.Seconds = Field(5.0, description="longest wait for the last messages")
    # Exchange
    binance_api_key: SecretStr = Field(SecretStr(""), description="not needed on paper")
    binance_api_secret: SecretStr = Field(SecretStr(""), description="not needed on paper")

    def __init__(
        self, _environment: Mapping[str, str] | None = None, _origins: Mapping[str, str] | None = None, **values: Any
    ) -> None:
        environment = os.environ if _environment is None else _environment
        origins = dict(_origins or {})
        merged = _merge(_from_environment(environment, origins), values, origins)
        try:
            super().__init__(**merged)
        except ValidationError as error:
            raise ConfigError(explain_validation(error, merged, origins)) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read nothing behind the caller's back: `__init__` has merged what it was given."""
        return (init_settings,)

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        token = self.telegram_bot_token.get_secret_value()
        faults = (
            rules.feed_fault(self.feed, self.exchange),
            rules.symbols_fault(self.feed, self.symbols),
            rules.quote_fault(self.symbols),
            rules.data_fault(self.feed, self.data, self.symbols),
            rules.telegram_fault(enabled=self.telegram_enabled, token=token, chat_id=self.telegram_chat_id),
            rules.sizing_fault(self.sizing, self.risk_stop_loss_pct),
            rules.live_fault(self.trading_mode, self.i_understand_live, self.strategies),
            rules.allocation_fault(self.allocation, self.strategies, self.symbols),
        )
        fault = next(filter(None, faults), None)
        if fault:
            raise ConfigError(fault)
        return self

    @property
    def dry_run(self) -> bool:
        """Return whether no order can leave the house: true exactly in paper."""
        return self.trading_mode == "paper"

    @property
    def is_deterministic(self) -> bool:
        """Return whether the feed completes every close time by itself, so that nobody waits for a stream."""
        return self.feed in ("simulated", "replay")

    @property
    def feed_kind(self) -> str:
        """Return the feed without the exchange that its name may hold."""
        return self.feed.partition(":")[0]

    @property
    def exchange_name(self) -> str:
        """Return the exchange of the feed ccxt."""
        return self.feed.partition(":")[2] or self.exchange

    @property
    def quote_asset(self) -> str:
        """Return the one currency in which everything is valued."""
        return self.symbols[0].partition("/")[2]

    @property
    def streams(self) -> tuple[tuple[str, str], ...]:
        """Return every (symbol, timeframe) that is collected and traded, sorted."""
        if self.data:
            return tuple(sorted((item.symbol, item.timeframe) for item in self.data))
        return tuple(sorted((symbol, timeframe) for symbol in self.symbols for timeframe in self.timeframes))

    def health_port_of(self, service: str) -> int:
        """Return the port a service of its own listens on: the one set, else its default."""
        return self.health_port if "health_port" in self.model_fields_set else SERVICE_PORTS.get(service, 8080)

    def secret_values(self) -> tuple[str, ...]:
        """Return every text that no log may show: the secrets and the passwords inside URLs."""
        fields = (getattr(self, name) for name in type(self).model_fields)
        secrets = [value.get_secret_value() for value in fields if isinstance(value, SecretStr)]
        for key in _CREDENTIAL_URLS:
            secrets.extend(values_of.url_secrets(getattr(self, key)))
        return tuple(dict.fromkeys(secret for secret in secrets if secret))

    def require(self, *keys: str) -> None:
        """Refuse to go on while one of `keys` is empty."""
        for key in keys:
            value = getattr(self, key)
            if not (value.get_secret_value() if isinstance(value, SecretStr) else value):
                raise ConfigError(f"{key}: not set, but needed here; set {key.upper()} or give {option_of(key)}")


KEYS: Final = frozenset(Settings.model_fields) | {"dry_run"}
ENVIRONMENT_NAMES: Final = frozenset(key.upper() for key in KEYS) | frozenset(ENVIRONMENT_ALIASES)
SECRET_KEYS: Final = frozenset(
    key for key, field in Settings.model_fields.items() if isinstance(field.default, SecretStr)
) | frozenset(_CREDENTIAL_URLS)


def load_settings(
    overrides: Mapping[str, object] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    env_file: Path | None = None,
) -> Settings:
    """Return the settings of this process, or a `ConfigError` that says which key is wrong and how to mend it.

    `overrides` are command-line options by key; those that are None were not given. `env` is the process
    environment unless another one is passed.
    """
    environment = os.environ if env is None else env
    given = {OPTION_ALIASES.get(key, key): value for key, value in (overrides or {}).items() if value is not None}
    origins = {key: f"option {option_of(key)}" for key in given}
    from_file = read_env_file(env_file, ENVIRONMENT_NAMES) if env_file is not None else {}
    merged = _from_environment(from_file, origins, f"{env_file}: ") | _from_environment(environment, origins) | given
    settings = Settings(_environment={}, _origins=origins, **merged)
    refuse_missing_venue(settings)
    return settings


def option_of(key: str) -> str:
    """Return the command-line option of a setting, as a person writes it."""
    return f"--{_OPTION_NAMES.get(key, key).replace('_', '-')}"


def refuse_missing_venue(settings: Settings) -> None:
    """Refuse a mode for which this build has no venue."""
    if settings.trading_mode != "paper":
        raise ConfigError(
            f"trading_mode: this build has no {settings.trading_mode} venue, it trades on paper only; "
            "set TRADING_MODE=paper"
        )


def explain_validation(error: ValidationError, values: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """Return one line for a person: which key, what was wrong, what was found; the only place that does so."""
    faults = error.errors(include_url=False, include_context=False)
    key = str(faults[0]["loc"][0]) if faults[0]["loc"] else "settings"
    text = faults[0]["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    found = "" if key in SECRET_KEYS else f", was {_shorten(values.get(key))}"
    more = {str(fault["loc"][0]) for fault in faults if fault["loc"]} - {key}
    others = f" (also wrong: {', '.join(sorted(more))})" if more else ""
    advice = getattr(Settings.model_fields.get(key), "description", None)
    return f"{origins.get(key, 'setting')} ({key}): {text}{found}; {key} is: {advice}{others}"


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _from_environment(
    environment: Mapping[str, str], origins: dict[str, str], where: str = "environment "
) -> dict[str, Any]:
    """Return the settings in an environment by key; note in `origins` where each came from, unless an option wins."""
    refuse_misspelt_environment(environment, ENVIRONMENT_NAMES)
    present = present_values(environment, ENVIRONMENT_NAMES)
    found: dict[str, Any] = {}
    for name in sorted(present, key=lambda name: name in ENVIRONMENT_ALIASES):  # an alias comes last and wins
        key = ENVIRONMENT_ALIASES.get(name, name.lower())
        if key == "i_understand_live":
            raise ConfigError(f"{where}{name}: only the option --i-understand-live is accepted; remove the variable")
        found[key] = present[name]
        if not origins.get(key, "").startswith("option"):
            origins[key] = f"{where}{name}"
    return found


def _merge(environment: Mapping[str, Any], values: Mapping[str, Any], origins: Mapping[str, str]) -> dict[str, Any]:
    for key in values:
        if key not in KEYS:
            raise ConfigError(f"{origins.get(key, 'setting')} ({key}): no such setting; {unknown_name_text(key, KEYS)}")
    merged = {**environment, **values}
    if "dry_run" in merged:
        fault = rules.dry_run_fault(merged.pop("dry_run"), merged.get("trading_mode", "paper"))
        if fault:
            raise ConfigError(fault)
    if "data" in merged and "symbols" not in merged:
        with contextlib.suppress(ValueError):  # what is wrong with the files is said when they are validated
            merged["symbols"] = tuple(dict.fromkeys(item.symbol for item in values_of.parse_data_files(merged["data"])))
    return merged
