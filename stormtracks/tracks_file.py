"""The file of tracks: CF-1.11 discrete sampling geometry, trajectories as a contiguous ragged array.

Files of tracks are in the NetCDF classic format with 64-bit offsets, whose bytes depend on nothing but the content:
NetCDF-4 files tell the versions of the libraries that wrote them, and small ones are three times as large. The classic
format cannot hold two dimensions of length zero, so tracks of which there is none, and years of many members, are in
NetCDF-4. After the NetCDF data stands one line more, which readers of NetCDF pass over: the sha256 of all bytes
before it, so that a file proves itself intact.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cftime
import netCDF4
import numpy as np
import numpy.typing as npt

from stormtracks import __version__
from stormtracks.errors import ResultNotFoundError, ResultsError
from stormtracks.publish import storage_error
from stormtracks.reanalysis.archive import Quantity
from stormtracks.times import EPOCH, decode_times
from stormtracks.tracks import RESERVED_ATTRIBUTES, Attributes, Tracks, check, digest

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["OBS", "SOURCE", "TRAJECTORY", "Variable", "encode", "load", "opened", "read_variables", "tracks_of"]

TRAJECTORY = "trajectory"
OBS = "obs"
SOURCE = f"stormtracks {__version__}"

_SEAL = b"\nstormtracks sha256 "
_SEAL_LENGTH = len(_SEAL) + 64 + 1
_CHUNK = 65536  # records; one member of a compressed year is read without unpacking all others
_RESERVED_NAMES = (
    *("ends_cut", "lat", "lon", "member", "obs", "realization", "row_size", "starts_cut", "time"),
    *("track_count", "track_id", "track_number", "trajectory", "year"),
    *("member_attributes", "member_content_sha256", "member_file_sha256", "member_source"),
)
"""Names of the other variables and dimensions of a file of tracks or of a compressed year."""

_LONGEST_NAME = 200  # characters; the NetCDF library takes 256
_ORIGINAL_NAME = "original_name"
_CALENDAR_OF_NONE = "calendar_of_tracks"
_REMEDY = "delete it and make the result again, or fetch an intact copy"


class Variable(NamedTuple):
    """One variable of a file: its dimension, its type in the file, its values and attributes."""

    dimension: str
    kind: Any
    data: npt.NDArray[Any]
    attributes: Mapping[str, Any]


def encode(tracks: Tracks, *, source: str = SOURCE, extra: Mapping[str, Variable] | None = None) -> bytes:
    """The bytes of a file of tracks.

    Parameters
    ----------
    tracks : Tracks
        What to store.
    source : str
        The code that wrote it: the global attribute of this name.
    extra : mapping of str to Variable, optional
        More variables, on dimensions of their own; the file is then NetCDF-4 and compressed.

    Raises
    ------
    ResultsError
        If the tracks break the container's rules.
    """
    check(tracks)
    variables = {**_variables(tracks), **(extra or {})}
    attributes = _global_attributes(tracks, source)
    body: bytes | memoryview
    if len(tracks) and extra is None:
        body = _classic_bytes(variables, attributes)
    else:
        body = _netcdf4_bytes(variables, attributes, compress=extra is not None)
    return b"".join((body, _seal(body)))


def _classic_bytes(variables: Mapping[str, Variable], attributes: Mapping[str, Any]) -> memoryview:
    # Made in memory, so that a full disk is met by one plain write, which tells its cause, and not in the library.
    dataset = netCDF4.Dataset("tracks", mode="w", format="NETCDF3_64BIT_OFFSET", memory=1)
    _fill(dataset, variables, attributes, compress=False)
    return memoryview(dataset.close())


def _netcdf4_bytes(variables: Mapping[str, Variable], attributes: Mapping[str, Any], *, compress: bool) -> bytes:
    # Made in memory, such a file would hold the time of day. So it is made on disk, without a name that could stay.
    try:
        descriptor, name = tempfile.mkstemp(prefix="stormtracks-")
        with os.fdopen(descriptor, "rb") as file:
            try:
                dataset = netCDF4.Dataset(name, mode="w", format="NETCDF4")
            finally:
                Path(name).unlink()
            _fill(dataset, variables, attributes, compress=compress)
            dataset.close()
            return file.read()
    except (OSError, RuntimeError) as error:
        raise ResultsError(
            f"cannot make a NetCDF file in the folder for temporary files, {tempfile.gettempdir()}: {error}",
            remedy="free space there, or set TMPDIR to another folder; nothing half-written was left behind",
        ) from error


def _fill(
    dataset: netCDF4.Dataset, variables: Mapping[str, Variable], attributes: Mapping[str, Any], *, compress: bool
) -> None:
    # Left on, fill values also go into the bytes that pad a variable, which would else hold leftovers of memory.
    dataset.set_fill_on()
    for variable in variables.values():
        if variable.dimension not in dataset.dimensions:
            dataset.createDimension(variable.dimension, len(variable.data))
    dataset.setncatts(attributes)
    for name, variable in variables.items():
        storage = _storage(variable) if compress else {}
        created = dataset.createVariable(name, variable.kind, (variable.dimension,), **storage)
        created.setncatts(variable.attributes)
        created[:] = variable.data


def _storage(variable: Variable) -> dict[str, Any]:
    if variable.kind is str or not len(variable.data):
        return {}
    return {"compression": "zlib", "complevel": 4, "chunksizes": (min(len(variable.data), _CHUNK),)}


def _global_attributes(tracks: Tracks, source: str) -> dict[str, Any]:
    return {
        "Conventions": "CF-1.11",
        "featureType": "trajectory",
        "title": "Tracks of storms",
        "source": source,
        **dict(sorted(tracks.attributes.items())),
        "content_sha256": digest(tracks),
    }


def _variables(tracks: Tracks) -> dict[str, Variable]:
    return {**_trajectory_variables(tracks), **_record_variables(tracks)}


def _trajectory_variables(tracks: Tracks) -> dict[str, Variable]:
    number = "number of the track within its year and member"
    numbers: dict[str, npt.NDArray[np.int64]] = {"track_id": tracks.track_id}
    # The identifier of a CF trajectory is unique in its file; numbers of several years or members are not.
    if len(np.unique(tracks.track_id)) < len(tracks):
        numbers = {"track_id": np.arange(1, len(tracks) + 1), "track_number": tracks.track_id}
    texts = {"track_id": number if len(numbers) == 1 else "number of the track in this file", "track_number": number}
    variables = {
        "row_size": Variable(
            TRAJECTORY, "i4", tracks.row_size, {"long_name": "number of points of the track", "sample_dimension": OBS}
        )
    }
    for name, data in numbers.items():
        role = {"cf_role": "trajectory_id"} if name == "track_id" else {}
        variables[name] = Variable(TRAJECTORY, "i4", data, {"long_name": texts[name], **role})
    variables["year"] = Variable(TRAJECTORY, "i4", tracks.year, {"long_name": "year that publishes the track"})
    variables["member"] = Variable(
        TRAJECTORY, "i4", tracks.member, {"standard_name": "realization", "long_name": "ensemble member", "units": "1"}
    )
    for name, cut, verb in (("starts_cut", tracks.starts_cut, "began"), ("ends_cut", tracks.ends_cut, "ended")):
        attributes = {
            "long_name": f"whether the data, the region or a gap, and not the storm, {verb} the track",
            "flag_values": np.array([0, 1], dtype=np.int8),
            "flag_meanings": f"storm_{verb} cut",
            "coordinates": "year member",
        }
        variables[name] = Variable(TRAJECTORY, "i1", cut, attributes)
    return variables


def _record_variables(tracks: Tracks) -> dict[str, Variable]:
    quantity = tracks.quantity
    described = {"standard_name": quantity.standard_name, "units": quantity.units}
    attributes = {
        "long_name": f"{quantity.name} at the centre of the storm",
        **{name: text for name, text in described.items() if text},
        "coordinates": "time lon lat",
    }
    with np.errstate(over="ignore"):
        exact = np.array_equal(tracks.value.astype(np.float32).astype(np.float64), tracks.value)
    stored_name = _variable_name(quantity.name)
    if stored_name != quantity.name:
        attributes[_ORIGINAL_NAME] = quantity.name
    return {
        "time": Variable(
            OBS,
            "f8",  # the classic format has no 64-bit integers; whole seconds are exact as doubles
            tracks.time,
            {"standard_name": "time", "long_name": "time", "units": EPOCH, **_calendar_attributes(tracks)},
        ),
        "lon": Variable(
            OBS, "f8", tracks.lon, {"standard_name": "longitude", "long_name": "longitude", "units": "degrees_east"}
        ),
        "lat": Variable(
            OBS, "f8", tracks.lat, {"standard_name": "latitude", "long_name": "latitude", "units": "degrees_north"}
        ),
        stored_name: Variable(OBS, "f4" if exact else "f8", tracks.value, attributes),
    }


def _variable_name(name: str) -> str:
    """The name of the variable that holds a quantity: its own, if every program can take it and no other has it."""
    plain = re.sub(r"[^A-Za-z0-9_]", "_", name)[:_LONGEST_NAME]
    if plain in _RESERVED_NAMES:
        return f"{plain}_value"
    return plain if plain[0].isalpha() else f"value_{plain}"


def _calendar_attributes(tracks: Tracks) -> dict[str, str]:
    if len(tracks) or tracks.calendar in ("standard", "gregorian", "proleptic_gregorian"):
        return {"calendar": tracks.calendar}
    # xarray (2026.9) cannot decode times in other calendars of which there is none.
    return {"calendar": "standard", _CALENDAR_OF_NONE: tracks.calendar}


class Loaded(NamedTuple):
    """What a file holds: its tracks, the source it names, and the sha256 of its bytes."""

    tracks: Tracks
    source: str
    sha256: str


def load(path: Path, *, verify: bool) -> Loaded:
    """Read a file of tracks; see `stormtracks.tracks.read_tracks`."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ResultNotFoundError(f"there is no file {path}", remedy="correct the path") from error
    except OSError as error:
        raise storage_error("read", path, error) from error
    if verify:
        _verify_seal(path, data)
    with opened(path) as dataset:
        tracks = tracks_of(read_variables(dataset), _plain_attributes(dataset), path)
        source = str(getattr(dataset, "source", ""))
        stored = getattr(dataset, "content_sha256", None)
    if verify and stored != digest(tracks):
        raise ResultsError(f"{path} does not hold the tracks that its content_sha256 tells", remedy=_REMEDY)
    return Loaded(tracks, source, hashlib.sha256(data).hexdigest())


