"""Chunks read past the HDF5 library: the very bytes that it reads, or else it is asked."""

from __future__ import annotations

import errno
import itertools
import os
import re
import subprocess
import sys
import threading
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import deflate
import h5py
import netCDF4
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormtracks.errors import InputError
from stormtracks.inputs import stamp_of
from stormtracks.reanalysis import chunks, sources
from stormtracks.reanalysis.candidates import Request
from stormtracks.reanalysis.chunks import ChunkReader, StrangeChunkError, chunk_table
from stormtracks.reanalysis.netcdf import open_netcdf
from stormtracks.reanalysis.sources import Source, SourceReader, find_source
from tests.stormtracks.reanalysis.field_files import AXES, STANDARD, add_scalar, hours, longitudes, write_field
from tests.stormtracks.system_faults import fail_calls, in_child, named, needs_failing_calls

Numbers = npt.NDArray[Any]
DTYPES = [order + kind for kind in ("i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8") for order in "<>"] + ["i1", "u1"]
ROLES = ("time", "member", "level", "lat", "lon")


@pytest.fixture(autouse=True, scope="module")
def small_chunks() -> Iterator[None]:
    """Chunks of a few bytes are read here as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "_SMALLEST", 0)
        yield


def stored_in(path: Path, name: str = "u850") -> Numbers:
    """All numbers of a variable, as the NetCDF library reads them, in this machine's byte order."""
    with netCDF4.Dataset(path) as dataset:
        dataset[name].set_auto_maskandscale(False)
        numbers = np.asarray(dataset[name][...])
    return numbers.astype(numbers.dtype.newbyteorder("="))


def same_bits(ours: Numbers, theirs: Numbers) -> bool:
    return ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()


def source_of(path: Path, name: str = "u850") -> Source:
    stamp = stamp_of(path)
    with open_netcdf(path) as dataset:
        source = find_source(dataset, path, Request(name), stamp=stamp)
    assert source is not None
    return source


def known(table: chunks.ChunkTable | None) -> chunks.ChunkTable:
    assert table is not None
    return table


def table_of(path: Path, name: str = "u850") -> chunks.ChunkTable | None:
    return chunk_table(path, stamp_of(path), name)


# Every form that is known


@st.composite
def forms(draw: st.DrawFn) -> dict[str, Any]:
    """How a variable may be stored, and what of it is read."""
    optional = draw(st.sets(st.sampled_from(ROLES[:3])))
    dims = draw(st.permutations([*(role for role in ROLES if role in optional), "lat", "lon"]))
    sizes = {"time": draw(st.integers(1, 7)), "member": draw(st.integers(1, 4)), "level": draw(st.integers(1, 3))}
    sizes |= {"lat": draw(st.integers(1, 5)), "lon": draw(st.integers(1, 8))}
    unlimited = draw(st.booleans()) and "time" in dims
    beyond = {"time": 2 * unlimited}
    steps = sizes["time"] if "time" in dims else 1
    members = draw(st.permutations(range(sizes["member"]))) if "member" in dims else [0]
    return {
        "dims": dims,
        "sizes": sizes,
        "unlimited": unlimited,
        "chunk": [draw(st.integers(1, sizes[dim] + beyond.get(dim, 0))) for dim in dims],
        "dtype": draw(st.sampled_from(DTYPES)),
        "complevel": draw(st.integers(1, 9)),
        "shuffle": draw(st.booleans()),
        "level": draw(st.integers(0, sizes["level"] - 1)) if "level" in dims else 0,
        "members": members[: draw(st.integers(1, len(members)))],
        "cuts": sorted({0, steps, *draw(st.lists(st.integers(0, steps), max_size=3))}),
    }


def write_form(path: Path, form: dict[str, Any]) -> None:
    dtype = np.dtype(form["dtype"])
    shape = [form["sizes"][dim] for dim in form["dims"]]
    rng = np.random.default_rng(zlib.crc32(repr(form).encode()))
    # All bits, those of NaN and infinity among them, but with repetitions, so that there is something to compress.
    few = np.frombuffer(rng.bytes(5 * dtype.itemsize), dtype.newbyteorder("="))
    with netCDF4.Dataset(path, "w") as dataset:
        for dim, size in zip(form["dims"], shape, strict=True):
            dataset.createDimension(dim, None if dim == "time" and form["unlimited"] else size)
        variable = dataset.createVariable(
            "u850",
            dtype,
            form["dims"],
            zlib=True,
            complevel=form["complevel"],
            shuffle=form["shuffle"],
            chunksizes=form["chunk"],
            endian={">": "big", "<": "little"}.get(dtype.byteorder, "native"),
        )
        variable.set_auto_maskandscale(False)
        variable[...] = rng.choice(few, shape)


