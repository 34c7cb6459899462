"""An archive whose fields lie in memory: a layout like any other, for tests of what comes after reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stormtracks.grid import Grid
from stormtracks.inputs import Stamp
from stormtracks.reanalysis.archive import Archive, Quantity, Series
from stormtracks.times import TimeAxis


@dataclass(eq=False)
class MemorySeries:
    """Steps of one variable or of a pair of winds."""

    grid: Grid
    times: TimeAxis
    quantities: tuple[Quantity, ...]
    fields: tuple[npt.NDArray[np.float32], ...]
    block_steps: int
    inputs: Mapping[str, Stamp] = field(default_factory=lambda: {"memory": Stamp(0, 0)})
    file_starts: tuple[int, ...] = ()

    def read(self, start: int, stop: int) -> tuple[npt.NDArray[np.float32], ...]:
        return tuple(field[start:stop] for field in self.fields)

    def close(self) -> None:
        pass


@dataclass(eq=False)
class MemoryArchive(Archive):
    """One member; `keep` limits the years there are, to make a neighbour absent."""

    grid: Grid
    times: TimeAxis
    quantities: tuple[Quantity, ...]
    fields: tuple[npt.NDArray[np.float32], ...]
    block_steps: int = 1000
    keep: frozenset[int] | None = None

    def years(self) -> list[int]:
        found = {int(year) for year in self.times.years()}
        return sorted(found if self.keep is None else found & self.keep)

    def members(self) -> list[int]:
        return [1]

    def has_year(self, year: int, member: int) -> bool:
        return member == 1 and year in self.years()

    def open_year(self, year: int, member: int) -> Series:
        at = np.flatnonzero(self.times.years() == year)
        cut = slice(int(at[0]), int(at[-1]) + 1)
        return MemorySeries(
            self.grid, self.times[cut], self.quantities, tuple(f[cut] for f in self.fields), self.block_steps
        )
