"""Readers: the fields of an ensemble on disk, whatever their layout, as blocks of one member in SI units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stormtracks.reanalysis.archive import Archive
    from stormtracks.settings.campaign import DataSettings

__all__ = ["open_archive", "open_files"]


def open_archive(data: DataSettings) -> Archive:
    """The archive that the settings name.

    Parameters
    ----------
    data : DataSettings
        Layout, root, variables and level.

    Raises
    ------
    InputError
        If there is no such folder, or, for `cf`, no file in it.
    """
    # Late, so that the package itself costs nothing to import.
    if data.layout == "c20":
        from stormtracks.reanalysis.c20 import C20Archive

        return C20Archive(data)
    if data.layout == "c20v3":
        from stormtracks.reanalysis.c20v3 import C20v3Archive

        return C20v3Archive(data)
    from stormtracks.reanalysis.cf import CFArchive

    return CFArchive(data)


def open_files(files: Sequence[Path], data: DataSettings) -> Archive:
    """CF NetCDF files, in any order, as one archive.

    Parameters
    ----------
    files : sequence of pathlib.Path
        The files.
    data : DataSettings
        Variables and level; root and pattern are not looked at.

    Raises
    ------
    InputError
        If no file is given.
    """
    from stormtracks.reanalysis.cf import CFArchive

    return CFArchive(data, files=files)