def expected_of(path: Path, dims: Sequence[str], *, level: int, members: Sequence[int]) -> Numbers:
    """All steps, with the axes in order."""
    numbers, left = stored_in(path), list(dims)
    if "level" in left:
        numbers = numbers.take(level, axis=left.index("level"))
        left.remove("level")
    for role in ("lon", "lat", "time", "member"):
        numbers = np.moveaxis(numbers, left.index(role), 0) if role in left else numbers[np.newaxis]
        left = [role, *(dim for dim in left if dim != role)]
    return numbers[list(members)]


@given(forms())
def test_the_numbers_are_those_of_the_library_bit_for_bit(form: dict[str, Any]) -> None:
    dims, level, members = form["dims"], form["level"], form["members"]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "u.nc"
        write_form(path, form)
        expected = expected_of(path, dims, level=level, members=members)
        with closing(ChunkReader(path, known(table_of(path)), roles=dims, level=level, members=members)) as reader:
            for start, stop in itertools.pairwise(form["cuts"]):
                assert same_bits(reader.read(start, stop), expected[:, start:stop])


PACKINGS = [
    ("f4", {}),
    ("f4", {"_FillValue": np.float32(-999)}),
    ("f8", {"missing_value": 1e30}),
    ("i2", {"scale_factor": 0.01, "add_offset": -20.0, "_FillValue": np.int16(-32767)}),
    ("i2", {"_Unsigned": "true", "scale_factor": 0.5}),
    ("i1", {"_Unsigned": "true", "_FillValue": np.int8(-1)}),
    ("u2", {"missing_value": np.uint16(7)}),
    ("i4", {"scale_factor": np.float32(0.1)}),
]


@given(
    packing=st.sampled_from(PACKINGS),
    endian=st.sampled_from(["native", "big", "little"]),
    rolled=st.booleans(),
    descending=st.booleans(),
    timeless=st.booleans(),
    chunk=st.tuples(st.integers(1, 8), st.integers(5, 19), st.integers(9, 36)),
    cut=st.integers(1, 7),
)
def test_fields_are_those_of_the_library(
    packing: tuple[str, dict[str, Any]],
    endian: str,
    rolled: bool,
    descending: bool,
    timeless: bool,
    chunk: tuple[int, int, int],
    cut: int,
) -> None:
    dtype, attributes = packing
    lon = longitudes(np.arange(-180, 180, 10.0)[:: -1 if descending else 1]) if rolled or descending else AXES["lon"]
    dims = ("lat", "lon") if timeless else ("time", "lat", "lon")
    shape = tuple(np.size(AXES[dim].values) for dim in dims)
    values = np.random.default_rng(cut).integers(0, 120, shape).astype(dtype)
    values[..., ::5] = attributes.get("_FillValue", attributes.get("missing_value", 3))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "u.nc"
        write_field(
            path,
            attributes={"units": "m s-1", **attributes},
            dims=dims,
            axes={"lon": lon},
            values=values,
            dtype=np.dtype(dtype).newbyteorder(endian).str,
            endian="native" if dtype == "i1" else endian,
            zlib=True,
            chunksizes=chunk[-len(dims) :],
        )
        if timeless:
            add_scalar(path, "time", 0.0, {"units": "hours since 2001-01-01", "standard_name": "time"}, of="u850")
        known(table_of(path))
        source = source_of(path)
        expected = source.packing.unpack(expected_of(path, dims, level=0, members=[0]))
        if source.columns is not None:
            expected = expected[..., source.columns]
        cuts = [0, 1] if timeless else [0, cut, 8]
        with closing(SourceReader(source, None)) as reader:
            for start, stop in itertools.pairwise(cuts):
                assert same_bits(reader.read(start, stop), expected[:, start:stop])


# Members of one file