def _verify_seal(path: Path, data: bytes) -> None:
    if not data.startswith((b"CDF", b"\x89HDF")):
        raise ResultsError(
            f"{path} is not a file of tracks: it is not NetCDF ({len(data)} bytes, beginning with {data[:8]!r})",
            remedy="give a file that write_tracks, stormtracks run or stormtracks track wrote",
        )
    body, seal = data[:-_SEAL_LENGTH], data[-_SEAL_LENGTH:]
    if not seal.startswith(_SEAL):
        raise ResultsError(
            f"{path} is truncated, changed, or no file of tracks at all: it does not end in its checksum",
            remedy="give a file that stormtracks wrote, and make it again if it is damaged; one that another program "
            "wrote or changed is read with verify=False",
        )
    if seal != _seal(body):
        raise ResultsError(f"{path} has changed since it was written: its checksum does not hold", remedy=_REMEDY)


def _seal(body: bytes | memoryview) -> bytes:
    return _SEAL + hashlib.sha256(body).hexdigest().encode() + b"\n"


@contextmanager
def opened(path: Path) -> Iterator[netCDF4.Dataset]:
    """A NetCDF file, open for reading, its values as they are stored.

    Raises
    ------
    ResultNotFoundError
        If there is no such file.
    ResultsError
        If it is not readable as NetCDF; also for what goes wrong while it is read.
    """
    try:
        with netCDF4.Dataset(path) as dataset:
            dataset.set_auto_maskandscale(False)
            yield dataset
    except FileNotFoundError as error:
        raise ResultNotFoundError(f"there is no file {path}", remedy="correct the path") from error
    except (OSError, RuntimeError, ValueError, IndexError, KeyError, MemoryError) as error:
        # What is read of a damaged file may be anything, and the netCDF library reports it as any of these.
        raise ResultsError(f"{path} is truncated, damaged or not a NetCDF file: {error}", remedy=_REMEDY) from error


