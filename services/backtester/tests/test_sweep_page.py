"""The page of a sweep, opened in a real browser without a network."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from backtester.sweep.command import sweep

pytestmark = pytest.mark.thorough

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-extensions"]
WIDE, PHONE = ViewportSize(width=1200, height=700), ViewportSize(width=390, height=844)
GRIDS: dict[str, tuple[str, ...]] = {
    "none": ("fast_period=5",),
    "one": ("fast_period=3:9:2",),
    "two": ("fast_period=5,8", "slow_period=20:40:5"),
    "three": ("fast_period=5,8", "slow_period=6,20,30", "signal_period=4:9"),
}

type Sweeps = dict[str, Path]


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Sweeps:
    """Give a folder for each grid, in it the page and the Parquet of the same sweep; `silent` was without noise."""
    folder, random, rows = tmp_path_factory.mktemp("sweeps"), np.random.default_rng(5), 24 * 45
    close = (50_000 * np.exp(np.cumsum(random.normal(0, 0.005, rows)))).round(2)
    opened = np.concatenate(([50_000.0], close[:-1]))
    times = pl.Series("open_time", 1_704_067_200_000 + np.arange(rows) * 3_600_000).cast(pl.Datetime("ms", "UTC"))
    columns = {"open": opened, "high": np.maximum(opened, close), "low": np.minimum(opened, close), "close": close}
    pl.DataFrame({"open_time": times, **columns, "volume": np.ones(rows)}).write_parquet(folder / "hours.parquet")
    given = ["--strategy", "macd", "--data", str(folder / "hours.parquet"), "--symbol", "BTC/USDT", "--timeframe", "1h"]
    for name, grid in {**GRIDS, "silent": GRIDS["two"]}.items():
        place = folder / name
        place.mkdir()
        words = [*given, "--state", str(place), "--out", str(place / "out.parquet"), "--html", str(place / "page.html")]
        words += ["--null", "0" if name == "silent" else "2", "--threads", "1"]
        result = CliRunner().invoke(sweep, [*words, *(word for text in grid for word in ("--grid", text))])
        assert result.exit_code == 0, result.output
    return {name: folder / name for name in (*GRIDS, "silent")}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give Chromium; skips where Debian's package is absent."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("needs Debian's package chromium (make deps-debian)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def show(browser: Browser) -> Iterator[Callable[[Path], Page]]:
    """Give a function that opens a page; whatever it loads or complains of fails the test."""
    troubles: list[str] = []
    pages: list[Page] = []

    def opened(folder: Path) -> Page:
        path, page = folder / "page.html", browser.new_page(viewport=WIDE)
        page.set_default_timeout(120_000)
        page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        page.on("request", lambda request: None if request.url == path.as_uri() else troubles.append(request.url[:200]))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-drawn=yes]")
        pages.append(page)
        return page

    yield opened
    assert troubles == []
    for page in pages:
        page.close()


def drawn(page: Page) -> list[list[float | None]]:
    """Return the numbers of the map, row by row."""
    numbers: list[list[float | None]] = page.evaluate("() => document.getElementById('map').data[0].z")
    return numbers


def wanted(folder: Path, down: str, across: str, of: pl.Expr) -> list[list[float | None]]:
    """Return what the map should show by the sweep's Parquet; a cell without a valid set is None."""
    table = pl.read_parquet(folder / "out.parquet").filter(pl.col("sharpe").is_not_nan())
    cells = {(row[0], row[1]): row[2] for row in table.group_by(down, across).agg(of).iter_rows()}
    head = json.loads(pl.read_parquet_metadata(folder / "out.parquet")["sweep"])
    grid = head["request"]["grid"]
    return [[cells.get((row, column)) for column in grid[across]] for row in grid[down]]


