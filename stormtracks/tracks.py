"""The one track container: flat records, contiguous by trajectory; xarray and CF ragged NetCDF in and out."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stormtracks.errors import ResultsError
from stormtracks.reanalysis.archive import Quantity
from stormtracks.times import TimeAxis

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Attributes", "Tracks", "check", "concatenate", "digest", "read_tracks", "write_tracks"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Attributes = dict[str, str | int | float]

RESERVED_ATTRIBUTES = ("Conventions", "content_sha256", "featureType", "source", "title")
"""Global attributes of a file that `write_tracks` sets; `Tracks.attributes` may not hold them."""

CALENDARS = (
    *("standard", "gregorian", "proleptic_gregorian", "julian", "noleap", "365_day", "all_leap", "366_day"),
    "360_day",
)

_TRACK_ARRAYS = {"row_size": "<i8", "track_id": "<i8", "year": "<i8", "member": "<i8", "starts_cut": "u1"}
_TRACK_ARRAYS["ends_cut"] = "u1"
_RECORD_ARRAYS = {"time": "<i8", "lon": "<f8", "lat": "<f8", "value": "<f8"}
_ARRAYS = _TRACK_ARRAYS | _RECORD_ARRAYS
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


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
        The tracked field at the centre; of what was tracked here 7 significant digits, as the nearest float32.
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
    attributes: Attributes = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.row_size)

    def __repr__(self) -> str:
        span = ""
        if len(self.time):
            first, last = TimeAxis(np.array([self.time.min(), self.time.max()]), self.calendar).dates()
            span = f", {first:%Y-%m-%d} to {last:%Y-%m-%d}"
        what = f"{self.quantity.name} ({self.quantity.units})"
        members = len(np.unique(self.member))
        return f"<Tracks: {len(self)} of {what} with {len(self.time)} points{span}, {members} member(s)>"

    def to_xarray(self) -> xr.Dataset:
        """The tracks as `xarray.open_dataset` gives them from a file of `write_tracks`.

        Dimensions ``trajectory`` and ``obs``; times as datetime64, or as cftime objects in other calendars.

        Raises
        ------
        ResultsError
            If the tracks break the container's rules; see `check`.
        """
        from stormtracks.tracks_file import to_dataset

        return to_dataset(self)

    @classmethod
    def from_xarray(cls, dataset: xr.Dataset) -> Tracks:
        """Tracks from a dataset of the form that `to_xarray` gives.

        Raises
        ------
        ResultsError
            If a variable is missing, or the tracks break the container's rules; see `check`.
        """
        from stormtracks.tracks_file import from_dataset

        return from_dataset(dataset)


def write_tracks(path: str | Path, tracks: Tracks) -> None:
    """Write tracks to a NetCDF file: CF-1.11 trajectories as a contiguous ragged array.

    The same tracks give the same bytes. The file appears whole or not at all, and replaces an older one.

    Raises
    ------
    ResultsError
        If the tracks break the container's rules (see `check`), or the disk refuses.
    """
    from stormtracks.publish import publish
    from stormtracks.tracks_file import encode

    publish(Path(path), encode(tracks))


def read_tracks(path: str | Path, *, verify: bool = True) -> Tracks:
    """Read tracks that `write_tracks` wrote, or a year that the results manager compressed.

    Parameters
    ----------
    path : path-like
        The file.
    verify : bool
        Whether to refuse a file of which any byte has changed since it was written.

    Raises
    ------
    ResultNotFoundError
        If there is no such file.
    ResultsError
        If it is truncated, changed, unreadable or no file of tracks.
    """
    from stormtracks.tracks_file import load

    return load(Path(path), verify=verify).tracks


def digest(tracks: Tracks) -> str:
    """sha256 over the content: every array in a fixed type and byte order, quantity, calendar and attributes.

    It depends neither on the file's format nor on the version that wrote it, nor on the order of the attributes.
    """
    head = {"quantity": asdict(tracks.quantity), "calendar": tracks.calendar, "attributes": tracks.attributes}
    sha = hashlib.sha256(json.dumps(head, sort_keys=True, separators=(",", ":")).encode())
    for name, kind in _ARRAYS.items():
        array = np.asarray(getattr(tracks, name))
        sha.update(f"\n{name} {kind} {array.size}\n".encode())
        sha.update(np.ascontiguousarray(array, kind).data)
    return sha.hexdigest()


def concatenate(several: Sequence[Tracks]) -> Tracks:
    """All tracks of several containers in one, in the order given; of the attributes, those that all share.

    Raises
    ------
    ResultsError
        If there is none, or they differ in quantity or calendar.
    """
    if not several:
        raise ResultsError("no tracks to concatenate: the list is empty", remedy="give at least one container")
    first = several[0]
    for other in several[1:]:
        if (other.quantity, other.calendar) != (first.quantity, first.calendar):
            raise ResultsError(
                f"cannot concatenate tracks of {first.quantity} in the {first.calendar} calendar with tracks of "
                f"{other.quantity} in the {other.calendar} calendar",
                remedy="concatenate only tracks of one quantity and calendar",
            )
    arrays = {name: np.concatenate([getattr(tracks, name) for tracks in several]) for name in _ARRAYS}
    shared = {
        name: value
        for name, value in first.attributes.items()
        if all(_same(tracks.attributes.get(name), value) for tracks in several)
    }
    return Tracks(**arrays, quantity=first.quantity, calendar=first.calendar, attributes=shared)


def _same(given: str | int | float | None, wanted: str | int | float) -> bool:
    return type(given) is type(wanted) and given == wanted


def check(tracks: Tracks) -> None:
    """Refuse tracks that break the container's rules, before they reach a file.

    Raises
    ------
    ResultsError
        If arrays differ in length or `row_size` does not add up; a position or value is not finite or out of range;
        times do not increase along a track; two tracks share year, member and number; a number needs more than
        32 bits; or calendar, quantity or attributes cannot be stored.
    """
    _check_shapes(tracks)
    _check_numbers(tracks)
    _check_records(tracks)
    _check_texts(tracks)


def _require(holds: bool | np.bool_, what: str) -> None:
    if not holds:
        raise ResultsError(f"cannot store these tracks: {what}", remedy="correct the tracks; nothing was written")


def _check_shapes(tracks: Tracks) -> None:
    for names, reference in ((_TRACK_ARRAYS, tracks.row_size), (_RECORD_ARRAYS, tracks.time)):
        for name in names:
            shape = np.shape(getattr(tracks, name))
            _require(shape == (len(reference),), f"{name} has shape {shape}, ({len(reference)},) is needed")
    total = int(np.sum(tracks.row_size))
    _require(bool(np.all(tracks.row_size >= 1)), "row_size holds numbers below 1")
    _require(total == len(tracks.time), f"row_size adds up to {total}, but there are {len(tracks.time)} records")


def _check_numbers(tracks: Tracks) -> None:
    limit = np.iinfo(np.int32)
    for name in ("track_id", "year", "member"):
        numbers = getattr(tracks, name)
        _require(bool(np.all((numbers >= limit.min) & (numbers <= limit.max))), f"{name} needs more than 32 bits")
    order = np.lexsort((tracks.track_id, tracks.member, tracks.year))
    differ = [np.diff(numbers[order]) != 0 for numbers in (tracks.year, tracks.member, tracks.track_id)]
    distinct = min(len(tracks), 1) + np.count_nonzero(np.logical_or.reduce(differ))
    _require(distinct == len(tracks), f"only {distinct} of {len(tracks)} tracks differ in year, member and track_id")


def _check_records(tracks: Tracks) -> None:
    for name in ("lon", "lat", "value"):
        _require(bool(np.all(np.isfinite(getattr(tracks, name)))), f"{name} holds values that are not finite")
    _require(bool(np.all((tracks.lon >= 0) & (tracks.lon < 360))), "lon is not within [0, 360) degrees")
    _require(bool(np.all(np.abs(tracks.lat) <= 90)), "lat is not within [-90, 90] degrees")
    # Times are stored as double precision numbers.
    _require(bool(np.all(np.abs(tracks.time) <= 2**53)), "time lies further than 2**53 seconds from 1970")
    track = np.repeat(np.arange(len(tracks)), tracks.row_size)
    ordered = (np.diff(tracks.time) > 0) | (np.diff(track) > 0)
    _require(bool(np.all(ordered)), "times do not increase along each track")


def _check_texts(tracks: Tracks) -> None:
    _require(tracks.calendar in CALENDARS, f"calendar {tracks.calendar!r} is not one of {', '.join(CALENDARS)}")
    _require(tracks.quantity.name != "", "the quantity has no name")
    for text in (tracks.quantity.name, tracks.quantity.standard_name, tracks.quantity.units):
        _require(_storable(text), f"{text!r} cannot be stored as text")
    for key, value in tracks.attributes.items():
        _require(_NAME.fullmatch(key) is not None, f"{key!r} cannot name an attribute")
        _require(key not in RESERVED_ATTRIBUTES, f"the attribute {key!r} is set on writing and may not be given")
        _require(_storable(value), f"the attribute {key} = {value!r} is no plain str, 32-bit int or finite float")


def _storable(value: object) -> bool:
    if type(value) is str:
        # The C library ends texts at a NUL; lone surrogates have no UTF-8.
        return "\0" not in value and value.encode(errors="ignore").decode() == value
    if type(value) is int:
        return -(2**31) <= value < 2**31
    return type(value) is float and bool(np.isfinite(value))