def read_variables(dataset: netCDF4.Dataset, parts: Mapping[str, slice] | None = None) -> dict[str, Variable]:
    """The one-dimensional variables of an open file; of the dimensions in `parts` only that stretch."""
    parts = parts or {}
    variables = {}
    for name, stored in dataset.variables.items():
        if len(stored.dimensions) == 1:
            dimension = stored.dimensions[0]
            attributes = {key: stored.getncattr(key) for key in stored.ncattrs()}
            data = np.asarray(stored[parts.get(dimension, slice(None))])
            variables[name] = Variable(dimension, data.dtype, data, attributes)
    return variables


def _plain_attributes(dataset: netCDF4.Dataset) -> Attributes:
    values = {name: dataset.getncattr(name) for name in dataset.ncattrs() if name not in RESERVED_ATTRIBUTES}
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}


def tracks_of(variables: Mapping[str, Variable], attributes: Attributes, origin: object) -> Tracks:
    """Tracks from the variables of a file.

    Parameters
    ----------
    variables : mapping of str to Variable
        As `read_variables` gives them.
    attributes : dict
        What `Tracks.attributes` shall be.
    origin : object
        What the variables come from, for messages.

    Raises
    ------
    ResultsError
        If a variable is missing, or the tracks break the container's rules.
    """
    needed = ("row_size", "track_id", "year", "member", "starts_cut", "ends_cut", "time", "lon", "lat")
    missing = [name for name in needed if name not in variables]
    if missing:
        raise ResultsError(
            f"{origin} is not a file of tracks: it lacks {', '.join(missing)}",
            remedy="give a file that write_tracks, stormtracks run or stormtracks track wrote",
        )
    time = variables["time"]
    values = [name for name, it in variables.items() if it.dimension == time.dimension and name not in needed]
    if len(values) != 1:
        raise ResultsError(
            f"{origin} is not a file of tracks: one variable besides time, lon and lat is needed, there are {values}",
            remedy="give a file that write_tracks, stormtracks run or stormtracks track wrote",
        )
    value = variables[values[0]]
    described = {_ORIGINAL_NAME: values[0], "standard_name": "", "units": "", **value.attributes}
    calendar = str(time.attributes.get(_CALENDAR_OF_NONE, time.attributes.get("calendar", "standard")))
    numbers = {name: variables[name].data.astype(np.int64) for name in ("row_size", "year", "member")}
    tracks = Tracks(
        **numbers,
        track_id=variables.get("track_number", variables["track_id"]).data.astype(np.int64),
        starts_cut=variables["starts_cut"].data.astype(np.bool_),
        ends_cut=variables["ends_cut"].data.astype(np.bool_),
        time=_seconds(time, calendar, origin),
        lon=variables["lon"].data.astype(np.float64),
        lat=variables["lat"].data.astype(np.float64),
        value=value.data.astype(np.float64),
        quantity=Quantity(*(str(described[name]) for name in (_ORIGINAL_NAME, "standard_name", "units"))),
        calendar=calendar,
        attributes=attributes,
    )
    check(tracks)
    return tracks


