"""Faults files: what they may say, and what a person reads who wrote one wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paper_exchange.faults.board import FaultBoard, Moment
from paper_exchange.faults.plan import KINDS, parse_fault_plan, read_fault_plan
from shared.errors import ConfigError

pytestmark = pytest.mark.thorough


def board(*faults: dict[str, Any], seed: int = 1) -> FaultBoard:
    return FaultBoard(parse_fault_plan({"seed": seed, "faults": list(faults)}, "test"))


def hits(found: FaultBoard, candles: range, stream: str = "btcusdt@kline_1m") -> list[int]:
    return [n for n in candles if found.of_stream(stream, is_closed=True, moment=Moment(n, n / 10))]


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_yaml_and_json_say_the_same(tmp_path: Path, suffix: str) -> None:
    text = {
        ".yaml": "seed: 7\nfaults:\n- {kind: drop, candle: 3}\n",
        ".json": '{"seed": 7, "faults": [{"kind": "drop", "candle": 3}]}',
    }
    path = tmp_path / f"faults{suffix}"
    path.write_text(text[suffix])
    plan = read_fault_plan(path)
    assert (plan.seed, plan.faults[0].kind, plan.faults[0]["candle"], plan.faults[0]["code"]) == (7, "drop", 3, 1006)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("drop", "has no list `faults`"),
        ({"fault": []}, "has no list `faults`"),
        ({"faults": [], "sed": 1}, "'sed' is unknown"),
        ({"faults": [], "seed": "x"}, "seed: expected a whole number, was 'x'"),
        ({"faults": ["drop"]}, "fault 1: expected settings, was 'drop'"),
        ({"faults": [{"kind": "dropp"}]}, "kind 'dropp' is unknown; did you mean 'drop'?"),
        ({"faults": [{"candle": 1}]}, "kind None is unknown"),
        ({"faults": [{"kind": "drop", "candel": 1}]}, "(drop): 'candel' is unknown; did you mean 'candle'?"),
        ({"faults": [{"kind": "drop", "chance": 2}]}, "chance: expected 0 to 1, was 2"),
        ({"faults": [{"kind": "drop", "candle": "5"}]}, "candle: expected a whole number, was '5'"),
        ({"faults": [{"kind": "error", "status": 404}]}, "status: expected 500 to 599, was 404"),
        ({"faults": [{"kind": "slow", "delay_seconds": True}]}, "delay_seconds: expected a number, was True"),
        ({"faults": [{"kind": "malformed", "form": "odd"}]}, "form: expected one of any, cut, nan"),
        ({"faults": [{"kind": "refuse", "cut": 1}]}, "cut: expected true or false, was 1"),
        ({"faults": [{"kind": "drop", "name": "a"}, {"kind": "slow", "name": "a"}]}, "two faults are named 'a'"),
    ],
)
def test_a_wrong_plan_is_refused_with_the_place_and_the_remedy(document: Any, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_fault_plan(document, "f.yaml")
    assert words in str(refused.value)
    assert str(refused.value).startswith("faults: f.yaml")


@pytest.mark.parametrize(
    ("content", "words"), [(b"faults: [", "neither YAML nor JSON"), (b"\xff\xfe\x00", "neither YAML")]
)
def test_a_file_that_is_no_yaml_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "faults.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        read_fault_plan(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_fault_plan(tmp_path / "absent.yaml")


def test_a_fault_happens_at_its_candle_for_so_many_and_again_after_every() -> None:
    assert hits(board({"kind": "silence", "candle": 5}), range(1, 30)) == [5]
    assert hits(board({"kind": "silence", "candle": 5, "candles": 3}), range(1, 30)) == [5, 6, 7]
    assert hits(board({"kind": "silence", "candle": 5, "every": 10}), range(1, 30)) == [5, 15, 25]
    assert hits(board({"kind": "silence", "every": 10}), range(1, 30)) == [10, 20]
    assert hits(board({"kind": "silence", "every": 4, "times": 2, "skip": 1}), range(1, 30)) == [8, 12]


def test_a_fault_happens_within_its_span_of_time() -> None:
    assert hits(board({"kind": "silence", "after_seconds": 1.0, "seconds": 0.35}), range(1, 30)) == [10, 11, 12, 13]


def test_chance_is_the_seed_s_and_nobody_else_s() -> None:
    one = hits(board({"kind": "silence", "chance": 0.2}, seed=1), range(1000))
    again = hits(board({"kind": "silence", "chance": 0.2}, seed=1), range(1000))
    other = hits(board({"kind": "silence", "chance": 0.2}, seed=2), range(1000))
    assert one == again != other
    assert 150 < len(one) < 250


def test_faults_choose_their_streams_by_pattern_and_their_frames_by_kind() -> None:
    found = board({"kind": "drop", "streams": "eth*@kline_1m"}, {"kind": "early_close"})
    moment = Moment(1, 0.0)
    assert found.of_stream("btcusdt@kline_1m", is_closed=True, moment=moment) == []
    assert [f.kind for f in found.of_stream("ethusdt@kline_1m", is_closed=True, moment=moment)] == ["drop"]
    assert [f.kind for f in found.of_stream("btcusdt@kline_1m", is_closed=False, moment=moment)] == ["early_close"]
    assert [(row["name"], row["fired"]) for row in found.report()] == [("drop-1", 1), ("early_close-2", 1)]


def test_every_kind_is_understood_with_its_defaults() -> None:
    plan = parse_fault_plan([{"kind": kind} for kind in KINDS], "test")
    assert [fault.kind for fault in plan.faults] == list(KINDS)
