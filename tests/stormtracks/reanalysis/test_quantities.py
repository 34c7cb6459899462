"""Names and units: the common ones are understood, the others refused and never guessed."""

from __future__ import annotations

import pytest

from stormtracks.errors import InputError
from stormtracks.reanalysis.quantities import Identity, identify, match_name, normal_standard_name, si_units

U, V = "eastward_wind", "northward_wind"
MSLP = "air_pressure_at_mean_sea_level"
VORTICITY = "atmosphere_relative_vorticity"


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("u850", Identity(U, 850.0)),
        ("UGRD850", Identity(U, 850.0)),
        ("ua850", Identity(U, 850.0)),
        ("u_850", Identity(U, 850.0)),
        ("uwnd", Identity(U)),
        ("u9950", Identity(U, "sigma 0.995")),
        ("u10", Identity(U, "10 m")),
        ("uwnd.10m", Identity(U, "10 m")),
        ("UGRD10m", Identity(U, "10 m")),
        ("uas", Identity(U, "10 m")),
        ("10v", Identity(V, "10 m")),
        ("u100", Identity(U, "100 m")),
        ("u100hPa", Identity(U, 100.0)),
        ("vo850", Identity(VORTICITY, 850.0)),
        ("vo", Identity(VORTICITY)),
        ("PRMSL", Identity(MSLP)),
        ("msl", Identity(MSLP)),
        ("air_pressure_at_sea_level", Identity(MSLP)),
        ("eastward_wind", Identity(U)),
        ("TMP2m", Identity("air_temperature", "2 m")),
        ("cape", Identity("")),
        ("", Identity("")),
        ("850", Identity("")),
    ],
)
def test_what_a_name_says(name: str, identity: Identity) -> None:
    assert identify(name) == identity


def test_older_and_newer_standard_names_become_one() -> None:
    assert normal_standard_name("air_pressure_at_sea_level") == MSLP
    assert normal_standard_name("atmosphere_upward_relative_vorticity") == VORTICITY
    assert normal_standard_name("unknown") == ""
    assert normal_standard_name("toa_brightness_temperature") == "toa_brightness_temperature"


@pytest.mark.parametrize(
    ("wanted", "available", "found"),
    [
        ("u850", ["UGRD850", "u850"], "u850"),
        ("u850", ["PRMSL", "UGRD850", "UGRD10m"], "UGRD850"),
        ("u850", ["ua850", "UGRD850"], None),
        ("u850", ["u500", "u"], None),
        ("cape", ["CAPE"], None),
    ],
)
def test_names_match_only_if_one_does(wanted: str, available: list[str], found: str | None) -> None:
    assert match_name(wanted, available) == found


@pytest.mark.parametrize(
    ("standard_name", "units", "si", "factor"),
    [
        (MSLP, "Pa", "Pa", 1),
        (MSLP, "hPa", "Pa", 100),
        (MSLP, "millibars", "Pa", 100),
        (MSLP, "kPa", "Pa", 1000),
        (U, "m s-1", "m s-1", 1),
        (U, "m s**-1", "m s-1", 1),
        (U, "m/s", "m s-1", 1),
        (V, "knots", "m s-1", 1852 / 3600),
        (VORTICITY, "s**-1", "s-1", 1),
        (VORTICITY, "1/s", "s-1", 1),
        ("precipitation_flux", "kg m-2 s-1", "kg m-2 s-1", 1),
        ("", "furlongs", "furlongs", 1),
    ],
)
def test_units(standard_name: str, units: str, si: str, factor: float) -> None:
    assert si_units(standard_name, units, variable="x", file="x.nc") == (si, factor)


@pytest.mark.parametrize(("standard_name", "units"), [(MSLP, "m"), (U, ""), (VORTICITY, "1e-5 s-1"), (U, "Pa")])
def test_wrong_units_are_refused_with_what_is_accepted(standard_name: str, units: str) -> None:
    with pytest.raises(InputError) as caught:
        si_units(standard_name, units, variable="field", file="some.nc")
    for part in ("'field'", "some.nc", standard_name, repr(units) if units else "no units", "accepted are"):
        assert part in caught.value.what
    assert "ncatted" in caught.value.remedy
