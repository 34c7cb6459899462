"""From stored numbers to fields, pinned to what netCDF4 makes of the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormtracks.errors import InputError
from stormtracks.reanalysis.packing import Packing, packing_of
from tests.stormtracks.reanalysis.field_files import write_field

DIMS = ("lat", "lon")
SHAPE = (19, 36)


def unpacked(path: Path, *, factor: float = 1.0) -> npt.NDArray[np.float32]:
    with netCDF4.Dataset(path) as dataset:
        dataset["x"].set_auto_maskandscale(False)
        return packing_of(dataset["x"], factor=factor, file=str(path)).unpack(dataset["x"][...])


def unpacked_by_netcdf4(path: Path) -> npt.NDArray[np.float64]:
    with netCDF4.Dataset(path) as dataset:
        return np.ma.filled(np.ma.asarray(dataset["x"][...]).astype(np.float64), np.nan)


def assert_same(path: Path, *, factor: float = 1.0) -> None:
    ours, theirs = unpacked(path, factor=factor), factor * unpacked_by_netcdf4(path)
    assert ours.dtype == np.float32
    assert ours.dtype.isnative
    np.testing.assert_allclose(ours, theirs, rtol=3e-7, atol=1e-6)


@given(
    dtype=st.sampled_from(["i1", "u1", "i2", "u2", "i4", "f4", "f8"]),
    packing=st.sampled_from([{}, {"scale_factor": 0.01}, {"scale_factor": 0.25, "add_offset": 1000.0}]),
    fill=st.sampled_from([None, 7]),
    missing=st.sampled_from([None, 9, [9, 11]]),
    factor=st.sampled_from([1.0, 100.0]),
    form=st.sampled_from(["NETCDF4", "NETCDF3_64BIT_DATA"]),
)
def test_unpacking_agrees_with_netcdf4(
    tmp_path_factory: pytest.TempPathFactory,
    dtype: str,
    packing: dict[str, float],
    fill: int | None,
    missing: int | list[int] | None,
    factor: float,
    form: str,
) -> None:
    path = tmp_path_factory.mktemp("packing") / "x.nc"
    kind = np.dtype(dtype).type
    attributes: dict[str, Any] = dict(packing)
    if fill is not None:
        attributes["_FillValue"] = kind(fill)
    if missing is not None:
        attributes["missing_value"] = np.array(missing, dtype=dtype)
    values = np.random.default_rng(1).integers(0, 13, SHAPE).astype(dtype)
    write_field(path, "x", attributes, dims=DIMS, values=values, dtype=dtype, form=form)
    assert_same(path, factor=factor)


def test_what_was_never_written_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "x.nc"
    write_field(path, "x", dims=DIMS, values=np.full(SHAPE, netCDF4.default_fillvals["f4"], dtype="f4"))
    assert np.isnan(unpacked(path)).all()


def test_a_fill_value_too_large_for_float32_is_missing_and_warns_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.nc"
    values = np.full(SHAPE, 1e300)
    values[0] = 2.0
    write_field(path, "x", {"_FillValue": 1e300}, dims=DIMS, values=values, dtype="f8")
    with np.errstate(all="raise"):
        assert_same(path)


def test_a_missing_value_given_in_another_type_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.nc"
    values = np.full(SHAPE, 1e20, dtype="f4")
    values[0] = 2.0
    write_field(path, "x", {"missing_value": np.float64(1e20)}, dims=DIMS, values=values)
    field = unpacked(path)
    assert np.isnan(field[1:]).all()
    assert (field[0] == 2).all()


@pytest.mark.parametrize("impossible", [np.float64(np.nan), np.float64(-1e300), np.float64(0.5), np.int64(70000)])
def test_a_missing_value_that_the_type_cannot_hold_stands_for_nothing(tmp_path: Path, impossible: np.generic) -> None:
    path = tmp_path / "x.nc"
    values = np.arange(19 * 36, dtype="i2").reshape(SHAPE)
    write_field(path, "x", {"missing_value": impossible}, dims=DIMS, values=values, dtype="i2")
    np.testing.assert_array_equal(unpacked(path), values)


def test_unsigned_numbers_in_a_signed_type(tmp_path: Path) -> None:
    path = tmp_path / "x.nc"
    values = np.arange(19 * 36, dtype="u2").reshape(SHAPE) * 90
    attributes = {"_Unsigned": "true", "scale_factor": 0.5, "_FillValue": np.int16(-1)}
    write_field(path, "x", attributes, dims=DIMS, values=values.view("i2"), dtype="i2")
    np.testing.assert_array_equal(unpacked(path), values * 0.5)


def test_numbers_of_the_other_byte_order(tmp_path: Path) -> None:
    path = tmp_path / "x.nc"
    write_field(path, "x", dims=DIMS, dtype=">f4", endian="big")
    assert_same(path)


def test_a_plain_float_field_is_not_copied() -> None:
    stored = np.ones((3, 4), dtype=np.float32)
    plain = Packing(np.dtype("f4"), (np.float32(9.0),))
    assert plain.unpack(stored) is stored
    stored[1, 1] = 9
    assert plain.unpack(stored) is stored
    assert np.isnan(stored[1, 1])


@pytest.mark.parametrize("name", ["scale_factor", "add_offset", "missing_value"])
def test_text_where_a_number_belongs(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.nc"
    write_field(path, "x", {name: "many"}, dims=DIMS)
    with netCDF4.Dataset(path) as dataset, pytest.raises(InputError, match="not a number") as caught:
        packing_of(dataset["x"], factor=1.0, file=str(path))
    assert name in caught.value.what
    assert str(path) in caught.value.what


def test_a_variable_of_text(tmp_path: Path) -> None:
    path = tmp_path / "x.nc"
    write_field(path, "x", {}, dims=DIMS, values=np.full(SHAPE, b"a"), dtype="S1")
    with netCDF4.Dataset(path) as dataset, pytest.raises(InputError, match="does not hold numbers"):
        packing_of(dataset["x"], factor=1.0, file=str(path))
