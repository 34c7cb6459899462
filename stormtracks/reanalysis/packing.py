"""From stored numbers to a field: packing, missing values and units in one go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import netCDF4
import numpy as np
import numpy.typing as npt

from stormtracks.errors import InputError
from stormtracks.reanalysis.netcdf import Variable

__all__ = ["Packing", "packing_of"]

Field = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Packing:
    """How a variable's stored numbers become a field in SI units.

    Parameters
    ----------
    dtype : numpy.dtype
        Type in which the stored numbers are to be understood.
    missing : tuple
        Stored numbers that stand for a missing value, of type `dtype`.
    scale, offset : float
        field = stored x scale + offset; the conversion of units is part of both.
    """

    dtype: np.dtype[Any]
    missing: tuple[np.generic, ...] = ()
    scale: float = 1.0
    offset: float = 0.0

    def unpack(self, stored: npt.NDArray[Any]) -> Field:
        """The field in float32, of the shape of `stored`, which may be overwritten; NaN where missing.

        Where nothing is packed or missing, a float32 array comes back as it is, uncopied.
        """
        if stored.dtype != self.dtype and stored.dtype.itemsize == self.dtype.itemsize:
            stored = stored.view(self.dtype.newbyteorder(stored.dtype.byteorder))
        absent = self._absent(stored)
        if absent is not None:
            stored[absent] = 0  # a fill value may overflow float32
        if self.scale == 1.0 and self.offset == 0.0:
            field = stored.astype(np.float32, copy=False)
        else:
            field = np.empty(stored.shape, dtype=np.float32)
            np.multiply(stored, self.scale, out=field, dtype=np.float64, casting="unsafe")
            if self.offset != 0.0:
                np.add(field, self.offset, out=field, dtype=np.float64, casting="unsafe")
        if absent is not None:
            field[absent] = np.nan
        return field

    def _absent(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
        found: npt.NDArray[np.bool_] | None = None
        for value in self.missing:
            absent = stored == value
            if absent.any():
                found = absent if found is None else found | absent
        return found


def packing_of(variable: Variable, *, factor: float, file: str) -> Packing:
    """The packing of a variable, from ``scale_factor``, ``add_offset``, ``_FillValue`` and ``missing_value``.

    Parameters
    ----------
    variable : Variable
        A numeric variable. Steps that were never written hold the default fill value of its type, which counts
        as missing where the file names no other. ``valid_range`` and its like are not looked at.
    factor : float
        SI value divided by unpacked value.
    file : str
        For the message.

    Raises
    ------
    InputError
        If the variable or one of these attributes is not numeric.
    """
    dtype = np.dtype(variable.dtype)
    if dtype.kind not in "iuf":
        raise InputError(f"variable {variable.name!r} in {file} does not hold numbers", remedy="name another variable")
    if str(getattr(variable, "_Unsigned", "")).lower() == "true" and dtype.kind == "i":
        dtype = np.dtype(f"u{dtype.itemsize}")
    scale, offset = (
        float(_numbers(variable, name, default, file)[0]) for name, default in (("scale_factor", 1), ("add_offset", 0))
    )
    fill: Any = []
    if dtype.itemsize > 1:  # single bytes have no default
        fill = netCDF4.default_fillvals[np.dtype(variable.dtype).str[1:]]
    candidates = [*_numbers(variable, "_FillValue", fill, file), *_numbers(variable, "missing_value", [], file)]
    missing = {stored.item(): stored for value in candidates if (stored := _as_stored(value, dtype)) is not None}
    return Packing(dtype, tuple(missing.values()), scale * factor, offset * factor)


def _numbers(variable: Variable, name: str, default: Any, file: str) -> npt.NDArray[Any]:
    values = np.ravel(getattr(variable, name, default))
    if values.dtype.kind not in "iuf":
        raise InputError(
            f"attribute {name!r} of variable {variable.name!r} in {file} is {values.tolist()!r}, not a number",
            remedy=f"set it to a number or delete it: ncatted -a {name},{variable.name},d,, {file}",
        )
    return values


def _as_stored(value: Any, dtype: np.dtype[Any]) -> Any:
    """A missing value as the variable's type holds it; None if it cannot, so that no stored number equals it."""
    number = value.item()
    if not np.isfinite(number):
        return None  # NaN is missing as it stands
    if dtype.kind == "f":
        return dtype.type(number) if abs(number) <= np.finfo(dtype).max else None
    if dtype.itemsize == value.dtype.itemsize and value.dtype.kind in "iu":
        return value.view(dtype)
    limits = np.iinfo(dtype)
    return dtype.type(number) if number == int(number) and limits.min <= number <= limits.max else None
