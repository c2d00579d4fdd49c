"""Brings `.venv` to what `requirements.lock` and the members' pyproject files say; quick when nothing changed.

Runs on any Python >= 3.12 with its standard library alone. Every download is checked against a hash of
the lock; where packages come from is pip's own configuration, which is handed on to uv.
"""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
UV = VENV / "bin" / "uv"
STAMP = VENV / ".installed"
LOCK = ROOT / "requirements.lock"
MEMBERS = ("shared", "services/*", "cli")
PYTHON_MIN = (3, 12)
# pip's key, the variable by which uv knows the same thing, and what stands between several values
PIP_KEYS = (
    ("index-url", "UV_DEFAULT_INDEX", " "),
    ("extra-index-url", "UV_INDEX", " "),
    ("find-links", "UV_FIND_LINKS", ","),
    ("trusted-host", "UV_INSECURE_HOST", " "),
    ("cert", "SSL_CERT_FILE", " "),
    ("proxy", "ALL_PROXY", " "),
    ("timeout", "UV_HTTP_TIMEOUT", " "),
)


class SetupError(Exception):
    """Something that a person has to mend, with the words that say how."""


def member_folders() -> list[Path]:
    """Return every folder of the workspace that has a pyproject file, in a fixed order."""
    return [path.parent for pattern in MEMBERS for path in sorted(ROOT.glob(f"{pattern}/pyproject.toml"))]


def digest_of_inputs() -> str:
    """Return the digest of everything that decides what is installed, and where."""
    digest = hashlib.sha256(str(ROOT).encode())
    for path in (LOCK, Path(__file__), *(folder / "pyproject.toml" for folder in member_folders())):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def locked_lines(name: str) -> str:
    """Return the lines of one package in the lock: its pinned version and its hashes."""
    lines = LOCK.read_text().splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith(f"{name}==")), None)
    if start is None:
        raise SetupError(f"{LOCK.name}: {name} is not pinned; run `make lock`")
    end = next((i for i in range(start + 1, len(lines)) if not lines[i].startswith(" ")), len(lines))
    return "\n".join(line for line in lines[start:end] if not line.lstrip().startswith("#")) + "\n"


