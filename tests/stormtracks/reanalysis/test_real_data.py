"""Real reanalyses: what the readers make of the files as their centres wrote them."""

from __future__ import annotations

from pathlib import Path

import netCDF4
import numpy as np
import pytest

from stormtracks.reanalysis import open_archive
from stormtracks.reanalysis.archive import Quantity
from stormtracks.settings.campaign import DataSettings
from tests.stormtracks.reanalysis.field_files import read_year

PRESSURE = "air_pressure_at_mean_sea_level"


@pytest.mark.parametrize(
    ("asked", "quantity"),
    [
        ("prmsl", Quantity("prmsl", PRESSURE, "Pa")),
        ("msl", Quantity("prmsl", PRESSURE, "Pa")),
        ("vo850", Quantity("vo850", "atmosphere_relative_vorticity", "s-1")),
        ("u", Quantity("u850", "eastward_wind", "m s-1")),
        ("northward_wind", Quantity("v850", "northward_wind", "m s-1")),
    ],
)
def test_a_season_of_era5(shared_data: Path, asked: str, quantity: Quantity) -> None:
    root = shared_data / "era5_djf"
    archive = open_archive(DataSettings(layout="cf", root=root, variable=asked))
    assert archive.years() == [2025, 2026]
    assert archive.members() == [1]
    fields = [read_year(archive, year)[0] for year in archive.years()]
    with netCDF4.Dataset(root / f"{quantity.name}.nc") as dataset:
        np.testing.assert_array_equal(np.concatenate(fields), dataset[quantity.name][:])
    december = archive.open_year(2025, [1])
    assert december.quantities == (quantity,)
    assert december.grid.shape == (73, 144)
    assert (december.times.date(0), december.times.date(-1)) == ("2025-12-01 00:00:00", "2025-12-31 18:00:00")


def test_the_wind_of_era5(shared_data: Path) -> None:
    series = open_archive(DataSettings(layout="cf", root=shared_data / "era5_djf")).open_year(2026, [1])
    assert tuple(series.inputs) == ("u850.nc", "v850.nc")
    assert len(series.times) == 236


def test_the_great_storm_of_1987_in_56_members(shared_data: Path) -> None:
    root = shared_data / "20cr2c_1987101606"
    archive = open_archive(DataSettings(layout="cf", root=root, variable="prmsl"))
    assert archive.years() == [1987]
    assert archive.members() == list(range(1, 57))
    series = archive.open_year(1987, [56])
    assert series.times.date(0) == "1987-10-16 06:00:00"
    assert series.quantities == (Quantity("prmsl", PRESSURE, "Pa"),)
    with netCDF4.Dataset(root / "20CR2c.1987101606.prmsl.nc") as dataset:
        for member in (1, 56):
            np.testing.assert_array_equal(read_year(archive, 1987, member)[0][0], dataset["prmsl"][member - 1])


@pytest.mark.parametrize("wind", [("u10m", "v10m"), ("10u", "10v"), ("uas", "vas")])
def test_winds_on_a_gaussian_grid(shared_data: Path, wind: tuple[str, str]) -> None:
    archive = open_archive(DataSettings(layout="cf", root=shared_data / "20cr2c_1987101606", wind=wind))
    series = archive.open_year(1987, [1])
    assert series.grid.shape == (94, 192)
    assert [(q.standard_name, q.units) for q in series.quantities] == [
        ("eastward_wind", "m s-1"),
        ("northward_wind", "m s-1"),
    ]
    u, v = series.read(0, 1)
    series.close()
    assert 20 < np.hypot(u, v).max() < 40


def test_a_quantity_that_is_not_known_keeps_its_units(shared_data: Path) -> None:
    archive = open_archive(DataSettings(layout="cf", root=shared_data / "20cr2c_1987101606", variable="prate"))
    assert archive.open_year(1987, [1]).quantities == (Quantity("prate", "", "kg m**-2 s**-1"),)
