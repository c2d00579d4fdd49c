"""The page of a run, opened in a real browser without a network."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Page, ViewportSize, sync_playwright

from backtester.charts.page import export_html
from backtester.export import export_json
from backtester.metrics import DetailedMetrics
from backtester.options import BacktestOptions
from backtester.result import BacktestResult
from backtester.run import BacktestRequest, run_backtest
from shared.clock import seeded_random

pytestmark = pytest.mark.thorough

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-extensions"]
WIDE, PHONE = ViewportSize(width=1440, height=1000), ViewportSize(width=390, height=844)
CHARTS = {"equity", "price", "months", "outcome", "size", "hour", "holding", "adverse", "favourable"}
DRAWN = "html[data-drawn=yes]"


class Opened(NamedTuple):
    """A page as a browser has it, the JSON of the same run, and what the browser said meanwhile."""

    page: Page
    document: dict[str, Any]
    troubles: list[str]


def hourly_walk(path: Path, days: int) -> Path:
    """Write hourly candles that wander and swing, over two turns of a month."""
    rng, price, lines = seeded_random(4), 60_000.0, ["open_time,open,high,low,close,volume"]
    for hour in range(24 * days):
        after = round(price * math.exp(rng.gauss(0.00005, 0.004) + 0.002 * math.cos(hour / 9)), 2)
        high, low = max(price, after) * (1 + rng.random() / 500), min(price, after) * (1 - rng.random() / 500)
        lines.append(
            f"{1_704_067_200_000 + hour * 3_600_000},{price},{high:.2f},{low:.2f},{after},{1 + rng.random():.4f}"
        )
        price = after
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> BacktestResult:
    """Give a run of ninety days that has everything: stops, open position, intervals, benchmarks."""
    path = hourly_walk(tmp_path_factory.mktemp("page") / "walk.csv", 90)
    options = BacktestOptions(sizing="equity_fraction:0.5", stop_loss_pct=Decimal("1.5"))  # type: ignore[arg-type]
    request = BacktestRequest(
        strategy="ema_crossover",
        data=str(path),
        symbol="BTC/USDT",
        timeframe="1h",
        options=options,
        command="trading <b>",
    )
    return run_backtest(request)


@pytest.fixture(scope="module")
def opened(result: BacktestResult, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """Give the page in Chromium; skips where Debian's package is absent."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("needs Debian's package chromium (make deps-debian)")
    path = tmp_path_factory.mktemp("html") / "run.html"
    path.write_text(export_html(result), encoding="utf-8")
    troubles: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        page = browser.new_page(viewport=WIDE, color_scheme="light")
        page.set_default_timeout(120_000)
        page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        page.on("request", lambda request: None if request.url == path.as_uri() else troubles.append(request.url[:200]))
        page.goto(path.as_uri())
        page.wait_for_selector(DRAWN)
        yield Opened(page, json.loads(export_json(result), parse_float=Decimal), troubles)
        browser.close()


def drawn_sizes(page: Page) -> dict[str, tuple[float, float]]:
    """Return the size of each chart's drawn part."""
    script = """() => Object.fromEntries([...document.querySelectorAll('.chart')].map((chart) => {
        const drawn = chart.querySelector('.main-svg .plot, .main-svg .cartesianlayer');
        const box = drawn ? drawn.getBoundingClientRect() : { width: 0, height: 0 };
        return [chart.id, [box.width, box.height]];
    }))"""
    return {name: (width, height) for name, (width, height) in page.evaluate(script).items()}


def at_path(document: Any, path: str) -> Any:
    for name in path.split("."):
        document = document[name]
    return document


def test_every_chart_is_drawn_and_nothing_is_loaded_or_complained_of(opened: Opened) -> None:
    sizes = drawn_sizes(opened.page)
    assert set(sizes) == CHARTS
    assert all(width > 100 and height > 60 for width, height in sizes.values()), sizes
    assert opened.troubles == []


