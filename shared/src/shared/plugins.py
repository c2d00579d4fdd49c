"""Finds, checks and imports strategy files: the only dynamic import of the platform.

A file is read once, checked by its syntax, imported once a process (those of the package `strategies` under that name,
others as `trading_plugins.<hash>`), and joined with `config/<stem>.yaml` beside it. Whatever is wrong with one file is
a `PluginProblem` with file, mistake and way out; the others go on.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import json
import linecache
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from shared.errors import PluginError
from shared.plugin_rules import find_breaches
from shared.step_compiler import step_source
from shared.strategy import BaseStrategy, CompiledStrategy
from shared.strategy_params import near_match, validate_params
from shared.watchdog import DeadlineExceeded, deadline

BUNDLED_PACKAGE = "strategies"
CONTRACT_FILES = frozenset({"__init__.py", "base.py"})
CONFIG_WORDS = ("enabled", "symbols")
FILES_MAX = 1_000
FILE_BYTES_MAX = 1_000_000
IMPORT_SECONDS_MAX = 10.0


@dataclass(frozen=True, slots=True)
class PluginProblem:
    """Why one strategy file cannot be used."""

    path: Path
    what: str
    fix: str = ""

    def __str__(self) -> str:
        """Return the problem as one line: where, what, what to do."""
        return f"{self.path}: {self.what}" + (f"; {self.fix}" if self.fix else "")


@dataclass(frozen=True, slots=True)
class StrategyPlugin:
    """One usable strategy file: its class, what its YAML says and the hash of its code."""

    name: str
    cls: type[BaseStrategy]
    path: Path
    config_path: Path
    parameters: Mapping[str, Any]
    symbol_overrides: Mapping[str, Mapping[str, Any]]
    enabled: bool
    code_hash: str

    def create(self, symbol: str | None = None, overrides: Mapping[str, Any] | None = None) -> BaseStrategy:
        """Return a fresh instance: defaults < YAML < its part for `symbol` < `overrides` < their part for `symbol`."""
        of_file = {**self.parameters, **self.symbol_overrides.get(symbol or "", {})}
        strategy = self._configured(of_file, str(self.config_path))
        symbols = {name: {**self.parameters, **values} for name, values in self.symbol_overrides.items()}
        if overrides:
            where = f"strategy_params {self.name}"
            plain, by_symbol, _ = _split_config(overrides, where)
            merged = {**of_file, **plain, **by_symbol.get(symbol or "", {})}
            strategy = self._configured(merged, where)
            names = symbols.keys() | by_symbol.keys()
            symbols = {
                name: {**self.parameters, **self.symbol_overrides.get(name, {}), **plain, **by_symbol.get(name, {})}
                for name in names
            }
        strategy.symbol_params = symbols
        return strategy

    def is_enabled(self, overrides: Mapping[str, Any] | None = None) -> bool:
        """Say whether the strategy runs when nobody names it: `enabled` of the settings, else of the YAML."""
        return _split_config(overrides or {}, f"strategy_params {self.name}")[2] is not False and (
            self.enabled or (overrides or {}).get("enabled") is True
        )

    def _configured(self, values: Mapping[str, Any], where: str) -> BaseStrategy:
        if _checks_itself(self.cls):
            validate_params(self.cls.Params, values, where)
        try:
            with deadline(IMPORT_SECONDS_MAX):
                strategy = self.cls()
                strategy.configure(dict(values))
        except PluginError:
            raise
        except DeadlineExceeded as error:
            raise PluginError(f"{self.path}: configure gives no answer ({error}); it must end") from error
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plug-in's own code, SystemExit too: its author's to read, not our end
            raise PluginError(
                f"{where}: {self.path.name} refused its parameters: {_told(error)}; correct them"
            ) from error
        strategy.given_params = dict(values)
        return strategy


@dataclass(frozen=True, slots=True)
class Discovery:
    """What a folder of strategy files holds, in order of file names."""

    plugins: list[StrategyPlugin] = field(default_factory=list)
    problems: list[PluginProblem] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Return the names of the usable strategies."""
        return [plugin.name for plugin in self.plugins]

    def get(self, name: str) -> StrategyPlugin:
        """Return the strategy called `name`; an unknown one is refused with the nearest known."""
        for plugin in self.plugins:
            if plugin.name == name:
                return plugin
        broken = [problem for problem in self.problems if problem.path.stem.removesuffix("_strategy") == name]
        if broken:
            raise PluginError(str(broken[0]))
        raise PluginError(f"strategies: unknown strategy {name!r}; {near_match(name, self.names)}")


