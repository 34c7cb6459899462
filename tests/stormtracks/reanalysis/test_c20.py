"""The layouts of the 20th Century Reanalysis: files found by name, years and members without looking into them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from stormtracks.errors import InputError
from stormtracks.reanalysis import open_archive
from stormtracks.settings.campaign import DataSettings
from tests.stormtracks.reanalysis.field_files import Along, hours, read_year, write_field

DIMS = ("time", "member", "lat", "lon")


def mixed_calendar(year: int, steps: int = 1460) -> Along:
    """Six-hourly steps from 1 January, in hours since the year 1 of the mixed calendar, which a file of 20CR uses."""
    proleptic = np.datetime64(f"{year}-01-01", "h") - np.datetime64("0001-01-01", "h")
    first = 48 + int(proleptic / np.timedelta64(1, "h"))  # the mixed calendar had 2 days more by then
    return Along(first + 6.0 * np.arange(steps), {"units": "hours since 1-1-1 00:00:0.0"})


def write_c20(root: Path, year: int = 2001, steps: int = 8, **changes: Any) -> dict[str, npt.NDArray[Any]]:
    """Both winds of one year, three members."""
    options: dict[str, Any] = {"dims": DIMS, "axes": {"time": mixed_calendar(year, steps)}} | changes
    return {name: write_field(root / f"{year}/{name}_{year}.nc", name, **options) for name in ("u850", "v850")}


def write_c20v3(root: Path, year: int, members: list[int], names: tuple[str, ...] = ("UGRD850", "VGRD850")) -> None:
    for member in members:
        for name in names:
            write_field(
                root / f"{year}/{name}.{year}_mem{member:03d}.nc",
                name,
                axes={"time": hours(8, step=3, since=f"{year}-01-01")},
                values=np.full((8, 19, 36), member, dtype="f4"),
            )


def c20(root: Path, **data: Any) -> DataSettings:
    return DataSettings(layout="c20", root=root, **data)


def c20v3(root: Path, **data: Any) -> DataSettings:
    return DataSettings(layout="c20v3", root=root, **data)


def test_a_year_of_one_member(tmp_path: Path) -> None:
    stored = write_c20(tmp_path)
    archive = open_archive(c20(tmp_path))
    assert archive.years() == [2001]
    assert archive.members() == [1, 2, 3]
    assert archive.has_year(2001, 3)
    assert not archive.has_year(2001, 4)
    assert not archive.has_year(2002, 1)
    series = archive.open_year(2001, [2])
    assert series.times.date(0) == "2001-01-01 00:00:00"
    assert series.times.date(-1) == "2001-01-02 18:00:00"
    assert tuple(series.inputs) == ("2001/u850_2001.nc", "2001/v850_2001.nc")
    assert series.file_starts == (0,)
    series.close()
    np.testing.assert_array_equal(read_year(archive, member=2), [field[:, 1] for field in stored.values()])


@pytest.mark.parametrize("dims", [("member", "time", "lat", "lon"), ("lon", "lat", "time", "member")])
def test_axes_in_any_order(tmp_path: Path, dims: tuple[str, ...]) -> None:
    stored = write_c20(tmp_path, dims=dims)
    fields = read_year(open_archive(c20(tmp_path)), member=3)
    order = [dims.index(dim) for dim in DIMS]
    for field, values in zip(fields, stored.values(), strict=True):
        assert field.flags.c_contiguous
        np.testing.assert_array_equal(field, values.transpose(order)[:, 2])


def test_only_the_steps_of_the_year_are_given(tmp_path: Path) -> None:
    stored = write_c20(tmp_path, axes={"time": hours(12, first=-12)})
    archive = open_archive(c20(tmp_path))
    assert len(archive.open_year(2001, [1]).times) == 10
    np.testing.assert_array_equal(read_year(archive)[0], stored["u850"][2:, 0])


def test_a_single_field(tmp_path: Path) -> None:
    values = write_field(tmp_path / "2001/prmsl_2001.nc", "prmsl", {"units": "Pa"}, dims=DIMS)
    archive = open_archive(c20(tmp_path, variable="prmsl"))
    np.testing.assert_array_equal(read_year(archive)[0], values[:, 0])


def test_a_file_without_members_holds_member_one(tmp_path: Path) -> None:
    write_c20(tmp_path, dims=("time", "lat", "lon"))
    assert open_archive(c20(tmp_path)).members() == [1]


def test_a_year_counts_only_if_every_variable_is_there(tmp_path: Path) -> None:
    for year in (2001, 2003, 2004):
        write_c20(tmp_path, year)
    write_field(tmp_path / "2002/u850_2002.nc")
    (tmp_path / "2004/v850_2004.nc").rename(tmp_path / "2004/v850_2005.nc")
    (tmp_path / "notes").mkdir()
    archive = open_archive(c20(tmp_path))
    assert archive.years() == [2001, 2003]
    assert not archive.has_year(2002, 1)


def test_years_and_members_are_found_with_one_file_opened(tmp_path: Path) -> None:
    write_c20(tmp_path, 2001)
    for year in range(2002, 2010):
        for name in ("u850", "v850"):
            path = tmp_path / f"{year}/{name}_{year}.nc"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"whoever looks into this fails")
    (tmp_path / "2001/v850_2001.nc").write_bytes(b"and into this as well")
    archive = open_archive(c20(tmp_path))
    assert archive.years() == list(range(2001, 2010))
    assert archive.members() == [1, 2, 3]


def fails_with(data: DataSettings, year: int = 2001, member: int = 1) -> InputError:
    with pytest.raises(InputError) as caught:
        open_archive(data).open_year(year, [member])
    assert caught.value.remedy
    return caught.value


def test_a_missing_root(tmp_path: Path) -> None:
    assert f"{tmp_path / 'absent'} does not exist" in fails_with(c20(tmp_path / "absent")).what


def test_a_missing_file(tmp_path: Path) -> None:
    write_c20(tmp_path, 2001)
    write_c20(tmp_path, 2002)
    (tmp_path / "2001/v850_2001.nc").unlink()
    error = fails_with(c20(tmp_path))
    assert error.what == f"there is no file {tmp_path}/2001/v850_2001.nc"
    assert error.remedy == "the layout is <root>/<year>/<variable>_<year>.nc; the years there are 2002"


def test_a_year_that_is_not_there(tmp_path: Path) -> None:
    write_c20(tmp_path, 2001)
    error = fails_with(c20(tmp_path), 1999)
    assert f"{tmp_path}/1999/u850_1999.nc" in error.what
    assert "the years there are 2001" in error.remedy


def test_an_empty_root(tmp_path: Path) -> None:
    assert open_archive(c20(tmp_path)).years() == []
    assert "no year there is complete" in fails_with(c20(tmp_path)).remedy
    with pytest.raises(InputError, match=r"no year below .* has files of u850, v850"):
        open_archive(c20(tmp_path)).members()


def test_a_file_of_another_year(tmp_path: Path) -> None:
    write_c20(tmp_path, 2001, axes={"time": hours(8, since="1999-12-31")})
    assert "has no time step in 2001, but in 1999-2000" in fails_with(c20(tmp_path)).what


def test_a_missing_variable(tmp_path: Path) -> None:
    write_field(tmp_path / "2001/u850_2001.nc", "temperature", {"units": "K"}, dims=DIMS)
    write_field(tmp_path / "2001/v850_2001.nc", "v850", dims=DIMS)
    error = fails_with(c20(tmp_path))
    assert error.what.startswith(f"variable 'u850' is not in {tmp_path}/2001/u850_2001.nc")
    assert error.what.endswith("the fields there are temperature")


def test_a_level_other_than_the_one_in_the_name(tmp_path: Path) -> None:
    write_c20(tmp_path)
    error = fails_with(c20(tmp_path, level=500))
    assert "is at 850 hPa, but level is set to 500 hPa" in error.what
    assert "leave level out" in error.remedy


def test_a_missing_member(tmp_path: Path) -> None:
    write_c20(tmp_path)
    error = fails_with(c20(tmp_path), member=57)
    assert error.what == f"member 57 is not in {tmp_path}/2001/u850_2001.nc"
    assert "1, 2, 3" in error.remedy


def test_different_grids(tmp_path: Path) -> None:
    write_c20(tmp_path)
    (tmp_path / "2001/v850_2001.nc").unlink()
    coarse = {"lat": Along(np.linspace(90, -90, 10), {"units": "degrees_north"})}
    write_field(tmp_path / "2001/v850_2001.nc", "v850", dims=DIMS, axes=coarse)
    assert "are on different grids: 19 x 36 points against 10 x 36" in fails_with(c20(tmp_path)).what


def test_one_file_per_member(tmp_path: Path) -> None:
    write_c20v3(tmp_path, 1900, [1, 2, 80])
    write_c20v3(tmp_path, 1901, [1, 3])
    archive = open_archive(c20v3(tmp_path, wind=("UGRD850", "VGRD850")))
    assert archive.years() == [1900, 1901]
    assert archive.members() == [1, 2, 3, 80]
    assert archive.has_year(1900, 80)
    assert not archive.has_year(1901, 80)
    series = archive.open_year(1900, [80])
    assert tuple(series.inputs) == ("1900/UGRD850.1900_mem080.nc", "1900/VGRD850.1900_mem080.nc")
    u, v = series.read(0, 8)
    assert (u == 80).all() and (v == 80).all()
    series.close()


def test_names_of_files_may_be_given_by_alias(tmp_path: Path) -> None:
    write_c20v3(tmp_path, 1900, [1])
    write_c20v3(tmp_path, 1900, [1], names=("UGRD10m", "VGRD10m"))
    series = open_archive(c20v3(tmp_path)).open_year(1900, [1])  # u850 and v850 unless told otherwise
    assert tuple(series.inputs) == ("1900/UGRD850.1900_mem001.nc", "1900/VGRD850.1900_mem001.nc")


@pytest.mark.parametrize("member", [1, 7])
def test_a_member_axis_in_the_file_of_one_member_says_nothing(tmp_path: Path, member: int) -> None:
    path = tmp_path / "1900/PRMSL.1900_mem007.nc"
    axes = {"time": hours(8, since="1900-01-01"), "member": Along([member])}
    values = write_field(path, "PRMSL", {"units": "Pa"}, dims=DIMS, axes=axes)
    archive = open_archive(c20v3(tmp_path, variable="PRMSL"))
    assert archive.members() == [7]
    np.testing.assert_array_equal(read_year(archive, 1900, 7)[0], values[:, 0])


def test_many_members_in_the_file_of_one(tmp_path: Path) -> None:
    write_field(tmp_path / "2001/PRMSL.2001_mem001.nc", "PRMSL", {"units": "Pa"}, dims=DIMS)
    assert "has 3 members" in fails_with(c20v3(tmp_path, variable="PRMSL")).what


def test_the_name_of_the_file_says_what_its_only_field_is(tmp_path: Path) -> None:
    path = tmp_path / "2001/PRMSL.2001_mem001.nc"
    write_field(path, "pressure_reduced", {"units": "Pa"})
    assert len(read_year(open_archive(c20v3(tmp_path, variable="PRMSL")))) == 1
    path.unlink()
    write_field(path, "t", {"units": "K"})
    assert "the fields there are t (air_temperature)" in fails_with(c20v3(tmp_path, variable="PRMSL")).what


def test_a_missing_file_of_one_member(tmp_path: Path) -> None:
    write_c20v3(tmp_path, 1900, [1, 2])
    error = fails_with(c20v3(tmp_path, wind=("UGRD850", "VGRD850")), 1900, 3)
    assert error.what == f"there is no file {tmp_path}/1900/UGRD850.1900_mem003.nc"
    assert "<root>/<year>/<variable>.<year>_mem<member>.nc" in error.remedy
