"""CF files: names, levels, units and files in any arrangement, and a clear word on each that will not do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stormtracks.errors import InputError
from stormtracks.reanalysis import cf as cf_layout
from stormtracks.reanalysis import open_archive, open_files
from stormtracks.reanalysis.archive import Quantity
from stormtracks.settings.campaign import DataSettings
from tests.stormtracks.reanalysis.field_files import Along, add_scalar, hours, latitudes, read_year, write_field

WITH_LEVEL = ("time", "level", "lat", "lon")
EASTWARD = {"units": "m s-1", "standard_name": "eastward_wind"}
NORTHWARD = {"units": "m s-1", "standard_name": "northward_wind"}


def cf(root: Path, variable: str | None = None, **data: Any) -> DataSettings:
    return DataSettings(layout="cf", root=root, variable=variable, **data)


def fails_with(data: DataSettings) -> str:
    with pytest.raises(InputError) as caught:
        open_archive(data).open_year(2001, [1])
    assert caught.value.remedy
    return caught.value.what


# Names


@pytest.mark.parametrize(
    ("stored", "attributes", "asked"),
    [
        ("u850", {"units": "m s-1"}, "u850"),
        ("u", EASTWARD, "u850"),
        ("uwnd", {"units": "m s-1"}, "u850"),
        ("ua", {"units": "m s-1"}, "eastward_wind"),
        ("x", EASTWARD, "eastward_wind"),
        ("x", {"units": "m s-1", "standard_name": "x_wind"}, "u"),
        ("msl", {"units": "Pa"}, "prmsl"),
        ("psl", {"units": "Pa", "standard_name": "air_pressure_at_sea_level"}, "msl"),
        ("slp", {"units": "Pa", "standard_name": "unknown"}, "air_pressure_at_mean_sea_level"),
        ("vo", {"units": "s-1", "standard_name": "atmosphere_upward_relative_vorticity"}, "rv850"),
        ("olr", {"units": "W m-2", "standard_name": "toa_outgoing_longwave_flux"}, "toa_outgoing_longwave_flux"),
    ],
)
def test_a_variable_by_name_standard_name_or_alias(
    tmp_path: Path, stored: str, attributes: dict[str, str], asked: str
) -> None:
    values = write_field(tmp_path / "a.nc", stored, attributes)
    write_field(tmp_path / "a.nc", "cape", {"units": "J kg-1"})
    archive = open_archive(cf(tmp_path, asked))
    np.testing.assert_array_equal(read_year(archive)[0], values)
    assert archive.open_year(2001, [1]).quantities[0].name == stored


def test_the_very_name_comes_before_any_other(tmp_path: Path) -> None:
    write_field(tmp_path / "a.nc", "u", EASTWARD)
    values = write_field(tmp_path / "a.nc", "ua", EASTWARD)
    np.testing.assert_array_equal(read_year(open_archive(cf(tmp_path, "ua")))[0], values)


def test_a_name_that_could_be_several_variables(tmp_path: Path) -> None:
    write_field(tmp_path / "a.nc", "u", EASTWARD)
    write_field(tmp_path / "a.nc", "ua", EASTWARD)
    assert "'uwnd' could be any of u, ua" in fails_with(cf(tmp_path, "uwnd"))


def test_a_field_that_names_the_level_comes_before_one_that_is_silent(tmp_path: Path) -> None:
    write_field(tmp_path / "a.nc", "u", EASTWARD)
    values = write_field(tmp_path / "a.nc", "ua850", EASTWARD)
    np.testing.assert_array_equal(read_year(open_archive(cf(tmp_path, "u850")))[0], values)


@pytest.mark.parametrize("other", ["u10", "uas", "u500", "u9950", "v850"])
def test_the_wind_of_another_level_is_no_substitute(tmp_path: Path, other: str) -> None:
    write_field(tmp_path / "a.nc", other)
    assert f"variable 'u850' is not in {tmp_path / 'a.nc'}; the fields there are {other}" in fails_with(
        cf(tmp_path, "u850")
    )


def test_a_missing_variable_lists_what_all_files_have(tmp_path: Path) -> None:
    write_field(tmp_path / "a.nc", "cape", {})
    write_field(tmp_path / "b.nc", "u10")
    said = fails_with(cf(tmp_path, "prmsl"))
    assert "'prmsl' is in none of 2 files" in said
    assert "the fields there are cape, u10 (eastward_wind)" in said


# Levels


def test_a_level_is_chosen_by_the_settings(tmp_path: Path) -> None:
    values = write_field(tmp_path / "a.nc", "ua", EASTWARD, dims=WITH_LEVEL)
    np.testing.assert_array_equal(read_year(open_archive(cf(tmp_path, "ua", level=500)))[0], values[:, 1])


@pytest.mark.parametrize("units", ["Pa", "hPa", "millibars"])
def test_a_level_is_chosen_by_the_name_in_any_unit_of_pressure(tmp_path: Path, units: str) -> None:
    level = Along(np.array([850.0, 500.0]) * (100 if units == "Pa" else 1), {"units": units})
    values = write_field(tmp_path / "a.nc", "ua", EASTWARD, dims=("lon", "plev", "time", "lat"), axes={"plev": level})
    np.testing.assert_array_equal(read_year(open_archive(cf(tmp_path, "u850")))[0], values[:, 0].transpose(1, 2, 0))


def test_an_only_level_needs_no_choice(tmp_path: Path) -> None:
    values = write_field(
        tmp_path / "a.nc", "ua", EASTWARD, dims=WITH_LEVEL, axes={"level": Along([850.0], {"units": "hPa"})}
    )
    for asked in ("ua", "u850"):
        np.testing.assert_array_equal(read_year(open_archive(cf(tmp_path, asked)))[0], values[:, 0])
    assert "has no level 500 hPa, only 850 hPa" in fails_with(cf(tmp_path, "u500"))


def test_several_levels_and_none_chosen(tmp_path: Path) -> None:
    write_field(tmp_path / "a.nc", "ua", EASTWARD, dims=WITH_LEVEL)
    assert "has the levels 850 hPa, 500 hPa" in fails_with(cf(tmp_path, "ua"))


def test_a_missing_level(tmp_path: Path) -> None:
    write_field(tmp_path / "a.nc", "ua", EASTWARD, dims=WITH_LEVEL)
    assert "has no level 700 hPa, only 850 hPa, 500 hPa" in fails_with(cf(tmp_path, "ua", level=700))
    assert "has no level 200 hPa, only 850 hPa, 500 hPa" in fails_with(cf(tmp_path, "u200"))


@pytest.mark.parametrize(
    ("name", "level", "said"),
    [
        ("u850", None, "850 hPa"),
        ("u10", None, "10 m"),
        ("u9950", None, "sigma 0.995"),
        ("ua", Along([10.0], {"units": "m"}), "10 m"),
        ("u850", Along([0.995], {"units": "1"}), "0.995 1"),
    ],
)
def test_a_level_other_than_the_one_that_the_file_gives(
    tmp_path: Path, name: str, level: Along | None, said: str
) -> None:
    dims, axes = (WITH_LEVEL, {"level": level}) if level else (("time", "lat", "lon"), {})
    write_field(tmp_path / "a.nc", name, EASTWARD, dims=dims, axes=axes)
    assert f"{name!r} in {tmp_path / 'a.nc'} is at {said}, but level is set to 500 hPa" in fails_with(
        cf(tmp_path, name, level=500)
    )
    assert open_archive(cf(tmp_path, name)).years() == [2001]


@pytest.mark.parametrize(
    ("name", "level", "asked"),
    [
        ("u850", None, 850),
        ("x", None, 500),
        ("ua", Along([0.0]), 500),
        ("x", Along([0.0], written=False), 500),
        ("u850", Along([500.0], {"units": "hPa"}), 500),  # the coordinate says more than a name
        ("u850", Along([85000.0], {"units": "Pa"}), 850),
    ],
)
def test_a_level_that_the_file_gives_or_is_silent_of(
    tmp_path: Path, name: str, level: Along | None, asked: float
) -> None:
    dims, axes = (WITH_LEVEL, {"level": level}) if level else (("time", "lat", "lon"), {})
    write_field(tmp_path / "a.nc", name, EASTWARD, dims=dims, axes=axes)
    assert open_archive(cf(tmp_path, name, level=asked)).years() == [2001]


def test_a_scalar_level_other_than_the_one_asked_for(tmp_path: Path) -> None:
    for name, value, units, said in (("u850", 850.0, "hPa", "only 850 hPa"), ("y", 10.0, "m", "is at 10 m")):
        write_field(tmp_path / f"{name}.nc", name, EASTWARD)
        add_scalar(tmp_path / f"{name}.nc", "height", value, {"units": units}, of=name)
        assert said in fails_with(cf(tmp_path, name, level=500))


def test_levels_that_are_no_pressures(tmp_path: Path) -> None:
    height = {"height": Along([10.0, 100.0], {"units": "m"})}
    write_field(tmp_path / "a.nc", "ua", EASTWARD, dims=("time", "height", "lat", "lon"), axes=height)
    assert "has 2 levels that are no pressures (10 m, 100 m)" in fails_with(cf(tmp_path, "ua", level=850))


def test_a_level_axis_without_units_is_not_guessed_at(tmp_path: Path) -> None:
    write_field(tmp_path / "a.nc", "ua", EASTWARD, dims=WITH_LEVEL, axes={"level": Along([85000.0, 50000.0])})
    assert "no pressures" in fails_with(cf(tmp_path, "ua", level=850))


def test_a_scalar_level_counts(tmp_path: Path) -> None:
    values = write_field(tmp_path / "a.nc", "ua", EASTWARD)
    add_scalar(tmp_path / "a.nc", "plev", 85000.0, {"units": "Pa", "standard_name": "air_pressure"}, of="ua")
    np.testing.assert_array_equal(read_year(open_archive(cf(tmp_path, "u850")))[0], values)
    assert "has no level 500 hPa" in fails_with(cf(tmp_path, "ua", level=500))


def test_a_wind_at_ten_metres_is_not_one_at_850_hpa(tmp_path: Path) -> None:
    write_field(tmp_path / "a.nc", "wind", EASTWARD)
    add_scalar(tmp_path / "a.nc", "height", 10.0, {"units": "m", "standard_name": "height"}, of="wind")
    assert "'u850' is not in" in fails_with(cf(tmp_path, "u850"))
    assert open_archive(cf(tmp_path, "u10")).years() == [2001]


def test_a_name_and_a_level_that_contradict_each_other(tmp_path: Path) -> None:
    write_field(tmp_path / "a.nc", "ua", EASTWARD, dims=WITH_LEVEL)
    assert "at 850 hPa, but level is set to 500 hPa" in fails_with(cf(tmp_path, "u850", level=500))


# Units and quantities


@pytest.mark.parametrize(
    ("name", "attributes", "quantity", "factor"),
    [
        ("msl", {"units": "hPa"}, Quantity("msl", "air_pressure_at_mean_sea_level", "Pa"), 100),
        ("u850", {"units": "knots"}, Quantity("u850", "eastward_wind", "m s-1"), 1852 / 3600),
        ("vo", {"units": "s**-1"}, Quantity("vo", "atmosphere_relative_vorticity", "s-1"), 1),
        ("cape", {"units": "J/kg"}, Quantity("cape", "", "J/kg"), 1),
    ],
)
def test_units_become_si(
    tmp_path: Path, name: str, attributes: dict[str, str], quantity: Quantity, factor: float
) -> None:
    values = write_field(tmp_path / "a.nc", name, attributes)
    archive = open_archive(cf(tmp_path, name))
    assert archive.open_year(2001, [1]).quantities == (quantity,)
    (field,) = read_year(archive)
    assert field.dtype == np.float32
    np.testing.assert_allclose(field, values.astype(np.float64) * factor, rtol=1e-7)


def test_wrong_units_name_variable_and_file(tmp_path: Path) -> None:
    write_field(tmp_path / "a.nc", "msl", {"units": "bananas"})
    said = fails_with(cf(tmp_path, "msl"))
    assert f"variable 'msl' in {tmp_path / 'a.nc'}" in said
    assert "'bananas'" in said
    assert "hPa" in said


def test_packed_values_with_gaps(tmp_path: Path) -> None:
    packed = np.arange(8 * 19 * 36, dtype="i2").reshape(8, 19, 36)
    attributes = {"units": "hPa", "scale_factor": 0.01, "add_offset": 1000.0, "_FillValue": np.int16(5)}
    write_field(tmp_path / "a.nc", "msl", attributes, values=packed, dtype="i2")
    (field,) = read_year(open_archive(cf(tmp_path, "msl")))
    expected = (packed * 0.01 + 1000) * 100
    expected[packed == 5] = np.nan
    np.testing.assert_allclose(field, expected, rtol=1e-7)
    assert np.isnan(field).sum() == 1


# Wind


def winds(tmp_path: Path, **second: Any) -> DataSettings:
    write_field(tmp_path / "u.nc", "u850", EASTWARD)
    write_field(tmp_path / "v.nc", "v850", NORTHWARD, **second)
    return cf(tmp_path, wind=("u850", "v850"))


def test_winds_in_files_of_their_own(tmp_path: Path) -> None:
    series = open_archive(winds(tmp_path)).open_year(2001, [1])
    assert tuple(series.inputs) == ("u.nc", "v.nc")
    assert [quantity.standard_name for quantity in series.quantities] == ["eastward_wind", "northward_wind"]
    assert [field.shape for field in series.read(2, 5)] == [(1, 3, 19, 36)] * 2
    series.close()


def test_winds_in_one_file(tmp_path: Path) -> None:
    u = write_field(tmp_path / "uv.nc", "u", EASTWARD, dims=WITH_LEVEL)
    v = write_field(tmp_path / "uv.nc", "v", NORTHWARD, dims=WITH_LEVEL)
    archive = open_archive(cf(tmp_path))  # u850 and v850 unless told otherwise
    np.testing.assert_array_equal(read_year(archive), [u[:, 0], v[:, 0]])
    assert tuple(archive.open_year(2001, [1]).inputs) == ("uv.nc",)


def test_winds_in_the_wrong_order(tmp_path: Path) -> None:
    winds(tmp_path)
    with pytest.raises(InputError, match="is eastward_wind, where wind needs northward_wind") as caught:
        open_archive(cf(tmp_path, wind=("v850", "u850"))).years()
    assert "swap the two names" in caught.value.remedy


def test_a_wind_that_is_none(tmp_path: Path) -> None:
    winds(tmp_path)
    write_field(tmp_path / "p.nc", "msl", {"units": "Pa"})
    assert "is air_pressure_at_mean_sea_level, where wind needs northward_wind" in fails_with(
        cf(tmp_path, wind=("u850", "msl"))
    )


def test_a_wind_by_a_name_of_its_own_is_taken_at_its_word(tmp_path: Path) -> None:
    write_field(tmp_path / "a.nc", "zonal", {"units": "kt"})
    write_field(tmp_path / "a.nc", "merid", {"units": "m/s"})
    series = open_archive(cf(tmp_path, wind=("zonal", "merid"))).open_year(2001, [1])
    assert [(q.standard_name, q.units) for q in series.quantities] == [
        ("eastward_wind", "m s-1"),
        ("northward_wind", "m s-1"),
    ]


def test_winds_on_different_grids(tmp_path: Path) -> None:
    said = fails_with(winds(tmp_path, axes={"lat": latitudes(np.linspace(90, -90, 37))}))
    assert f"'u850' in {tmp_path / 'u.nc'} and 'v850' in {tmp_path / 'v.nc'} are on different grids" in said
    assert "19 x 36 points against 37 x 36" in said


def test_winds_on_shifted_grids(tmp_path: Path) -> None:
    said = fails_with(winds(tmp_path, axes={"lat": latitudes(np.linspace(-90, 90, 19))}))
    assert "latitude 0 is 90 against -90" in said


@pytest.mark.parametrize(
    ("time", "difference"),
    [
        (hours(7), "8 steps against 7"),
        (hours(8, step=12), "step 1 is 2001-01-01 06:00:00 against 2001-01-01 12:00:00"),
        (hours(8, calendar="noleap"), "calendar standard against noleap"),
    ],
)
def test_winds_at_different_times(tmp_path: Path, time: Along, difference: str) -> None:
    said = fails_with(winds(tmp_path, axes={"time": time}))
    assert "are at different times" in said
    assert difference in said


# Files and years


@pytest.mark.parametrize(("calendar", "days"), [("360_day", 360), ("noleap", 365), ("standard", 366)])
def test_years_are_cut_in_the_calendar_of_the_file(tmp_path: Path, calendar: str, days: int) -> None:
    time = hours(3 * 366, step=24, since="2000-01-01", calendar=calendar)
    small = {"lat": latitudes([-10.0, 0.0, 10.0]), "lon": Along([0.0, 1.0, 2.0], {"units": "degrees_east"})}
    values = write_field(tmp_path / "a.nc", "u850", axes={"time": time, **small})
    archive = open_archive(cf(tmp_path, "u850"))
    assert archive.years()[:3] == [2000, 2001, 2002]
    series = archive.open_year(2000, [1])
    assert len(series.times) == days
    assert series.file_starts == (0,)
    second = archive.open_year(2001, [1])
    assert second.file_starts == ()
    np.testing.assert_array_equal(second.read(0, 5)[0][0], values[days : days + 5])
    second.close()
    assert archive.has_year(2001, 1)
    assert not archive.has_year(1999, 1)
    assert not archive.has_year(2001, 2)


def test_a_variable_over_several_files(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(30, 19, 36)).astype(np.float32)
    for name, first, last in (("z.nc", 0, 4), ("b.nc", 4, 14), ("deep/a.nc", 14, 30)):
        axes = {"time": hours(last - first, first=6 * first, since="2000-12-31")}
        write_field(tmp_path / name, "u850", axes=axes, values=values[first:last])
    archive = open_archive(cf(tmp_path, "u850", pattern="**/*.nc"))
    assert archive.years() == [2000, 2001]
    assert tuple(archive.open_year(2000, [1]).inputs) == ("z.nc",)
    series = archive.open_year(2001, [1])
    assert tuple(series.inputs) == ("b.nc", "deep/a.nc")
    assert series.file_starts == (0, 10)
    np.testing.assert_array_equal(series.read(7, 15)[0][0], values[11:19])
    np.testing.assert_array_equal(series.read(0, 26)[0][0], values[4:])
    assert series.read(3, 3)[0].shape == (1, 0, 19, 36)
    series.close()


def test_files_named_one_by_one(tmp_path: Path) -> None:
    for name, first in (("x/u.nc", 8), ("y/u.nc", 0)):
        write_field(tmp_path / name, "u850", axes={"time": hours(8, first=6 * first)})
    archive = open_files([tmp_path / "x/u.nc", tmp_path / "y/u.nc"], cf(Path("nowhere"), "u850"))
    series = archive.open_year(2001, [1])
    assert tuple(series.inputs) == ("x/u.nc", "y/u.nc")
    assert len(series.times) == 16


def test_no_file_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file is given"):
        open_files([], cf(tmp_path, "u850"))


def test_a_named_file_that_is_absent(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"there is no file {tmp_path / 'u.nc'}"):
        open_files([tmp_path / "u.nc"], cf(tmp_path, "u850")).years()


def test_files_that_overlap_in_time(tmp_path: Path) -> None:
    write_field(tmp_path / "a.nc", "u850")
    write_field(tmp_path / "b.nc", "u850", axes={"time": hours(8, first=42)})
    said = fails_with(cf(tmp_path, "u850"))
    assert "a.nc" in said and "b.nc" in said
    assert "ends at 2001-01-02 18:00:00" in said
    assert "begins at 2001-01-02 18:00:00" in said


@pytest.mark.parametrize(
    ("axes", "attributes", "says"),
    [
        ({"time": hours(8, first=48, calendar="360_day")}, EASTWARD, "calendars 360_day and standard"),
        (
            {"time": hours(8, first=48), "lat": latitudes(np.linspace(90, -90, 37))},
            EASTWARD,
            "19 x 36 points against 37 x 36",
        ),
        ({"time": hours(8, first=48)}, NORTHWARD, "eastward_wind and northward_wind"),
    ],
)
def test_files_that_do_not_belong_together(
    tmp_path: Path, axes: dict[str, Along], attributes: dict[str, str], says: str
) -> None:
    write_field(tmp_path / "a.nc", "u850", EASTWARD)
    write_field(tmp_path / "b.nc", "u850", attributes, axes=axes)
    said = fails_with(cf(tmp_path, "u850"))
    assert "a.nc" in said and "b.nc" in said
    assert says in said


def test_files_of_one_series_in_two_names_of_one_calendar(tmp_path: Path) -> None:
    write_field(tmp_path / "a.nc", "u850", axes={"time": hours(8, calendar="gregorian")})
    write_field(tmp_path / "b.nc", "u850", axes={"time": hours(8, first=48, calendar="proleptic_gregorian")})
    assert len(open_archive(cf(tmp_path, "u850")).open_year(2001, [1]).times) == 16


def test_files_before_and_after_the_reform_of_the_calendar(tmp_path: Path) -> None:
    for year in (1581, 1583):
        time = hours(8, since=f"{year}-01-01", calendar="proleptic_gregorian")
        write_field(tmp_path / f"{year}.nc", "u850", axes={"time": time})
    # The other wind has no file before the reform, and is in the same calendar all the same.
    write_field(tmp_path / "v.nc", "v850", axes={"time": hours(8, since="1583-01-01", calendar="standard")})
    assert open_archive(cf(tmp_path, "u850")).years() == [1581, 1583]
    for year in (1581, 1583):
        times = open_archive(cf(tmp_path, "u850")).open_year(year, [1]).times
        assert (times.calendar, times.date(0)) == ("proleptic_gregorian", f"{year}-01-01 00:00:00")
    assert len(open_archive(cf(tmp_path, wind=("u850", "v850"))).open_year(1583, [1]).times) == 8


def test_files_before_the_reform_in_calendars_that_differ_there(tmp_path: Path) -> None:
    for year, calendar in ((1500, "proleptic_gregorian"), (1501, "standard")):
        write_field(tmp_path / f"{year}.nc", "u850", axes={"time": hours(8, since=f"{year}-01-01", calendar=calendar)})
    with pytest.raises(InputError, match="use the calendars proleptic_gregorian and standard") as caught:
        open_archive(cf(tmp_path, "u850")).years()
    assert "leave the files of one calendar out" in caught.value.remedy


def test_one_damaged_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    write_field(tmp_path / "a.nc", "u850")
    (tmp_path / "b.nc").write_bytes((tmp_path / "a.nc").read_bytes()[:3000])
    archive = open_archive(cf(tmp_path, "u850"))
    for look in (archive.years, archive.members, lambda: archive.has_year(2001, 1)):
        with pytest.raises(InputError, match=f"{tmp_path / 'b.nc'} cannot be opened") as caught:
            look()
        assert "fetch it again" in caught.value.remedy


def test_members_are_those_that_all_files_have(tmp_path: Path) -> None:
    dims = ("time", "member", "lat", "lon")
    write_field(tmp_path / "a.nc", "u850", dims=dims)
    write_field(tmp_path / "b.nc", "u850", dims=dims, axes={"time": hours(8, first=48), "member": Along([2, 3, 4, 5])})
    archive = open_archive(cf(tmp_path, "u850"))
    assert archive.members() == [2, 3]
    with pytest.raises(InputError, match=r"member 1 is not in .*b.nc") as caught:
        archive.open_year(2001, [1])
    assert "2, 3, 4, 5" in caught.value.remedy


def test_a_member_of_an_archive_without_members(tmp_path: Path) -> None:
    write_field(tmp_path / "a.nc", "u850")
    archive = open_archive(cf(tmp_path, "u850"))
    assert archive.members() == [1]
    with pytest.raises(InputError, match="member 2 is not in") as caught:
        archive.open_year(2001, [2])
    assert "no member axis" in caught.value.remedy


def test_a_year_that_is_not_there(tmp_path: Path) -> None:
    for year in (2001, 2002, 2003, 2005):
        write_field(tmp_path / f"{year}.nc", "u850", axes={"time": hours(8, since=f"{year}-03-01")})
    with pytest.raises(InputError, match=r"no data of 'u850' in 2004") as caught:
        open_archive(cf(tmp_path, "u850")).open_year(2004, [1])
    assert "2001-2003, 2005" in caught.value.remedy


def test_no_such_root(tmp_path: Path) -> None:
    assert f"the data root {tmp_path / 'absent'} does not exist" in fails_with(cf(tmp_path / "absent", "u850"))
    write_field(tmp_path / "a.nc")
    assert "is not a folder" in fails_with(cf(tmp_path / "a.nc", "u850"))


def test_no_file_of_the_pattern(tmp_path: Path) -> None:
    assert f"no file below {tmp_path} matches '*.nc'" in fails_with(cf(tmp_path, "u850"))
    assert "pattern '/data/*.nc'" in fails_with(cf(tmp_path, "u850", pattern="/data/*.nc"))


def test_a_file_that_changed_is_read_anew(tmp_path: Path) -> None:
    write_field(tmp_path / "a.nc", "u850")
    assert open_archive(cf(tmp_path, "u850")).years() == [2001]
    (tmp_path / "a.nc").unlink()
    write_field(tmp_path / "a.nc", "u850", axes={"time": hours(9, since="2002-01-01")})
    assert open_archive(cf(tmp_path, "u850")).years() == [2002]


def test_files_are_looked_into_once_for_all_tasks(tmp_path: Path) -> None:
    write_field(tmp_path / "a.nc", "u850")
    open_archive(cf(tmp_path, "u850")).years()
    before = cf_layout._scan.cache_info()
    open_archive(cf(tmp_path, "u850")).years()
    after = cf_layout._scan.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)