def bundled_strategies_dir() -> Path:
    """Return the folder of the strategies that come with the platform."""
    spec = importlib.util.find_spec(BUNDLED_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise PluginError("strategies: the package that comes with the platform is not installed; run `make setup`")
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def config_hash(strategy: BaseStrategy) -> str:
    """Return 16 hex digits that change when the strategy's name or any parameter changes."""
    values = {**strategy.given_params, **strategy.params.model_dump(mode="json")}
    text = json.dumps([strategy.name, values], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def discover(directory: Path | str | None = None) -> Discovery:
    """Return the strategies of a folder (default: those that come with the platform) and what is wrong with others."""
    folder = Path(directory).expanduser() if directory else bundled_strategies_dir()
    if not folder.is_dir():
        raise PluginError(f"{folder}: no such folder of strategies; set strategies_dir to one that exists")
    found = Discovery()
    files = sorted(path for path in folder.glob("*.py") if path.name not in CONTRACT_FILES and path.name[0] not in "._")
    for path in files[:FILES_MAX]:
        try:
            plugin = _load(path)
            same = next((other for other in found.plugins if other.name == plugin.name), None)
            if same is not None:
                raise _Problem(f"is a second strategy named {plugin.name!r}, beside {same.path.name}", "rename one")
        except _Problem as problem:
            found.problems.append(PluginProblem(path, *problem.args))
        else:
            found.plugins.append(plugin)
    if len(files) > FILES_MAX:
        found.problems.append(
            PluginProblem(folder, f"{len(files)} files, at most {FILES_MAX} are read", "move some away")
        )
    return found


class _Problem(Exception):
    """What is wrong with one file, and the way out."""


def _load(path: Path) -> StrategyPlugin:
    source = _checked_source(path)
    cls = _strategy_class(_import_file(path, source), path)
    config_path = path.parent / "config" / f"{path.stem}.yaml"
    try:
        parameters, symbols, enabled = _split_config(_read_yaml(config_path), str(config_path))
        steps = step_source(cls.step) if issubclass(cls, CompiledStrategy) else ""
        code_hash = hashlib.sha256((source + steps).encode()).hexdigest()[:16]
        plugin = StrategyPlugin(
            name=_name_of(cls),
            cls=cls,
            path=path,
            config_path=config_path,
            parameters=parameters,
            symbol_overrides=symbols,
            enabled=enabled is not False,
            code_hash=code_hash,
        )
        for symbol in (None, *symbols):
            _check_contract(plugin.create(symbol))
    except PluginError as error:
        raise _Problem(*_split_message(error, path)) from error
    return plugin


def _split_message(error: PluginError, path: Path) -> tuple[str, str]:
    what, _, fix = str(error).removeprefix(f"{path}: ").partition("; ")
    return what, fix


def _checked_source(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > FILE_BYTES_MAX:
            raise _Problem(f"{size} bytes, at most {FILE_BYTES_MAX} are read", "keep data out of strategy files")
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source, filename=str(path))
    except OSError as error:
        raise _Problem(f"cannot be read: {error.strerror or error}", "check that it exists and may be read") from error
    except (SyntaxError, ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        place = f"line {line}: " if line else ""
        raise _Problem(f"{place}is not valid Python: {getattr(error, 'msg', error)}", "correct the syntax") from error
    breaches = find_breaches(tree)
    if breaches:
        first = breaches[0]
        more = f" (and {len(breaches) - 1} more)" if len(breaches) > 1 else ""
        raise _Problem(f"line {first.line}: {first.what}{more}", first.fix)
    return source


def _import_file(path: Path, source: str) -> ModuleType:
    """Import a checked file, once a process: an edited file is another module, an equal one the same."""
    resolved = path.resolve()
    bundled = _bundled_name(resolved)
    digest = hashlib.sha256(f"{resolved}\n{source}".encode()).hexdigest()[:16]
    name = bundled or f"trading_plugins.{digest}"
    if name in sys.modules:
        return sys.modules[name]
    try:
        with deadline(IMPORT_SECONDS_MAX):
            return importlib.import_module(name) if bundled else _run_source(name, resolved, source)
    except DeadlineExceeded as error:
        raise _Problem(f"its import gives no answer ({error})", "do nothing at module level but define") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plug-in's own code, SystemExit too: its author's to read, not our end
        raise _Problem(f"cannot be imported: {_told(error)}", "correct the file") from error


def _bundled_name(resolved: Path) -> str | None:
    spec = importlib.util.find_spec(BUNDLED_PACKAGE)
    homes = [] if spec is None else [Path(home).resolve() for home in spec.submodule_search_locations or ()]
    return f"{BUNDLED_PACKAGE}.{resolved.stem}" if resolved.parent in homes else None


def _run_source(name: str, path: Path, source: str) -> ModuleType:
    module = ModuleType(name)
    module.__file__ = str(path)
    # the text that runs is the text that a step's machine code is made from, whatever becomes of the file
    linecache.cache[str(path)] = (len(source), None, source.splitlines(keepends=True), str(path))
    sys.modules[name] = module
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _strategy_class(module: ModuleType, path: Path) -> type[BaseStrategy]:
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, BaseStrategy) and value.__module__ == module.__name__
    ]
    leaves = [cls for cls in dict.fromkeys(own) if not any(cls in other.__bases__ for other in own)]
    if not leaves:
        raise _Problem("holds no strategy class", "define one class that extends BaseStrategy")
    if len(leaves) > 1:
        names = ", ".join(sorted(cls.__name__ for cls in leaves))
        raise _Problem(f"holds {len(leaves)} strategy classes ({names})", "keep one strategy in a file")
    if inspect.isabstract(leaves[0]):
        missing = ", ".join(sorted(leaves[0].__abstractmethods__))
        raise _Problem(f"{leaves[0].__name__} lacks {missing}", f"define {missing} in {path.name}")
    if issubclass(leaves[0], CompiledStrategy) and not callable(getattr(leaves[0], "step", None)):
        raise _Problem(f"{leaves[0].__name__} has no step", "write: step = staticmethod(step)")
    return leaves[0]


def _name_of(cls: type[BaseStrategy]) -> str:
    name = cls.name if isinstance(cls.name, str) else _asked_name(cls)
    if not isinstance(name, str) or not name.replace("_", "").replace("-", "").isalnum() or len(name) > 64:
        raise PluginError(
            f"{cls.__name__}: name must be a short word (letters, digits, _ and -), was {name!r}; set name"
        )
    return name


def _asked_name(cls: type[BaseStrategy]) -> object:
    try:
        with deadline(IMPORT_SECONDS_MAX):
            return cls().name
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plug-in's own code
        raise PluginError(f"{cls.__name__}: cannot be made: {_told(error)}; correct its __init__") from error


def _check_contract(strategy: BaseStrategy) -> None:
    try:
        warmup = strategy.warmup_period
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plug-in's own code
        raise PluginError(f"{strategy.name}: warmup_period raises {_told(error)}; return a whole number") from error
    if isinstance(warmup, bool) or not isinstance(warmup, int) or warmup < 0:
        raise PluginError(f"{strategy.name}: warmup_period must be a whole number >= 0, was {warmup!r}; correct it")


def _checks_itself(cls: type[BaseStrategy]) -> bool:
    return cls.configure in (BaseStrategy.configure, CompiledStrategy.configure)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


# --- configuration --------------------------------------------------------------------------------------------


def _read_yaml(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PluginError(f"{path}: cannot be read: {error}; check that it exists and may be read") from error
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark else ""
        told = getattr(error, "problem", None) or str(error)
        raise PluginError(f"{path}: {place}is not valid YAML: {told}; correct it") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise PluginError(f"{path}: expected `key: value` lines, was a {type(values).__name__}; write one key a line")
    return values


def _split_config(
    values: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], dict[str, dict[str, Any]], bool | None]:
    """Return (parameters, parameters by symbol, enabled or None) of one strategy's YAML or settings."""
    if not isinstance(values, Mapping):
        raise PluginError(f"{where}: expected parameters by name, was {values!r}; write {{parameter: value}}")
    plain = {str(key): value for key, value in values.items() if key not in CONFIG_WORDS}
    enabled = values.get("enabled")
    if enabled is not None and not isinstance(enabled, bool):
        raise PluginError(f"{where}: enabled must be true or false, was {enabled!r}; correct it")
    symbols = values.get("symbols") or {}
    if not isinstance(symbols, Mapping):
        raise PluginError(f"{where}: symbols must map a symbol to its parameters, was {symbols!r}; correct it")
    return plain, dict(_symbol_parts(symbols, where)), enabled


def _symbol_parts(symbols: Mapping[Any, Any], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for symbol, part in symbols.items():
        base, slash, quote = str(symbol).partition("/")
        if not (base and slash and quote):
            raise PluginError(f"{where}: symbols: {symbol!r} is not of the form BASE/QUOTE; write for example BTC/USDT")
        if part is not None and not isinstance(part, Mapping):
            raise PluginError(f"{where}: symbols: {symbol}: expected parameters by name, was {part!r}; correct it")
        yield str(symbol), {str(key): value for key, value in (part or {}).items()}
