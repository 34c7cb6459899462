"""What the figures depend on, and the processes that they let compete."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.environment import Environment
from benchmarks.inputs import PROGRAMS, Skipped, run_program
from benchmarks.measure import Process

__all__ = ["METHODS", "Bench", "Figure", "centres_per_step", "sizes"]

METHODS = ("nearest", "assignment")


@dataclass(frozen=True)
class Bench:
    """What the figures depend on.

    Parameters
    ----------
    environment : Environment
        What is measured.
    cache : pathlib.Path
        Folder where input is kept.
    data : pathlib.Path
        Folder of the 2.5 degree series from which the 0.25 degree series are made.
    rounds : int
        How often each process runs.
    quick : bool
        Whether to measure on short input.
    """

    environment: Environment
    cache: Path
    data: Path
    rounds: int
    quick: bool

    @property
    def few_rounds(self) -> int:
        """How often what takes long runs."""
        return max(1, self.rounds // 2)

    def program(self, name: str, *arguments: str | Path) -> tuple[str, ...]:
        """The command that runs one of the programs."""
        return str(self.environment.python), str(PROGRAMS / name), *map(str, arguments)

    def values(self, name: str, *arguments: str) -> dict[str, Any]:
        """What one of the programs prints as JSON."""
        values: dict[str, Any] = json.loads(run_program(self.environment, name, *arguments).splitlines()[-1])
        return values

    def statement(self, statement: str) -> Process:
        """Python runs one statement."""
        return Process(statement, (str(self.environment.python), "-c", statement), f"python -c '{statement}'")

    def stormtracks(self, name: str, *arguments: str | Path, start: Process | None = None) -> Process:
        """The command that users type; input files are shown without their folders."""
        shown = [word.name if isinstance(word, Path) else word for word in arguments]
        command = (str(self.environment.stormtracks), *map(str, arguments))
        return Process(name, command, " ".join(["stormtracks", *shown]), start)

    def track(self, name: str, *arguments: str | Path) -> Process:
        """`stormtracks track`, on one core."""
        return self.stormtracks(name, "track", *arguments, start=self.imports).on(1)

    def run(self, name: str, campaign: Path, *, workers: int, start: Path | None = None) -> Process:
        """`stormtracks run`, on a core for each worker; `start` is another campaign, with next to nothing to do."""
        begin = None if start is None else self.run("start of a campaign", start, workers=workers)
        options = ("--out", "results", "--workers", str(workers), "--quiet")
        return self.stormtracks(name, "run", campaign, *options, start=begin).on(workers)

    @property
    def imports(self) -> Process:
        """All that `stormtracks track` imports, and no more."""
        name = "imports of stormtracks track"
        return Process(name, self.program("import_track.py"), name)

    def reading(self, variables: dict[str, Path]) -> Process:
        """The reference: netCDF4-python reads each variable from its file on one core, and that is all."""
        words = [word for name, path in variables.items() for word in (name, path)]
        shown = f"netCDF4-python reads {', '.join(variables)}"
        program = self.program("read_variables.py", *words)
        return Process("reading", program, shown, self.statement("import netCDF4")).on(1)

    def require(self, module: str, package: str) -> None:
        """See that a package is there to compare with.

        Raises
        ------
        Skipped
            If it is not.
        """
        find = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
        if subprocess.run([self.environment.python, "-I", "-c", find], check=False).returncode:
            raise Skipped(f"{package} is not installed there; --peers installs it")


Figure = Callable[[Bench], dict[str, Any]]


def centres_per_step(contest: dict[str, Any]) -> dict[str, Any]:
    """A contest in which each of ours that counts its centres tells how many there are at a time step."""
    for entry in contest["ours"].values():
        found = entry["found"]
        if "extrema" in found:
            entry["centres_per_step"] = round((found["extrema"] - found.get("merged", 0)) / found["time steps"])
    return contest


def sizes(*files: Path) -> dict[str, int]:
    """Bytes of each input file, by its name."""
    return {path.name: path.stat().st_size for path in files}