def same(found: list[list[float | None]], expected: list[list[float | None]]) -> bool:
    pairs = [pair for rows in zip(found, expected, strict=True) for pair in zip(*rows, strict=True)]
    return all(a is b is None or (a is not None and a == pytest.approx(b, rel=1e-8)) for a, b in pairs)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_verdict_beside_noise_is_in_sight_wherever_one_reads(
    grid: str, sweeps: Sweeps, show: Callable[[Path], Page]
) -> None:
    page = show(sweeps[grid])
    for place in (0, 400, 10**6):
        page.evaluate("(to) => window.scrollTo(0, to)", place)
        box = page.locator("#verdict").bounding_box()
        assert box is not None
        assert 0 <= box["y"] < WIDE["height"] - box["height"]
    assert re.fullmatch(r"best Sharpe \S+; best of noise .* \(2 shuffles\): .*", page.inner_text("#verdict"))
    sizes = page.eval_on_selector_all(
        ".chart", "all => all.filter((c) => c.checkVisibility()).map((c) => c.clientHeight)"
    )
    assert len(sizes) == (1 if grid == "none" else 2)
    assert min(sizes) > 200
    assert "PSR" not in page.inner_text("body")
    assert "robabilistic" not in page.inner_text("body")


def test_two_parameters_make_a_map_with_a_cell_for_each_set(sweeps: Sweeps, show: Callable[[Path], Page]) -> None:
    page = show(sweeps["two"])
    assert same(drawn(page), wanted(sweeps["two"], "fast_period", "slow_period", pl.col("sharpe").first()))
    assert not page.is_visible("#choice")
    assert "Each cell is one set" in page.inner_text("#map-how")


def test_of_three_parameters_two_are_chosen_and_the_rest_is_said(sweeps: Sweeps, show: Callable[[Path], Page]) -> None:
    folder, page = sweeps["three"], show(sweeps["three"])
    assert "the best of all sets with these two values, over signal_period" in page.inner_text("#map-how")
    best = wanted(folder, "fast_period", "slow_period", pl.col("sharpe").max())
    assert best[1][0] is None  # 8 is not below 6
    assert same(drawn(page), best)
    page.select_option("#across", label="signal_period")
    assert same(drawn(page), wanted(folder, "fast_period", "signal_period", pl.col("sharpe").max()))
    page.select_option("#rest", "median")
    assert "the median of all sets with these two values, over slow_period" in page.inner_text("#map-how")
    worse_of_two = pl.col("sharpe").sort(descending=True).get(pl.len() // 2)
    assert same(drawn(page), wanted(folder, "fast_period", "signal_period", worse_of_two))
    page.select_option("#down", label="signal_period")
    assert page.input_value("#across") != page.input_value("#down")


def test_one_parameter_makes_a_line_beside_the_band_of_noise(sweeps: Sweeps, show: Callable[[Path], Page]) -> None:
    page = show(sweeps["one"])
    line = page.evaluate("() => { const line = document.getElementById('map').data[0]; return [line.x, line.y]; }")
    table = pl.read_parquet(sweeps["one"] / "out.parquet")
    assert line[0] == table["fast_period"].to_list()
    assert line[1] == pytest.approx(table["sharpe"].to_list(), rel=1e-8)
    band = page.evaluate("() => document.getElementById('map').layout.shapes[0]")
    noise = json.loads(pl.read_parquet_metadata(sweeps["one"] / "out.parquet")["sweep"])["noise"]
    assert [band["y0"], band["y1"]] == pytest.approx([noise["low"], noise["high"]])


def test_without_noise_the_page_has_no_figure_of_any_set(sweeps: Sweeps, show: Callable[[Path], Page]) -> None:
    page = show(sweeps["silent"])
    assert "noise was not measured" in page.inner_text("#verdict")
    assert "Sharpe" not in page.inner_text("body")
    assert page.query_selector("#map") is None
    packed = re.search(r'id="packed-run">([^<]*)<', (sweeps["silent"] / "page.html").read_text())
    assert packed is not None
    carried: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(packed[1]))[4:])
    assert (carried["figures"], carried["noise"]) == ([], None)


def test_the_page_of_a_sweep_fits_a_phone(sweeps: Sweeps, show: Callable[[Path], Page]) -> None:
    page = show(sweeps["three"])
    page.set_viewport_size(PHONE)
    fits = "(most) => [...document.querySelectorAll('.main-svg')].every((svg) => svg.getBoundingClientRect().width <= most)"
    page.wait_for_function(fits, arg=PHONE["width"])
    assert page.evaluate("() => document.documentElement.scrollWidth") <= PHONE["width"]
