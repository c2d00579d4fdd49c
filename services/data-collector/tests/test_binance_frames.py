"""What the venue sends is read as it stands, and nothing it could send breaks the reader."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_collector.feeds.binance.frames import Answer, KlineFrame, Shutdown, TradeFrame, read_frame
from shared.errors import MalformedMessage
from shared.testing.reference import reference_path

KLINE = {
    "e": "kline",
    "E": 1_700_000_060_005,
    "s": "BTCUSDT",
    "k": {
        "t": 1_700_000_000_000,
        "T": 1_700_000_059_999,
        "s": "BTCUSDT",
        "i": "1m",
        "o": "0.10000001",
        "c": "0.3",
        "h": "0.30000000",
        "l": "0.1",
        "v": "12.50000000",
        "x": True,
    },
}


def kline(**changes: object) -> str:
    return json.dumps({**KLINE, "k": {**KLINE["k"], **changes}})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("sample", "interval", "is_closed", "close"),
    [
        ("kline_1s_closed_combined_2024-01.json", "1s", True, "43296.79000000"),
        ("kline_1s_closed_no_trades_2023-04.json", "1s", True, "1870.76000000"),
        ("kline_2h_open_combined_2025-06.json", "2h", False, "651.51000000"),
    ],
)
def test_recorded_candle_frames_are_read_whole(sample: str, interval: str, is_closed: bool, close: str) -> None:
    frame = read_frame(reference_path(f"data/binance/recorded/{sample}").read_bytes())
    assert isinstance(frame, KlineFrame)
    assert (frame.interval, frame.is_closed, frame.close) == (interval, is_closed, Decimal(close))


def test_a_recorded_trade_is_read() -> None:
    frame = read_frame(reference_path("data/binance/recorded/frame_trade_2024-08.json").read_bytes())
    assert frame == TradeFrame(
        market_id="BTCUSDT",
        trade_id=3735683259,
        trade_ms=1723161255342,
        price=Decimal("61837.63"),
        quantity=Decimal("0.02"),
    )


def test_prices_are_the_text_that_was_sent_and_never_a_float() -> None:
    frame = read_frame(kline())
    assert isinstance(frame, KlineFrame)
    assert (str(frame.open), str(frame.volume)) == ("0.10000001", "12.50000000")


@pytest.mark.parametrize("sample", ["serverShutdown_raw.json", "serverShutdown_combined.json"])
def test_the_announcement_of_a_shutdown_is_understood(sample: str) -> None:
    assert isinstance(read_frame(reference_path(f"data/binance/ws-stream/{sample}").read_bytes()), Shutdown)


def test_answers_to_requests_say_whether_they_were_granted() -> None:
    assert read_frame('{"result":null,"id":3}') == Answer(request_id=3)
    refused = read_frame('{"code":2,"msg":"Invalid request: too many","id":4}')
    assert refused == Answer(request_id=4, error="2 Invalid request: too many")
    older = read_frame('{"error":{"code":2,"msg":"no"},"id":5}')
    assert isinstance(older, Answer)
    assert older.error


@pytest.mark.parametrize("text", ['{"e":"24hrMiniTicker","s":"X"}', '{"u":1,"s":"BTCUSDT","b":"1"}', "{}"])
def test_kinds_that_nobody_reads_are_passed_over(text: str) -> None:
    assert read_frame(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '"x"',
        kline(o=1.5),
        kline(o="abc"),
        kline(t="now"),
        kline(t=10**18),
        kline(x="true"),
        kline(o="1e999999999"),
        '{"e":"kline","E":1,"s":"BTCUSDT"}',
        '{"stream":"btcusdt@kline_1m","data":{"e":"kline"}}',
    ],
)
def test_what_cannot_be_a_frame_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(MalformedMessage, match="binance stream"):
        read_frame(text)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_whatever_end_in_anything_but_a_frame_or_a_refusal(data: bytes) -> None:
    try:
        read_frame(data)
    except MalformedMessage:
        return


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("estkidoxchlv"), inner, max_size=6),
    max_leaves=12,
)


@given(_JSON)
def test_no_json_whatever_breaks_the_reader(value: object) -> None:
    try:
        read_frame(json.dumps({"stream": "a@kline_1m", "data": value}))
    except MalformedMessage:
        return