def _seconds(time: Variable, calendar: str, origin: object) -> npt.NDArray[np.int64]:
    units = str(time.attributes.get("units"))
    if units == EPOCH:
        return np.asarray(np.rint(time.data), dtype=np.int64)
    try:
        return decode_times(time.data, units, calendar).seconds
    except ValueError as error:
        raise ResultsError(
            f"{origin}: times in {units!r} of the calendar {calendar!r} cannot be read: {error}",
            remedy=f"use CF time units, such as {EPOCH!r}",
        ) from error


def to_dataset(tracks: Tracks) -> xr.Dataset:
    """See `Tracks.to_xarray`."""
    import xarray as xr

    check(tracks)
    variables = {
        name: (it.dimension, it.data.astype(it.kind), dict(it.attributes)) for name, it in _variables(tracks).items()
    }
    return xr.decode_cf(xr.Dataset(variables, attrs=_global_attributes(tracks, SOURCE)))


def from_dataset(dataset: xr.Dataset) -> Tracks:
    """See `Tracks.from_xarray`."""
    variables = {
        str(name): Variable(str(it.dims[0]), it.dtype, it.values, it.attrs)
        for name, it in dataset.variables.items()
        if it.ndim == 1
    }
    if "time" in variables:
        variables["time"] = _encoded_time(variables["time"], dataset["time"].encoding)
    attributes = {str(name): value for name, value in dataset.attrs.items() if name not in RESERVED_ATTRIBUTES}
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in attributes.items()}
    return tracks_of(variables, plain, "the dataset")


def _encoded_time(time: Variable, encoding: Mapping[Any, Any]) -> Variable:
    """Decoded times as seconds since the epoch; those not decoded as they are."""
    if np.issubdtype(time.kind, np.datetime64):
        # Rounded: from 2116 on, xarray decodes odd seconds stored as doubles 512 ns short.
        whole = (time.data + np.timedelta64(500, "ms")).astype("datetime64[s]")
        calendar, seconds = "standard", whole.astype(np.int64)
    elif time.kind == np.dtype(object):
        calendar = time.data[0].calendar if len(time.data) else "standard"
        seconds = np.asarray(cftime.date2num(time.data, EPOCH, calendar=calendar))
    else:
        return time
    decoded = {"units": EPOCH, "calendar": encoding.get("calendar", calendar)}
    return Variable(time.dimension, "i8", seconds, {**time.attributes, **decoded})