@pytest.mark.parametrize("dims", [("time", "member", "lat", "lon"), ("member", "lat", "time", "lon")])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("members", [[2], [1, 2, 3], [3, 1]])
@pytest.mark.parametrize("compressed", [True, False])
def test_members_in_the_order_wanted(
    tmp_path: Path, dims: tuple[str, ...], depth: int, members: list[int], compressed: bool
) -> None:
    chunk = {"time": 3, "member": depth, "lat": 10, "lon": 36}
    write_field(tmp_path / "u.nc", dims=dims, zlib=compressed, chunksizes=[chunk[dim] for dim in dims])
    expected = expected_of(tmp_path / "u.nc", dims, level=0, members=[member - 1 for member in members])
    with closing(SourceReader(source_of(tmp_path / "u.nc"), members)) as reader:
        for steps in (slice(0, 4), slice(4, 8)):
            ours = reader.read(steps.start, steps.stop)
            assert same_bits(ours, expected[:, steps])
            assert ours.flags.c_contiguous


@pytest.mark.parametrize("members", [None, [4], [1, 4]])
def test_members_that_are_not_there(tmp_path: Path, members: list[int] | None) -> None:
    dims = ("time", "member", "lat", "lon")
    write_field(tmp_path / "u.nc", dims=dims)
    with pytest.raises(InputError, match="3 members" if members is None else "member 4 is not in"):
        SourceReader(source_of(tmp_path / "u.nc"), members)


@pytest.mark.parametrize("block", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("members", [[2], [1, 2, 3]])
def test_each_chunk_is_unpacked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, members: list[int]
) -> None:
    dims = ("time", "member", "lat", "lon")
    write_field(tmp_path / "u.nc", dims=dims, zlib=True, chunksizes=(3, 3, 10, 36))
    unpacked = Counter[bytes]()

    def counted(packed: bytes, size: int) -> bytearray:
        unpacked[packed] += 1
        return deflate.zlib_decompress(packed, size)

    monkeypatch.setattr(chunks, "zlib_decompress", counted)
    with closing(SourceReader(source_of(tmp_path / "u.nc"), members)) as reader:
        for start in range(0, 8, block):
            reader.read(start, min(start + block, 8))
    assert list(unpacked.values()) == [1] * 6  # three along time, two along latitude


# What is left to the library


@pytest.mark.parametrize(
    "storage",
    [
        {},
        {"chunksizes": (1, 19, 36)},
        {"zlib": True, "fletcher32": True},
        {"fletcher32": True},
        {"compression": "szip"},
        {"compression": "zstd"},
        {"compression": "bzip2"},
        {"form": "NETCDF3_CLASSIC"},
    ],
    ids=repr,
)
def test_other_ways_of_storing(tmp_path: Path, storage: dict[str, Any]) -> None:
    values = write_field(tmp_path / "u.nc", **storage)
    assert table_of(tmp_path / "u.nc") is None
    with closing(SourceReader(source_of(tmp_path / "u.nc"), None)) as reader:
        assert same_bits(reader.read(2, 5)[0], values[2:5])


@pytest.mark.parametrize(
    "filters", [{"scaleoffset": 0}, {"compression": "lzf"}, {"compression": 1, "fletcher32": True}]
)
def test_filters_that_netcdf_cannot_write(tmp_path: Path, filters: dict[str, Any]) -> None:
    with h5py.File(tmp_path / "u.nc", "w") as file:
        file.create_dataset("u850", data=np.arange(800).reshape(2, 20, 20), chunks=(1, 20, 20), **filters)
    assert table_of(tmp_path / "u.nc") is None


def test_an_absent_variable_is_none_of_ours(tmp_path: Path) -> None:
    write_field(tmp_path / "u.nc", zlib=True)
    assert table_of(tmp_path / "u.nc", "v850") is None


def test_small_chunks_are_left_to_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_SMALLEST", 19 * 36 * 4 + 1)
    write_field(tmp_path / "u.nc", zlib=True, chunksizes=(1, 19, 36))
    assert table_of(tmp_path / "u.nc") is None
    write_field(tmp_path / "v.nc", zlib=True, chunksizes=(2, 19, 36))
    assert table_of(tmp_path / "v.nc") is not None


OPEN_END = {"time": replace(hours(4), unlimited=True)}