def test_the_headline_figures_are_those_of_the_json(opened: Opened) -> None:
    tiles = opened.page.query_selector_all("[data-figure]")
    shown = {tile.get_attribute("data-figure"): Decimal(tile.get_attribute("data-value") or "") for tile in tiles}
    assert {"final_balance", "benchmarks.hold", "metrics.sharpe_ratio", "metrics.max_drawdown"} <= set(shown)
    assert shown == {path: Decimal(at_path(opened.document, path or "")) for path in shown}
    final = opened.page.inner_text("[data-figure=final_balance]")
    assert final == f"{opened.document['final_balance']:,.2f}"


def test_the_box_on_top_says_what_the_figures_rest_on(opened: Opened) -> None:
    box = opened.page.inner_text(".honesty")
    for word in ("Trial", "Fills", "Live limits", "Gaps", "Refused", opened.document["data"]["sha256"], "trading <b>"):
        assert word.casefold() in box.casefold()
    assert opened.document["code_hash"] in box


def test_the_lines_of_the_equity_chart_end_at_the_figures_of_the_json(opened: Opened) -> None:
    script = (
        "() => Object.fromEntries(document.getElementById('equity').data.map((line) => [line.name, line.y.at(-1)]))"
    )
    ends = opened.page.evaluate(script)
    document = opened.document
    assert ends["Strategy"] == pytest.approx(float(document["final_balance"]))
    assert ends["Hold"] == pytest.approx(float(document["benchmarks"]["hold"]))
    same_exposure = float(document["benchmarks"]["hold at mean exposure"])
    assert ends["Hold at the same exposure"] == pytest.approx(same_exposure, rel=1e-6)
    ladder = {f"{rung['factor']}x costs": float(rung["final_balance"]) for rung in document["ladder"]}
    assert {name: ends[name] for name in ladder if name != "1x costs"} == pytest.approx(
        {name: value for name, value in ladder.items() if name != "1x costs"}
    )


def test_the_table_holds_every_pair_and_a_row_leads_to_its_place_in_the_chart(opened: Opened) -> None:
    page, pairs = opened.page, opened.document["metrics"]["trade_pairs"]
    assert page.inner_text("#place").endswith(f"of {len(pairs):,}")
    first_row = page.inner_text("#trades tbody tr:first-child")
    assert pairs[-1]["entry_time"][:16].replace("T", " ") in first_row
    page.click("#trades tbody tr:first-child")
    month = 30 * 86_400_000
    closer = "(most) => { const [a, b] = document.getElementById('price').layout.xaxis.range; return b - a < most; }"
    page.wait_for_function(closer, arg=month)
    assert "every close" in page.inner_text("#price-hint")
    assert page.evaluate("() => document.getElementById('price').data[0].y.length") > 50
    page.click("#trades th:nth-child(6)")
    nets = page.eval_on_selector_all("#trades td:nth-child(6)", "cells => cells.map((cell) => cell.textContent)")
    assert nets[0].startswith("+")
    assert opened.troubles == []


def test_it_fits_a_phone_and_follows_the_switch_to_dark(opened: Opened) -> None:
    page = opened.page
    page.set_viewport_size(PHONE)
    fits = "(most) => [...document.querySelectorAll('.main-svg')].every((svg) => svg.getBoundingClientRect().width <= most)"
    page.wait_for_function(fits, arg=PHONE["width"])
    assert page.evaluate("() => document.documentElement.scrollWidth") <= PHONE["width"]
    assert all(width > 100 and height > 60 for width, height in drawn_sizes(page).values())
    before = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    page.wait_for_function("(old) => getComputedStyle(document.body).backgroundColor !== old", arg=before)
    assert opened.troubles == []


def test_the_same_run_gives_the_same_page(result: BacktestResult) -> None:
    assert export_html(result) == export_html(result)


def test_a_name_is_text_and_never_a_part_of_the_page() -> None:
    name = "</script><img src=x onerror=alert(1)>"
    money = (Decimal(1000), Decimal(1000), Decimal(0))
    page = export_html(BacktestResult(name, "BTC/USDT", 0, *money, 0.0, [], DetailedMetrics(), command=name))
    assert "<img" not in page
    assert "&lt;img src=x" in page
