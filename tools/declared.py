"""Checks that each member of the workspace declares what it imports, and imports what it declares."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MEMBERS = ("shared", "services/*", "cli")
# used by name alone: database drivers by their URL, a parser by the Redis client, a compiler by generated modules
USED_BY_NAME = ("aiosqlite", "asyncpg", "hiredis", "numba")


def modules_by_distribution() -> dict[Path, tuple[str, list[str]]]:
    """Return, for each member's folder, its distribution and the modules it ships."""
    found = {}
    for path in (path for pattern in MEMBERS for path in sorted(ROOT.glob(f"{pattern}/pyproject.toml"))):
        project = tomllib.loads(path.read_text())
        packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
        found[path.parent] = (project["project"]["name"], [Path(package).name for package in packages])
    return found


def main() -> int:
    """Run deptry in every member; end with 1 when one of them is wrong."""
    members = modules_by_distribution()
    modules = ",".join(f"{name}={'|'.join(packages)}" for name, packages in members.values())
    wrong = False
    for folder, (_, packages) in members.items():
        command = [sys.executable, "-m", "deptry", ".", "--no-ansi", "--package-module-name-map", modules]
        command += [option for package in packages for option in ("--known-first-party", package)]
        command += ["--per-rule-ignores", f"DEP002={'|'.join(USED_BY_NAME)}"]
        # what only tests use is declared once, in the workspace's `dev` group
        command += ["--extend-exclude", ".*/testing/"]
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if ended.returncode:
            wrong = True
            print(f"{folder.relative_to(ROOT)}:\n{ended.stdout}{ended.stderr}")
    print("declared dependencies: differ from what is imported" if wrong else "declared dependencies: as imported")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