def answers(command: Sequence[object]) -> bool:
    """Say whether a command can be started and ends well."""
    try:
        return subprocess.run([str(part) for part in command], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def run(what: str, command: Sequence[object], **options: object) -> None:
    """Run one step, its own output on the terminal; a failure names the step."""
    print(f"  {what}", flush=True)
    ended = subprocess.run([str(part) for part in command], check=False, cwd=ROOT, **options)  # type: ignore[call-overload]
    if ended.returncode:
        raise SetupError(f"{what}: failed (its message is above)")


def venv_is_usable() -> bool:
    """Say whether `.venv` holds a Python that runs and is new enough."""
    return answers((PYTHON, "-c", f"import sys; sys.exit(sys.version_info < {PYTHON_MIN})"))


def make_venv() -> None:
    """Create `.venv` with the Python that runs this file, with pip inside or beside it."""
    if VENV.exists():
        shutil.rmtree(VENV)
    has_ensurepip = answers((sys.executable, "-c", "import ensurepip, venv"))
    if not has_ensurepip and not (answers((sys.executable, "-m", "pip", "--version"))):
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise SetupError(
            f"{sys.executable}: this Python can make no virtual environment with pip (no `ensurepip`, no `pip`); "
            f"on Debian and Ubuntu: apt-get install python{version}-venv, then run `make setup` again"
        )
    command = [sys.executable, "-m", "venv", *([] if has_ensurepip else ["--without-pip"]), VENV]
    run(f"virtual environment of {sys.executable}", command)


def pip_command() -> list[str]:
    """Return the pip that can install into `.venv`: its own, else the one beside this Python."""
    if answers((PYTHON, "-m", "pip", "--version")):
        return [str(PYTHON), "-m", "pip"]
    if answers((PYTHON, "-m", "ensurepip")):
        return [str(PYTHON), "-m", "pip"]
    if answers((sys.executable, "-m", "pip", "--version")):
        return [sys.executable, "-m", "pip", "--python", str(PYTHON)]
    raise SetupError(f"{VENV}: neither pip nor uv in it; remove the folder and run `make setup` again")


def pip_settings(pip: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the key and value of each line of `pip config list`, the weightier scopes later."""
    listed = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=False)
    rows = [line.split("=", 1) for line in listed.stdout.splitlines() if "=" in line]
    for scopes in (("global",), ("install", "download"), (":env:",)):
        for name, value in rows:
            scope, _, key = name.rpartition(".")
            if scope in scopes:
                yield key, str(ast.literal_eval(value))


def is_absent_folder(source: str) -> bool:
    """Say whether a source is a path on this machine that is not there: pip passes over it, uv would stop."""
    path = source.removeprefix("file://")
    return path.startswith("/") and not Path(path).exists()


def environment_for_uv(environment: Mapping[str, str], settings: Iterator[tuple[str, str]]) -> dict[str, str]:
    """Return the environment in which uv looks where pip would look; what is set for uv itself wins."""
    found = dict(settings)
    result = dict(environment)
    for key, variable, separator in PIP_KEYS:
        values = [value for value in found.get(key, "").split() if not is_absent_folder(value)]
        if values:
            result.setdefault(variable, separator.join(values))
    # several sources count as one, as they do for pip: the hashes decide what may be installed
    result.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    result.setdefault("UV_SYSTEM_CERTS", "true")
    result.setdefault("UV_PYTHON_DOWNLOADS", "never")
    result.pop("VIRTUAL_ENV", None)
    return result


def install_uv(pip: Sequence[str]) -> None:
    """Install the locked uv into `.venv`, checked against the hashes of the lock."""
    pinned = VENV / "uv.requirements"
    pinned.write_text(locked_lines("uv"))
    command = [*pip, "install", "-qq", "--disable-pip-version-check", "--no-deps", "--require-hashes", "-r", pinned]
    run("uv, as locked", command)
    pinned.unlink()


def install() -> None:
    """Make `.venv` hold exactly the locked packages and the members of the workspace."""
    if not venv_is_usable():
        make_venv()
    pip = pip_command() if not answers((UV, "--version")) else []
    if pip:
        install_uv(pip)
    where = environment_for_uv(os.environ, pip_settings(pip or [sys.executable, "-m", "pip"]))
    uv_pip = (UV, "pip")
    to_venv = ("--python", PYTHON, "--quiet")
    # where Python may write no byte code, every start would compile every package anew: seconds each time
    bytecode = ("--compile-bytecode",) if where.get("PYTHONDONTWRITEBYTECODE") else ()
    sync = (*uv_pip, "sync", *to_venv, *bytecode, "--require-hashes", LOCK)
    run("packages of requirements.lock", sync, env=where)
    editable = [part for folder in member_folders() for part in ("-e", folder)]
    members = (*uv_pip, "install", *to_venv, "--no-deps", "--no-build-isolation", *editable)
    run("members of the workspace", members, env=where)


def run_uv(arguments: Sequence[str]) -> int:
    """Run the locked uv with pip's main index; what this machine has beside it must not shape a lock."""
    settings = pip_settings([sys.executable, "-m", "pip"])
    main_index = ((key, value) for key, value in settings if key not in {"extra-index-url", "find-links"})
    where = environment_for_uv(os.environ, main_index)
    where["UV_INDEX_STRATEGY"] = "first-index"
    return subprocess.run([UV, *arguments], cwd=ROOT, env=where, check=False).returncode


def main() -> int:
    """Install unless the stamp says that nothing changed; `uv ...` runs the locked uv instead."""
    if sys.version_info < PYTHON_MIN:
        print(f"setup: Python 3.12 or newer is needed, this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    if sys.argv[1:2] == ["uv"]:
        return run_uv(sys.argv[2:])
    wanted = digest_of_inputs()
    try:
        if not (STAMP.is_file() and STAMP.read_text() == wanted and venv_is_usable()):
            print("setup: installing into .venv (a minute or two the first time)", flush=True)
            install()
            STAMP.write_text(wanted)
            print("setup: done", flush=True)
        STAMP.touch()
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
