"""An archive whose fields lie in memory: a layout like any other, for tests of what comes after reading."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stormtracks.blocks import Block, BlockReader
from stormtracks.grid import Grid
from stormtracks.inputs import Stamp
from stormtracks.reanalysis.archive import Archive, Quantity, Series
from stormtracks.settings.campaign import DataSettings
from stormtracks.times import TimeAxis


@dataclass(eq=False)
class MemorySeries:
    """Steps of one variable or of a pair of winds."""

    members: tuple[int, ...]
    grid: Grid
    times: TimeAxis
    quantities: tuple[Quantity, ...]
    fields: tuple[npt.NDArray[np.float32], ...]
    block_steps: int
    inputs: Mapping[str, Stamp] = field(default_factory=lambda: {"memory": Stamp(0, 0)})
    file_starts: tuple[int, ...] = ()

    def read(self, start: int, stop: int) -> tuple[npt.NDArray[np.float32], ...]:
        return tuple(field[:, start:stop] for field in self.fields)

    def close(self) -> None:
        pass


@dataclass(eq=False)
class MemoryArchive(Archive):
    """One member, or as many as the fields have along a first axis of four.

    `keep` limits the years there are, to make a neighbour absent.
    """

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
        return list(range(1, len(self._by_member()[0]) + 1))

    def has_year(self, year: int, member: int) -> bool:
        return member in self.members() and year in self.years()

    def passes(self, year: int, members: Sequence[int]) -> list[tuple[int, ...]]:
        return [tuple(members)]

    def open_year(self, year: int, members: Sequence[int]) -> Series:
        at = np.flatnonzero(self.times.years() == year)
        cut = slice(int(at[0]), int(at[-1]) + 1)
        fields = tuple(f[[member - 1 for member in members], cut] for f in self._by_member())
        return MemorySeries(tuple(members), self.grid, self.times[cut], self.quantities, fields, self.block_steps)

    def _by_member(self) -> list[npt.NDArray[np.float32]]:
        return [f if f.ndim == 4 else f[np.newaxis] for f in self.fields]


def blocks_of(
    archive: Archive,
    data: DataSettings,
    years: Iterable[int],
    *,
    members: Sequence[int] = (1,),
    warm_up: int = 0,
    cores: int = 1,
) -> Generator[Block, None, None]:
    """The blocks of one year after the other."""
    reader = BlockReader(archive, data, warm_up=warm_up, cores=cores)
    for year in years:
        yield from reader.read(year, members)