def test_chunks_never_written_are_missing(tmp_path: Path) -> None:
    values = write_field(tmp_path / "u.nc", axes=OPEN_END, zlib=True, chunksizes=(2, 19, 36))
    with netCDF4.Dataset(tmp_path / "u.nc", "a") as dataset:
        dataset["time"][:10] = 6.0 * np.arange(10)
        dataset["u850"][8] = values[0]
    with closing(SourceReader(source_of(tmp_path / "u.nc"), None)) as reader:
        assert same_bits(reader.read(0, 4)[0], values)
        between = reader.read(3, 9)[0]
    assert same_bits(between[0], values[3])
    assert same_bits(between[5], values[0])
    assert np.isnan(between[1:5]).all()


@pytest.mark.parametrize("depth", [2, 8])
def test_steps_that_only_the_time_axis_has_are_missing(tmp_path: Path, depth: int) -> None:
    values = write_field(tmp_path / "u.nc", axes=OPEN_END, zlib=True, chunksizes=(depth, 19, 36))
    with netCDF4.Dataset(tmp_path / "u.nc", "a") as dataset:
        dataset["time"][:6] = 6.0 * np.arange(6)
    with closing(SourceReader(source_of(tmp_path / "u.nc"), None)) as reader:
        field = reader.read(0, 6)[0]
    assert same_bits(field[:4], values)
    assert np.isnan(field[4:]).all()


# Damage

ROW = 19 * 36 * 4  # bytes of one step


def write_steps(path: Path) -> Numbers:
    """A file with one chunk a step."""
    return write_field(path, zlib=True, chunksizes=(1, 19, 36))


def outcome(path: Path, patch: pytest.MonkeyPatch, *, plain: bool) -> Numbers | str:
    """The second and third step, or what is said instead."""
    with patch.context() as alone:
        if plain:
            alone.setattr(sources, "chunk_table", lambda *_: None)
        try:
            with closing(SourceReader(source_of(path), None)) as reader:
                return reader.read(1, 3)
        except InputError as error:
            return f"{error} {error.permanent}"


def replace_chunk(path: Path, content: bytes, *, left_out: int = 0) -> None:
    with h5py.File(path, "r+") as file:
        file["u850"].id.write_direct_chunk((1, 0, 0), content, left_out)


@pytest.mark.parametrize("size", [0, 1, ROW // 2, ROW - 1, ROW + 1, 2 * ROW])
def test_a_chunk_of_the_wrong_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    path = tmp_path / "u.nc"
    write_steps(path)
    replace_chunk(path, zlib.compress(bytes(size)))
    ours = outcome(path, monkeypatch, plain=False)
    assert isinstance(ours, str) and "steps 1 to 2 of variable 'u850' cannot be read" in ours
    assert ours == outcome(path, monkeypatch, plain=True)


@pytest.mark.parametrize("left_out", [1, 2, 3])
def test_a_chunk_without_some_of_its_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_out: int) -> None:
    path = tmp_path / "u.nc"
    values = write_steps(path)
    content = values[1].tobytes()
    if not left_out & 1:
        content = np.frombuffer(content, np.uint8).reshape(-1, 4).T.tobytes()
    replace_chunk(path, content if left_out & 2 else zlib.compress(content), left_out=left_out)
    ours = outcome(path, monkeypatch, plain=False)
    assert not isinstance(ours, str) and same_bits(ours[0], values[1:3])


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_bit_can_flip_unnoticed(at: float, bit: int) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "u.nc"
        values = write_steps(path)
        table = known(table_of(path))
        content = bytearray(path.read_bytes())
        content[int(table.offsets[1, 0, 0]) + int(at * int(table.sizes[1, 0, 0]))] ^= 1 << bit
        path.write_bytes(content)
        ours, theirs = (outcome(path, patch, plain=plain) for plain in (False, True))
        if isinstance(ours, str):
            assert ours == theirs
        else:
            assert same_bits(ours[0], values[1:3])  # such as a bit after the last of the stream


@pytest.mark.parametrize("change", ["cut", "checksum"])
def test_damage_is_told_as_by_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    path = tmp_path / "u.nc"
    write_steps(path)
    table = known(table_of(path))
    end = int(table.offsets[1, 0, 0] + table.sizes[1, 0, 0])
    content = bytearray(path.read_bytes())
    if change == "cut":
        del content[end - 1 :]
    else:
        content[end - 1] ^= 255
    path.write_bytes(content)
    ours = outcome(path, monkeypatch, plain=False)
    assert isinstance(ours, str) and "damaged or cut short" in ours
    assert ours == outcome(path, monkeypatch, plain=True)


@pytest.mark.parametrize("when", ["before opening", "before reading"])
def test_a_change_of_the_file_is_noticed(tmp_path: Path, when: str) -> None:
    path = tmp_path / "u.nc"
    write_steps(path)
    source = source_of(path)
    if when == "before opening":
        os.utime(path, ns=(0, 0))
        with pytest.raises(InputError, match="has changed while it was read") as caught:
            SourceReader(source, None)
    else:
        with closing(SourceReader(source, None)) as reader:
            os.utime(path, ns=(0, 0))
            with pytest.raises(InputError, match="has changed while it was read") as caught:
                reader.read(0, 1)
    assert not caught.value.permanent


def test_a_change_while_the_chunks_are_sought_is_noticed(tmp_path: Path) -> None:
    write_steps(tmp_path / "u.nc")
    with pytest.raises(InputError, match="has changed while it was read"):
        chunk_table(tmp_path / "u.nc", stamp_of(tmp_path / "u.nc")._replace(mtime_ns=0), "u850")


def test_a_file_cut_short_after_it_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "u.nc"
    write_steps(path)
    with closing(ChunkReader(path, known(table_of(path)), roles=STANDARD, level=0, members=[0])) as reader:
        os.truncate(path, 100)
        with pytest.raises(StrangeChunkError):
            reader.read(0, 1)


@needs_failing_calls
@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE], ids=named)
def test_a_fault_of_the_disk_is_no_damage_and_may_pass(tmp_path: Path, code: int) -> None:
    def refused() -> None:
        with closing(SourceReader(source_of(tmp_path / "u.nc"), None)) as reader:
            reader.read(0, 1)
            fail_calls(("read", "pread64"), code)
            with pytest.raises(InputError, match=re.escape(os.strerror(code))) as caught:
                reader.read(4, 8)
        assert not caught.value.permanent

    write_steps(tmp_path / "u.nc")
    assert in_child(refused) == 0


