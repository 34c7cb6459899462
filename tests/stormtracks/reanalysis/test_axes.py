"""Axes: found whatever they are called, and longitudes that ascend without their data being left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormtracks.errors import InputError
from stormtracks.grid import Grid
from stormtracks.reanalysis import open_files
from stormtracks.reanalysis.axes import unwrap_longitudes
from stormtracks.settings.campaign import DataSettings
from tests.stormtracks.reanalysis.field_files import (
    Along,
    add_scalar,
    hours,
    latitudes,
    longitudes,
    read_year,
    write_field,
)

U850 = DataSettings(layout="cf", variable="u850")
LATITUDE = np.linspace(90, -90, 19)


@given(
    shift=st.integers(0, 35),
    start=st.sampled_from([0.0, -180.0, -175.0, 0.5]),
    convention=st.sampled_from([0.0, -180.0]),
    repeated=st.integers(0, 2),
    westward=st.booleans(),
)
def test_longitudes_ascend_and_keep_their_columns(
    shift: int, start: float, convention: float, repeated: int, westward: bool
) -> None:
    circle = np.roll(start + 10.0 * np.arange(36), shift)
    stored = (np.concatenate([circle, circle[:repeated]]) - convention) % 360 + convention
    stored = stored[::-1] if westward else stored
    lon, columns = unwrap_longitudes(stored)
    Grid(LATITUDE, lon)  # ascending, even, once round
    assert len(lon) == 36
    assert lon[0] > -360 and lon[-1] <= 360
    kept = stored if columns is None else stored[columns]
    np.testing.assert_allclose((lon - kept + 180) % 360 - 180, 0, atol=1e-9)


@pytest.mark.parametrize(
    ("stored", "ascending"),
    [
        ([0, 90, 180, -90], [0, 90, 180, 270]),
        ([180, 270, 0, 90], [-180, -90, 0, 90]),
        ([350, 355, 0, 5], [-10, -5, 0, 5]),
        ([-10, -5, 0, 5], [-10, -5, 0, 5]),
        ([5, 0, -5, -10], [-10, -5, 0, 5]),
        ([0, 120, 240, 360], [0, 120, 240]),
        ([270, 0, 90, 180, 270, 0], [-90, 0, 90, 180]),
        ([-180, -60, 60, 180], [-180, -60, 60]),
        ([0, 90, 180, -180, -90], [0, 90, 180, 270]),
        ([120, 240, 360], [120, 240, 360]),
    ],
)
def test_longitudes_by_example(stored: list[float], ascending: list[float]) -> None:
    assert unwrap_longitudes(np.array(stored, dtype=float))[0].tolist() == ascending


@pytest.mark.parametrize("stored", [[0, 20, 10, 30, 20], [0, np.nan, 20, 30, 40]])
def test_longitudes_beyond_mending_are_left_to_the_grid(tmp_path: Path, stored: list[float]) -> None:
    path = tmp_path / "u.nc"
    write_field(path, axes={"lon": longitudes(np.array(stored, dtype=float))})
    with pytest.raises(InputError, match=f"{path}: .*longitude"):
        open_files([path], U850).years()


def test_data_and_coordinates_are_wrapped_together(tmp_path: Path) -> None:
    stored = np.concatenate([np.arange(0, 190, 10.0), np.arange(-170, 10, 10.0)])  # 0..180, -170..0: 0 comes twice
    path = tmp_path / "u.nc"
    pattern = np.cos(np.deg2rad(stored)) + 3 * np.sin(np.deg2rad(stored))
    write_field(path, axes={"lon": longitudes(stored)}, values=np.broadcast_to(pattern, (8, 19, 37)))
    archive = open_files([path], U850)
    (field,) = read_year(archive)
    lon = archive.open_year(2001, [1]).grid.lon
    assert lon.tolist() == np.arange(0, 360, 10).tolist()
    expected = np.cos(np.deg2rad(lon)) + 3 * np.sin(np.deg2rad(lon))
    np.testing.assert_allclose(field, np.broadcast_to(expected, field.shape), atol=1e-6)
    assert field.flags.c_contiguous


GAUSSIAN = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(20)[0]))


@pytest.mark.parametrize("lat", [LATITUDE, LATITUDE[::-1], GAUSSIAN, GAUSSIAN[::-1]])
def test_latitudes_stay_as_they_are_stored(tmp_path: Path, lat: npt.NDArray[np.float64]) -> None:
    path = tmp_path / "u.nc"
    values = write_field(path, axes={"lat": latitudes(lat)})
    archive = open_files([path], U850)
    assert archive.open_year(2001, [1]).grid.lat.tolist() == lat.tolist()
    np.testing.assert_array_equal(read_year(archive)[0], values)


@pytest.mark.parametrize(
    ("time", "lat", "lon"),
    [
        (("t", {"standard_name": "time", "units": "hours since 2001-01-01"}), ("y", {"units": "degrees_north"}),
         ("x", {"units": "degrees_east"})),
        (("valid_time", {"units": "hours since 2001-01-01"}), ("latitude", {}), ("longitude", {})),
        (("when", {"axis": "T", "units": "hours since 2001-01-01"}), ("north", {"standard_name": "latitude"}),
         ("east", {"standard_name": "longitude"})),
        (("record", {"axis": "T", "units": "hours since 2001-01-01"}), ("j", {"axis": "Y"}), ("i", {"axis": "X"})),
    ],
)  # fmt: skip
def test_axes_are_found_by_attributes_and_by_name(
    tmp_path: Path, time: tuple[str, dict[str, str]], lat: tuple[str, dict[str, str]], lon: tuple[str, dict[str, str]]
) -> None:
    path = tmp_path / "u.nc"
    axes = {
        time[0]: Along(6.0 * np.arange(8), time[1]),
        lat[0]: Along(LATITUDE, lat[1]),
        lon[0]: Along(np.arange(0, 360, 10.0), lon[1]),
    }
    values = write_field(path, dims=(lon[0], time[0], lat[0]), axes=axes)
    np.testing.assert_array_equal(read_year(open_files([path], U850))[0], values.transpose(1, 2, 0))


def test_a_forecast_is_timed_by_its_valid_time(tmp_path: Path) -> None:
    path = tmp_path / "u.nc"
    lead = {"step": Along(np.arange(4.0), {"standard_name": "forecast_period", "units": "hours"})}
    write_field(path, dims=("step", "lat", "lon"), axes=lead)
    starts = {"standard_name": "forecast_reference_time", "units": "hours since 2001-01-01"}
    add_scalar(path, "time", 0.0, starts, of="u850")
    valid = Along(6.0 + np.arange(4.0), {"standard_name": "time", "units": "hours since 2001-01-01"})
    write_field(path, "valid_time", valid.attributes, dims=("step",), axes=lead, values=valid.values, dtype="f8")
    assert open_files([path], U850).open_year(2001, [1]).times.date(0) == "2001-01-01 06:00:00"


def test_a_time_of_its_own_without_an_axis(tmp_path: Path) -> None:
    path = tmp_path / "u.nc"
    values = write_field(path, dims=("lon", "lat"))
    add_scalar(path, "time", 6.0, {"standard_name": "time", "units": "hours since 2001-12-31 18:00"}, of="u850")
    archive = open_files([path], U850)
    assert archive.years() == [2002]
    np.testing.assert_array_equal(read_year(archive, 2002)[0], values.T[np.newaxis])


def fails_with(path: Path, data: DataSettings = U850) -> str:
    with pytest.raises(InputError) as caught:
        open_files([path], data).years()
    assert str(path) in caught.value.what
    assert caught.value.remedy
    return caught.value.what


def test_no_time_at_all(tmp_path: Path) -> None:
    write_field(tmp_path / "u.nc", dims=("lat", "lon"))
    assert "has no time axis" in fails_with(tmp_path / "u.nc")


def test_time_that_stands_still_is_told_by_its_first_step(tmp_path: Path) -> None:
    path = tmp_path / "u.nc"
    write_field(path, axes={"time": Along([0.0, 6.0, 12.0, 12.0, 6.0], {"units": "hours since 2001-01-01"})})
    said = fails_with(path)
    assert "step 3 (2001-01-01 12:00:00) follows step 2 (2001-01-01 12:00:00)" in said


@pytest.mark.parametrize("attributes", [{}, {"units": "hours"}, {"units": "day as %Y%m%d.%f"}])
def test_times_without_usable_units(tmp_path: Path, attributes: dict[str, str]) -> None:
    path = tmp_path / "u.nc"
    write_field(path, axes={"time": Along(np.arange(3.0), attributes)})
    assert "cannot be decoded" in fails_with(path)


def test_an_unknown_calendar(tmp_path: Path) -> None:
    path = tmp_path / "u.nc"
    write_field(path, axes={"time": hours(3, calendar="lunar")})
    assert "calendar 'lunar' cannot be decoded" in fails_with(path)


@pytest.mark.parametrize("damaged", [1e15, -1e15, 1e300])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_damaged_time_of_a_classic_file(tmp_path: Path, damaged: float, step: int) -> None:
    path = tmp_path / "u.nc"
    values = np.array([0.0, 6.0, 12.0])
    values[step] = damaged
    axes = {"time": Along(values, {"units": "hours since 2001-01-01"}, unlimited=True)}
    write_field(path, axes=axes, form="NETCDF3_CLASSIC")
    with pytest.raises(InputError) as caught:
        open_files([path], U850).years()
    assert f"in {path} with units" in caught.value.what
    assert f"no date can be given to value {step}" in caught.value.what
    assert "the file is damaged: fetch it again" in caught.value.remedy


def test_a_missing_time(tmp_path: Path) -> None:
    path = tmp_path / "u.nc"
    write_field(path, axes={"time": Along([0.0, np.nan, 12.0], {"units": "hours since 2001-01-01"})})
    assert "value 1 of the time axis is missing" in fails_with(path)


def test_an_axis_that_is_none_of_these(tmp_path: Path) -> None:
    path = tmp_path / "u.nc"
    write_field(path, dims=("time", "expver", "lat", "lon"), axes={"expver": Along([1, 5])})
    assert "dimension 'expver' of length 2 that is none of" in fails_with(path)


def test_an_axis_of_length_one_that_is_none_of_these_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "u.nc"
    values = write_field(path, dims=("time", "expver", "lat", "lon"), axes={"expver": Along([1])})
    np.testing.assert_array_equal(read_year(open_files([path], U850))[0], values[:, 0])


def test_two_axes_of_one_kind(tmp_path: Path) -> None:
    path = tmp_path / "u.nc"
    write_field(path, dims=("time", "em", "number", "lat", "lon"), axes={"em": Along([1, 2]), "number": Along([1, 2])})
    assert "dimension 'number' of length 2 that is a second axis of member" in fails_with(path)


def test_a_rotated_grid_is_no_latitude_and_longitude(tmp_path: Path) -> None:
    path = tmp_path / "u.nc"
    rotated = {
        "rlat": Along(LATITUDE, {"standard_name": "grid_latitude", "axis": "Y", "units": "degrees"}),
        "rlon": Along(np.arange(0, 360, 10.0), {"standard_name": "grid_longitude", "axis": "X", "units": "degrees"}),
    }
    write_field(path, dims=("time", "rlat", "rlon"), axes=rotated)
    assert "the fields there are none" in fails_with(path)


@pytest.mark.parametrize("dim", ["time", "lat", "lon"])
def test_an_axis_without_its_coordinate(tmp_path: Path, dim: str) -> None:
    path = tmp_path / "u.nc"
    write_field(path, axes={dim: Along(np.arange(5.0), written=False)})
    assert f"dimension {dim!r} in {path} has no coordinates" in fails_with(path)


def test_a_coordinate_of_text(tmp_path: Path) -> None:
    path = tmp_path / "u.nc"
    write_field(path, axes={"lat": Along(np.full(19, b"N"), {"standard_name": "latitude"})})
    assert "coordinate 'lat'" in fails_with(path)


def test_no_steps(tmp_path: Path) -> None:
    path = tmp_path / "u.nc"
    write_field(path, axes={"time": Along(np.empty(0), {"units": "hours since 2001-01-01"}, unlimited=True)})
    assert "dimension 'time' of length 0" in fails_with(path)


@pytest.mark.parametrize(
    ("member", "numbers"),
    [
        (Along(np.array([4, 2, 9], dtype=np.int32)), [2, 4, 9]),
        (Along(np.array([0.0, 1.0, 2.0])), [0, 1, 2]),
        (Along(np.array([0.25, 0.5, 1.0])), [1, 2, 3]),
        (Along(np.arange(3), written=False), [1, 2, 3]),
    ],
)
@pytest.mark.parametrize("name", ["member", "realization", "number", "ens"])
def test_members_are_numbered_as_the_file_does(tmp_path: Path, name: str, member: Along, numbers: list[int]) -> None:
    path = tmp_path / "u.nc"
    values = write_field(path, dims=("lat", name, "lon", "time"), axes={name: member})
    archive = open_files([path], U850)
    assert archive.members() == numbers
    place = np.argsort(np.asarray(member.values))[1]
    np.testing.assert_array_equal(read_year(archive, member=numbers[1])[0], values[:, place].transpose(2, 0, 1))


def test_a_member_axis_found_by_its_standard_name(tmp_path: Path) -> None:
    path = tmp_path / "u.nc"
    write_field(path, dims=("time", "run", "lat", "lon"), axes={"run": Along([5, 6], {"standard_name": "realization"})})
    assert open_files([path], U850).members() == [5, 6]


def test_a_member_number_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "u.nc"
    write_field(path, dims=("time", "member", "lat", "lon"), axes={"member": Along([1, 1])})
    assert "gives a number twice" in fails_with(path)
