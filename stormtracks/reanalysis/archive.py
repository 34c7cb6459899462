"""What every layout offers: members and years of an archive, and the fields of some members as blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stormtracks.grid import Grid
from stormtracks.inputs import Stamp
from stormtracks.times import TimeAxis

__all__ = ["Archive", "Quantity", "Series"]

Field = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Quantity:
    """What a variable is, in CF terms.

    Parameters
    ----------
    name : str
        The variable's name in the file.
    standard_name : str
        CF standard name; empty if the file gives none and its name is no common alias.
    units : str
        Units of what `Series.read` returns: SI (``Pa``, ``m s-1``, ``s-1``) where the standard name is known,
        else as the file has them.
    """

    name: str
    standard_name: str
    units: str


class Series(Protocol):
    """The fields of some members over one stretch of time, all on one grid; opened by an `Archive`."""

    members: tuple[int, ...]
    grid: Grid
    times: TimeAxis
    quantities: tuple[Quantity, ...]
    inputs: Mapping[str, Stamp]
    """Names of the files behind it, relative to the data root, sorted, each with its stamp."""
    file_starts: tuple[int, ...]
    """Steps at which another file begins: a gap in time there lies between files, not inside one."""
    block_steps: int
    """Time steps per block that read whole chunks and stay within some tens of MB, for all members together."""

    def read(self, start: int, stop: int) -> tuple[Field, ...]:
        """Steps `start` to `stop`: per quantity one float32 array (members, stop - start, nlat, nlon).

        In SI units, NaN if missing.
        """

    def close(self) -> None:
        """Close the files."""


class Archive(ABC):
    """Fields of an ensemble on disk, in one layout."""

    @abstractmethod
    def years(self) -> list[int]:
        """The calendar years for which there are data, ascending."""

    @abstractmethod
    def members(self) -> list[int]:
        """The ensemble members, as the data number them, ascending; 1 alone where the data know none."""

    @abstractmethod
    def has_year(self, year: int, member: int) -> bool:
        """Whether there are data of this member in this calendar year."""

    @abstractmethod
    def passes(self, year: int, members: Sequence[int]) -> list[tuple[int, ...]]:
        """Members that have this calendar year, in groups of which each is best read in one pass over the data.

        Those lie together whose fields are in the same chunks of a file, as far as memory allows.

        Raises
        ------
        InputError
            If the files of the year cannot be used.
        """

    @abstractmethod
    def open_year(self, year: int, members: Sequence[int]) -> Series:
        """The steps of one calendar year of members of one group of `passes`, or of some of these.

        Raises
        ------
        InputError
            If a file, variable, level or member is missing, unreadable, or in other units than it should be.
        """
