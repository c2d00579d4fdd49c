"""The documents say what they promise to say, and name only what exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DECISIONS = ROOT / "docs" / "decisions"
SECTIONS = ["Context", "Decision", "Consequences", "Alternatives", "Enforced by"]
PAGE_LINES_MAX = 60
PATH_IN_TEXT = re.compile(r"`([\w.-]+(?:/[\w.*-]+)+/?)`")


def records() -> list[Path]:
    return sorted(DECISIONS.glob("[0-9]*.md"))


def sections_of(text: str) -> dict[str, str]:
    """Return what stands under each second-level heading."""
    parts = re.split(r"^## (.+)$", text, flags=re.M)
    return dict(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True))


def missing_paths(path: Path) -> list[str]:
    """Return the repository paths that a document names and that are not there."""
    named = {match for match in PATH_IN_TEXT.findall(path.read_text()) if (ROOT / match.split("/")[0]).is_dir()}
    return sorted(name for name in named if not list(ROOT.glob(name.rstrip("/"))))


def services() -> list[Path]:
    return sorted(path.parent for path in ROOT.glob("services/*/pyproject.toml"))


@pytest.mark.parametrize("path", records(), ids=lambda path: path.stem)
def test_a_decision_is_one_page_with_its_five_sections(path: Path) -> None:
    text = path.read_text()
    found = sections_of(text)
    assert list(found) == SECTIONS
    assert all(found.values()), "an empty section"
    assert len(text.splitlines()) <= PAGE_LINES_MAX
    assert re.match(r"# \d{4} \S", text)


@pytest.mark.parametrize("path", records(), ids=lambda path: path.stem)
def test_a_decision_can_be_quoted_in_one_line(path: Path) -> None:
    found = sections_of(path.read_text())
    assert [line[:2] for line in found["Decision"].splitlines()] == ["> "]
    sentences = re.findall(r"[.!?](?:\s|$)", re.sub(r"\s\(.*?\)", "", found["Context"]))
    assert 2 <= len(sentences) <= 4, f"context in 2 to 4 sentences, was {len(sentences)}"


def test_decisions_are_numbered_without_a_gap_and_all_in_the_index() -> None:
    assert [int(path.name[:4]) for path in records()] == list(range(1, len(records()) + 1))
    index = (DECISIONS / "README.md").read_text()
    assert [path.name for path in records() if f"]({path.name})" not in index] == []


@pytest.mark.parametrize(
    "path",
    [
        *records(),
        ROOT / "ARCHITECTURE.md",
        ROOT / "docs" / "glossary.md",
        *(folder / "README.md" for folder in services()),
    ],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_a_document_names_only_paths_that_exist(path: Path) -> None:
    assert missing_paths(path) == []


def test_the_architecture_has_a_line_for_every_folder_and_the_nevers() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name[0] not in "._" and path.name != "var"]
    folders += services()
    assert [path.name for path in folders if f"`{path.relative_to(ROOT).as_posix()}/`" not in text] == []
    assert "## Never" in text


@pytest.mark.parametrize("folder", services(), ids=lambda folder: folder.name)
def test_a_service_says_what_it_takes_gives_and_bounds(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    assert [word for word in ("Consumes", "Publishes", "Tables", "Limits") if f"**{word}**" not in text] == []


def test_the_changelog_puts_trading_behaviour_first() -> None:
    headings = re.findall(r"^##+ (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[:2] == ["[Unreleased]", "Trading behaviour"]


def test_the_glossary_explains_each_word_once_and_in_order() -> None:
    words = re.findall(r"^- \*\*(.+?)\*\*", (ROOT / "docs" / "glossary.md").read_text(), re.M)
    assert len(words) >= 40
    assert len(words) == len(set(words))
