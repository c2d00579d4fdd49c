"""Prints the part of `requirements.lock` that some packages need: pins and hashes, for `pip install --require-hashes`.

An image needs what the members import and not what their tests do; the lock says of each package who asked for it.
    python tools/locked_subset.py members > runtime.lock
    python tools/locked_subset.py hatchling > build.lock
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"
MEMBERS = "members"
MEMBER_PREFIX = "trading-"
PIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==\S+")
ASKER = re.compile(r"^\s+#(?: via)?\s+(?P<name>\S+)$", re.M)


def blocks_of(lock: str) -> dict[str, str]:
    """Return each package's lines: pin, hashes, and who asked for it."""
    starts = list(re.finditer(rf"^{PIN.pattern}", lock, re.M))
    ends = [match.start() for match in starts[1:]] + [len(lock)]
    return {match["name"]: lock[match.start() : end] for match, end in zip(starts, ends, strict=True)}


def askers_of(block: str) -> set[str]:
    """Return who asked for a package; a group of the workspace reads `trading-platform:dev` and is no package."""
    return {name for name in ASKER.findall(block) if name != "via"}


def is_root(name: str, roots: Sequence[str]) -> bool:
    """Return whether what `name` asked for is wanted."""
    return name in roots or (MEMBERS in roots and name.startswith(MEMBER_PREFIX) and ":" not in name)


def needed(askers: Mapping[str, set[str]], roots: Sequence[str]) -> set[str]:
    """Return every package that the roots need, directly or through others, and the roots that are packages."""
    found = {name for name in roots if name in askers}
    while True:
        more = {
            name
            for name, asked_by in askers.items()
            if name not in found and any(asker in found or is_root(asker, roots) for asker in asked_by)
        }
        if not more:
            return found
        found |= more


def main(roots: Sequence[str]) -> int:
    """Print the subset; an unknown package is an error."""
    blocks = blocks_of(LOCK.read_text())
    unknown = [name for name in roots if name != MEMBERS and name not in blocks]
    if unknown or not roots:
        print(f"locked_subset: name packages of {LOCK.name}, or `{MEMBERS}`; not there: {unknown}", file=sys.stderr)
        return 2
    chosen = needed({name: askers_of(block) for name, block in blocks.items()}, roots)
    sys.stdout.write("".join(blocks[name] for name in sorted(chosen)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