# Resources


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_files_are_closed_again(tmp_path: Path) -> None:
    write_steps(tmp_path / "u.nc")
    source = source_of(tmp_path / "u.nc")
    before = open_descriptors()
    reader = SourceReader(source, None)
    reader.read(0, 1)
    assert open_descriptors() > before
    reader.close()
    assert open_descriptors() == before


def test_no_more_is_kept_than_the_chunks_that_go_on(tmp_path: Path) -> None:
    write_field(tmp_path / "u.nc", axes={"time": hours(40)}, zlib=True, chunksizes=(2, 19, 36))
    table = known(table_of(tmp_path / "u.nc"))
    with closing(ChunkReader(tmp_path / "u.nc", table, roles=STANDARD, level=0, members=[0])) as reader:
        reader.read(0, 1)
        tracemalloc.start()
        for step in range(40):
            reader.read(step, step + 1)
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert kept < 10 * table.chunk_bytes  # of 20 along time


def test_two_threads_read_beside_the_library(tmp_path: Path) -> None:
    values = write_steps(tmp_path / "u.nc")
    wrong: list[int] = []

    def read_often() -> None:
        with closing(ChunkReader(tmp_path / "u.nc", table, roles=STANDARD, level=0, members=[0])) as reader:
            wrong.extend(
                at for at in range(100) if not same_bits(reader.read(at % 8, at % 8 + 1)[0, 0], values[at % 8])
            )

    table = known(table_of(tmp_path / "u.nc"))
    threads = [threading.Thread(target=read_often) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        assert same_bits(stored_in(tmp_path / "u.nc"), values)
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("modules", [("netCDF4", "h5py"), ("h5py", "netCDF4")])
def test_either_hdf5_library_may_come_first(tmp_path: Path, modules: tuple[str, str]) -> None:
    write_steps(tmp_path / "u.nc")
    program = f"""
import {modules[0]}, {modules[1]}, numpy
with netCDF4.Dataset("u.nc") as one, h5py.File("u.nc") as other:
    assert (numpy.asarray(one["u850"][:]) == other["u850"][:]).all()
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)


def test_h5py_is_imported_late() -> None:
    program = "import sys, stormtracks.reanalysis.sources; assert 'h5py' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
