"""The installed stormtracks that is measured: from a wheel of this checkout, or the one that is there already."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import BenchError, plain_environment

__all__ = ["ROOT", "Environment", "environment_of_wheel", "present_environment"]

ROOT = Path(__file__).resolve().parents[2]

_ROOMS = ("stormtracks", "cluster", "settings")


@dataclass(frozen=True)
class Environment:
    """Where the measured programs lie.

    Parameters
    ----------
    python, stormtracks : pathlib.Path
    origin : str
        How stormtracks came there: ``wheel`` or ``present``.
    """

    python: Path
    stormtracks: Path
    origin: str


def present_environment() -> Environment:
    """The stormtracks that is installed beside the running python.

    Raises
    ------
    BenchError
        If there is none.
    """
    python = Path(sys.executable)
    stormtracks = python.with_name("stormtracks")
    if not stormtracks.is_file():
        raise BenchError(f"there is no {stormtracks}; install stormtracks there, or leave out --here")
    return Environment(python, stormtracks, "present")


def environment_of_wheel(cache: Path, *, peers: bool = False) -> Environment:
    """An environment that holds a wheel of this checkout; made, or brought up to date, where it has to be.

    Parameters
    ----------
    cache : pathlib.Path
        Where it is kept.
    peers : bool
        Whether what is compared with belongs in it: the extra ``bench``. Otherwise it is there if it was before.

    Raises
    ------
    BenchError
        If the wheel cannot be built or installed.
    """
    home = cache / f"venv-{sys.version_info.major}.{sys.version_info.minor}"
    found = Environment(home / "bin" / "python", home / "bin" / "stormtracks", "wheel")
    stamp, wanted = home / "installed", _fingerprint() + (" and peers" if peers else "")
    if stamp.is_file() and stamp.read_text(encoding="utf-8").startswith(wanted) and found.stormtracks.is_file():
        return found
    print(f"installing a wheel of {ROOT} into {home} ...", file=sys.stderr)
    if not found.python.is_file():
        venv.create(home, clear=True, symlinks=True, with_pip=True)
    with tempfile.TemporaryDirectory(prefix="stormtracks-bench-") as folder:
        tree, wheels = Path(folder, "tree"), Path(folder, "wheels")
        _copy_checkout(tree)
        _pip(found.python, "wheel", "--no-deps", "--wheel-dir", str(wheels), str(tree))
        (wheel,) = wheels.glob("*.whl")
        _pip(found.python, "install", f"{wheel}[bench]" if peers else str(wheel))
        # The version may be that of what was there before, which pip then keeps.
        _pip(found.python, "install", "--no-deps", "--force-reinstall", str(wheel))
    stamp.write_text(wanted, encoding="utf-8")
    return found


def _pip(python: Path, *arguments: str) -> None:
    with tempfile.TemporaryDirectory(prefix="stormtracks-bench-") as folder:
        command = [str(python), "-m", "pip", *arguments]
        done = subprocess.run(command, cwd=folder, env=plain_environment(Path.home()), capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def _sources() -> Iterator[Path]:
    """The files of the checkout of which a wheel is made."""
    yield from (path for path in ROOT.iterdir() if path.is_file() and not path.name.startswith("."))
    for room in _ROOMS:
        yield from (path for path in (ROOT / room).rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _fingerprint() -> str:
    """sha256 of these files' names and contents."""
    sha = hashlib.sha256()
    for path in sorted(_sources()):
        sha.update(f"{path.relative_to(ROOT)}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return sha.hexdigest()


def _copy_checkout(tree: Path) -> None:
    """A copy to build in: a build leaves folders behind, and takes up what an older one left."""
    for room in _ROOMS:
        shutil.copytree(ROOT / room, tree / room, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for path in _sources():
        if path.parent == ROOT:
            shutil.copy(path, tree)
