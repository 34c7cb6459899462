"""Opening NetCDF files, and what the C library says when it cannot, as errors that name the file and the remedy."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import netCDF4

from stormtracks.errors import InputError
from stormtracks.reanalysis.classic import expected_length

__all__ = ["Variable", "attribute", "open_netcdf", "opening", "reading"]

Variable: TypeAlias = "netCDF4.Variable[Any]"

_DAMAGED = "the file is damaged or cut short: compare its size with the original and fetch it again"


def attribute(variable: Variable, name: str) -> str:
    """A text attribute, stripped; empty if there is none."""
    return str(getattr(variable, name, "")).strip()


@contextmanager
def open_netcdf(path: Path) -> Iterator[netCDF4.Dataset]:
    """A NetCDF file, closed on leaving.

    Raises
    ------
    InputError
        If the file is absent, may not be read, is no NetCDF file, or is cut short.
    """
    dataset = _open(path)
    try:
        _check_length(path, dataset)
        yield dataset
    finally:
        dataset.close()


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn what the C library raises inside into an `InputError` that names the file and what was read."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise InputError(f"{what} cannot be read from {path}: {error}", remedy=_DAMAGED) from error


@contextmanager
def opening(path: Path) -> Iterator[None]:
    """Turn what the file system says of an absent or forbidden file into an `InputError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}", remedy="check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder, not a file", remedy="give the NetCDF files in it") from error
    except PermissionError as error:
        raise InputError(f"{path} may not be read", remedy="grant yourself the right to read it") from error


def _open(path: Path) -> netCDF4.Dataset:
    with opening(path), path.open("rb") as stream:
        start = stream.read(4)
    try:
        return netCDF4.Dataset(path)
    except (OSError, RuntimeError) as error:
        if start in (b"\x89HDF", b"CDF\1", b"CDF\2", b"CDF\5"):
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{path} cannot be opened: {reason}", remedy=_DAMAGED) from error
        raise InputError(
            f"{path} is not a NetCDF file", remedy="give NetCDF files, or convert: cdo -f nc4 copy IN OUT.nc"
        ) from error


def _check_length(path: Path, dataset: netCDF4.Dataset) -> None:
    # HDF5 checks the length of its files itself; the classic format reads zeros past the end.
    if not dataset.data_model.startswith("NETCDF3"):
        return
    try:
        expected = expected_length(path)
    except (ValueError, LookupError, struct.error) as error:
        raise InputError(f"the header of {path} cannot be read", remedy=_DAMAGED) from error
    length = path.stat().st_size
    if length < expected:
        raise InputError(f"{path} is cut short: it has {length} bytes and should have {expected}", remedy=_DAMAGED)
