"""Opening files: everything that is wrong with one is said, with its name, and every file is closed again."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import netCDF4
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormtracks.errors import InputError
from stormtracks.reanalysis import open_files
from stormtracks.reanalysis.classic import expected_length
from stormtracks.reanalysis.netcdf import open_netcdf
from stormtracks.settings.campaign import DataSettings
from tests.stormtracks.reanalysis.field_files import Along, hours, write_field
from tests.stormtracks.system_faults import fail_calls, in_child, named, needs_failing_calls

CLASSIC = ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"]


def open_and_fail(path: Path) -> InputError:
    with pytest.raises(InputError) as caught, open_netcdf(path):
        pass
    assert str(path) in caught.value.what
    assert caught.value.remedy and caught.value.permanent
    return caught.value


def test_an_absent_file(tmp_path: Path) -> None:
    assert "there is no file" in open_and_fail(tmp_path / "absent.nc").what


def test_a_folder(tmp_path: Path) -> None:
    assert "is a folder" in open_and_fail(tmp_path).what


@contextmanager
def without_root() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)  # nobody
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_forbidden_file(tmp_path: Path) -> None:
    path = tmp_path / "u.nc"
    write_field(path)
    path.chmod(0)
    with without_root():
        assert "may not be read" in open_and_fail(path).what


@pytest.mark.parametrize("content", [b"", b"CD", b"year,month\n2001,1\n"])
def test_a_file_of_another_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "table.nc"
    path.write_bytes(content)
    assert "is not a NetCDF file" in open_and_fail(path).what


@pytest.mark.parametrize("form", ["NETCDF4", *CLASSIC])
@pytest.mark.parametrize("kept", [0.01, 0.5, 0.999])
def test_a_file_cut_short(tmp_path: Path, form: str, kept: float) -> None:
    path = tmp_path / "u.nc"
    write_field(path, form=form)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert "cut short" in str(open_and_fail(path))


@pytest.mark.parametrize("form", CLASSIC)
def test_a_classic_file_that_lacks_its_last_byte(tmp_path: Path, form: str) -> None:
    # The C library reads the missing byte as zero and says nothing.
    path = tmp_path / "u.nc"
    write_field(path, form=form)
    path.write_bytes(path.read_bytes()[:-1])
    assert "and should have" in open_and_fail(path).what


@pytest.mark.parametrize("form", CLASSIC)
@pytest.mark.parametrize("kept", [8, 20, 60, 150, 300])
def test_a_classic_file_cut_in_its_header(tmp_path: Path, form: str, kept: int) -> None:
    path = tmp_path / "u.nc"
    write_field(path, form=form)
    path.write_bytes(path.read_bytes()[:kept])
    assert "cut short" in str(open_and_fail(path))


def test_a_classic_file_written_as_a_stream_does_not_count_its_records(tmp_path: Path) -> None:
    path = tmp_path / "u.nc"
    write_field(path, axes={"time": Along(np.arange(8.0), unlimited=True)}, form="NETCDF3_CLASSIC")
    content = bytearray(path.read_bytes())
    content[4:8] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert 0 < expected_length(path) < path.stat().st_size


@given(
    form=st.sampled_from(CLASSIC),
    records=st.integers(0, 3),
    variables=st.lists(
        st.tuples(st.booleans(), st.sampled_from(["i1", "i2", "f4", "f8"]), st.integers(1, 5)), min_size=1, max_size=4
    ),
    title=st.text("ab", max_size=5),
)
def test_the_length_of_a_classic_file_is_known(
    tmp_path_factory: pytest.TempPathFactory,
    form: str,
    records: int,
    variables: list[tuple[bool, str, int]],
    title: str,
) -> None:
    path = tmp_path_factory.mktemp("classic") / "file.nc"
    with netCDF4.Dataset(path, "w", format=form) as dataset:  # type: ignore[arg-type]
        dataset.title = title
        dataset.createDimension("time", None)
        for number, (record, dtype, size) in enumerate(variables):
            dataset.createDimension(f"x{number}", size)
            dims = (f"x{number}",)
            variable = dataset.createVariable(f"v{number}", dtype, ("time", *dims) if record else dims)
            variable.setncattr("numbers", np.arange(number, dtype="i2") if number else np.float64(1))
            variable[...] = np.ones((records, size) if record else size)
    length, expected = path.stat().st_size, expected_length(path)
    has_data = records > 0 or any(not record for record, _, _ in variables)
    assert length - 3 <= expected <= length if has_data else expected == 0  # the end may be padded to four bytes


def test_a_damaged_chunk_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "u.nc"
    write_field(path, axes={"time": hours(40)}, zlib=True, chunksizes=(1, 19, 36))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = b"\0" * 200
    path.write_bytes(content)
    series = open_files([path], DataSettings(layout="cf", variable="u850")).open_year(2001, [1])
    try:
        with pytest.raises(InputError, match="cannot be read") as caught:
            for step in range(40):
                series.read(step, step + 1)
        assert str(path) in caught.value.what
        assert "variable 'u850'" in caught.value.what
        assert caught.value.permanent and "fetch it again" in caught.value.remedy
        series.read(0, 1)  # what is whole can still be read
    finally:
        series.close()


@needs_failing_calls
@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT], ids=named)
@pytest.mark.parametrize("form", ["NETCDF4", *CLASSIC])
@pytest.mark.parametrize("at", ["opening", "reading"])
def test_a_fault_of_the_disk_is_no_damage_and_may_pass(
    tmp_path: Path, form: Literal["NETCDF4"], at: str, code: int
) -> None:
    path = tmp_path / "u.nc"
    storage = {"chunksizes": (1, 19, 36)} if form == "NETCDF4" else {}
    write_field(path, axes={"time": hours(400)}, form=form, **storage)
    archive = open_files([path], DataSettings(layout="cf", variable="u850"))

    def refused() -> None:
        if at == "reading":
            series = archive.open_year(2001, [1])
            series.read(0, 1)
            fail_calls(("read", "pread64"), code)
            with pytest.raises(InputError) as caught:
                series.read(200, 399)
        else:
            fail_calls(("read", "pread64"), code)
            with pytest.raises(InputError) as caught:
                archive.years()
        assert str(path) in caught.value.what and os.strerror(code) in caught.value.what
        assert caught.value.remedy and not caught.value.permanent

    assert in_child(refused) == 0


def test_files_are_closed(tmp_path: Path) -> None:
    def is_open() -> bool:
        links = list(Path("/proc/self/fd").iterdir())
        return any(link.is_symlink() and link.resolve() == path.resolve() for link in links)

    path = tmp_path / "u.nc"
    write_field(path)
    archive = open_files([path], DataSettings(layout="cf", variable="u850"))
    series = archive.open_year(2001, [1])
    assert not is_open()
    series.read(0, 1)
    assert is_open()
    series.close()
    assert not is_open()
    with pytest.raises(InputError):
        archive.open_year(2001, [7])
    assert not is_open()
