"""What a sweep has finished, kept while it runs: parts written whole, so that neither Ctrl-C nor a kill loses one.

Beside the result `NAME.parquet` lies `NAME.parquet.parts/` until the sweep is done: `request.json` says what is being
swept, each part holds finished trials (`market` 0 is the data, 1 and up its shuffles; `trial` counts the valid sets).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

PARTS_SUFFIX = ".parts"
REQUEST_FILE = "request.json"
METADATA_KEY = "sweep"
INTEGERS = ("market", "trial", "trades", "signals", "refused", "ignored")
FIGURES = ("sharpe", "sortino", "calmar", "cagr", "total_return", "final_balance", "fees_paid", "participation_max")


def schema() -> dict[str, pl.DataType]:
    """Return the columns of a part."""
    import polars as pl

    return {name: pl.Int64() for name in INTEGERS} | {name: pl.Float64() for name in FIGURES}


@dataclass(frozen=True, slots=True)
class SweepStore:
    """The parts of one sweep, whose result will be `out`."""

    out: Path

    @property
    def folder(self) -> Path:
        """Return where the parts lie."""
        return self.out.with_name(self.out.name + PARTS_SUFFIX)

    def begin(self, identity: Mapping[str, Any], *, resume: bool) -> pl.DataFrame:
        """Return the trials that are finished already; make the folder when there is none.

        Parts that were left by an interruption are taken up with `resume`, and only when they are of the same request.
        """
        import polars as pl

        written = json.dumps(identity, sort_keys=True, indent=1)
        request = self.folder / REQUEST_FILE
        if request.is_file():
            if not resume:
                raise ConfigError(
                    f"{self.folder}: an unfinished sweep lies here; go on with --resume, give another --out, or remove it"
                )
            self._check_same(identity, request)
        elif resume and self.out.is_file():
            return self._finished(identity)
        else:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                _write_whole(request, written.encode())
            except OSError as error:
                raise ConfigError(f"{self.folder}: cannot be written ({error.strerror}); give another --out") from error
        parts = [_read_part(path) for path in sorted(self.folder.glob("part-*.parquet"))]
        return pl.concat([pl.DataFrame(schema=schema()), *parts]).unique(["market", "trial"], keep="first")

    def forsake(self) -> None:
        """Remove the folder of a sweep that failed before it finished a trial: there is nothing to go on with."""
        if self.folder.is_dir() and {path.name for path in self.folder.iterdir()} <= {REQUEST_FILE}:
            shutil.rmtree(self.folder, ignore_errors=True)

    def begun_at(self) -> datetime:
        """Return when the sweep was begun whose parts lie here."""
        return datetime.fromtimestamp((self.folder / REQUEST_FILE).stat().st_mtime, UTC)

    def add(self, rows: pl.DataFrame) -> None:
        """Keep finished trials: when this returns, they outlive the process."""
        number = len(list(self.folder.glob("part-*.parquet")))
        target = self.folder / f"part-{number:06d}.parquet"
        fresh = target.with_suffix(".new")
        with fresh.open("wb") as file:
            rows.write_parquet(file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(target)

    def finish(self, table: pl.DataFrame, head: Mapping[str, Any]) -> None:
        """Write the result with what is to be known of it, then let go of the parts."""
        fresh = self.out.with_name(f".{self.out.name}.new")
        table.write_parquet(fresh, compression="zstd", metadata={METADATA_KEY: json.dumps(head, default=str)})
        fresh.replace(self.out)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _finished(self, identity: Mapping[str, Any]) -> pl.DataFrame:
        """Say that the sweep of this request is done already, or that another one lies there."""
        import polars as pl

        head = json.loads(pl.read_parquet_metadata(self.out).get(METADATA_KEY, "{}"))
        _compare(identity, head.get("request", {}), self.out)
        raise ConfigError(
            f"{self.out}: this sweep is finished, there is nothing to resume; read it, or leave out --resume"
        )

    def _check_same(self, identity: Mapping[str, Any], request: Path) -> None:
        try:
            stored = json.loads(request.read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{request}: cannot be read ({error}); remove {self.folder} to begin anew") from error
        _compare(identity, stored, self.folder)


def _compare(identity: Mapping[str, Any], stored: Mapping[str, Any], where: Path) -> None:
    wanted = json.loads(json.dumps(identity))
    different = [
        f"{name} was {stored.get(name)!r} and is {wanted.get(name)!r}"
        for name in wanted | dict(stored)
        if stored.get(name) != wanted.get(name)
    ]
    if different:
        raise ConfigError(
            f"{where}: is another sweep: {'; '.join(different)}; give the same options to resume it, or another --out"
        )


def _read_part(path: Path) -> pl.DataFrame:
    import polars as pl

    try:
        return pl.read_parquet(path).select(list(schema())).cast(schema())  # type: ignore[arg-type]
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ConfigError(f"{path}: is no part of a sweep; remove it, its trials are then run again") from error


def _write_whole(path: Path, data: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(data)
    fresh.replace(path)
