"""Opening NetCDF files, and what the C library says when it cannot, as errors that name the file and the remedy."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import netCDF4

from stormtracks.errors import InputError
from stormtracks.inputs import opening
from stormtracks.reanalysis.classic import expected_length

__all__ = ["Variable", "attribute", "open_netcdf", "reading"]

Variable: TypeAlias = "netCDF4.Variable[Any]"

_AT_A_TIME = 2**20  # bytes

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
        If the file is absent, may not be read, is no NetCDF file, or is cut short; not permanent if the disk or the
        network is at fault.
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
        _probe(path)
        raise InputError(f"{what} cannot be read from {path}: {error}", remedy=_DAMAGED) from error


def _probe(path: Path) -> None:
    """Read a file from end to end: the C library does not tell a fault of the disk from a damaged file.

    Raises
    ------
    InputError
        If the system cannot read it.
    """
    with opening(path), path.open("rb", buffering=0) as stream:
        while stream.read(_AT_A_TIME):
            pass


def _open(path: Path) -> netCDF4.Dataset:
    with opening(path), path.open("rb") as stream:
        start = stream.read(4)
    try:
        return netCDF4.Dataset(path)
    except (OSError, RuntimeError) as error:
        _probe(path)
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
        with opening(path):
            expected, length = expected_length(path), path.stat().st_size
    except (ValueError, LookupError, struct.error) as error:
        raise InputError(f"the header of {path} cannot be read", remedy=_DAMAGED) from error
    if length < expected:
        raise InputError(f"{path} is cut short: it has {length} bytes and should have {expected}", remedy=_DAMAGED)
