"""The one track container: flat records, contiguous by trajectory; xarray and CF ragged NetCDF in and out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stormtracks.reanalysis.archive import Quantity

__all__ = ["Tracks"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Tracks:
    """Trajectories of storms as a contiguous ragged array.

    Records of one trajectory stand together, in order of time; `row_size` says how many each has.

    Parameters
    ----------
    row_size : shape (n_tracks,), int64
    track_id : shape (n_tracks,), int64
        1, 2, ... within one year and member.
    year, member : shape (n_tracks,), int64
        Year that publishes the track (of its first point's season), and ensemble member.
    starts_cut, ends_cut : shape (n_tracks,), bool
        Whether the data, the region or a gap ended the track there, not the storm.
    time : shape (n_records,), int64
        Seconds since 1970-01-01 00:00:00 in `calendar`.
    lon, lat : shape (n_records,), float64
        Degrees east in [0, 360), degrees north; multiples of 1e-4 degrees.
    value : shape (n_records,), float64
        The tracked field at the centre, a multiple of a float32's precision.
    quantity : Quantity
        What `value` is.
    calendar : str
        CF calendar.
    attributes : dict
        Provenance: settings hash, input names, code version, counts. Strings, ints and floats only.
    """

    row_size: IntArray
    track_id: IntArray
    year: IntArray
    member: IntArray
    starts_cut: BoolArray
    ends_cut: BoolArray
    time: IntArray
    lon: FloatArray
    lat: FloatArray
    value: FloatArray
    quantity: Quantity
    calendar: str = "standard"
    attributes: dict[str, str | int | float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.row_size)
