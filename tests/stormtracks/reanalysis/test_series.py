"""Reading in blocks: no split shows, no chunk is unpacked twice, and memory does not grow with the series."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormtracks.reanalysis import open_files
from stormtracks.reanalysis.archive import Archive
from stormtracks.settings.campaign import DataSettings
from tests.stormtracks.reanalysis.field_files import Along, hours, read_year, write_field

U850 = DataSettings(layout="cf", variable="u850")
STEPS = 50


@pytest.fixture(scope="module")
def spread_out(tmp_path_factory: pytest.TempPathFactory) -> tuple[Archive, npt.NDArray[Any]]:
    """Packed fields of three members over three files of different chunks, with gaps, and wrapped longitudes."""
    folder = tmp_path_factory.mktemp("spread")
    values = np.random.default_rng(2).integers(-30000, 30000, (STEPS, 3, 19, 36)).astype("i2")
    lon = Along((np.arange(0, 360, 10.0) + 180) % 360 - 180, {"units": "degrees_east"})
    attributes = {"units": "m s-1", "scale_factor": 0.01, "_FillValue": np.int16(7)}
    for name, first, last, chunks in (("a", 0, 21, (4, 3, 19, 36)), ("b", 21, 22, None), ("c", 22, 50, (28, 1, 7, 10))):
        axes = {"time": hours(last - first, first=6 * first), "lon": lon}
        storage = {"zlib": True, "chunksizes": chunks} if chunks else {}
        dims = ("time", "member", "lat", "lon")
        path = folder / f"{name}.nc"
        write_field(path, "u850", attributes, dims=dims, axes=axes, values=values[first:last], dtype="i2", **storage)
    return open_files(sorted(folder.iterdir()), U850), values


@given(cuts=st.sets(st.integers(0, STEPS), max_size=12), members=st.permutations([1, 2, 3]), count=st.integers(1, 3))
def test_no_split_shows(
    spread_out: tuple[Archive, npt.NDArray[Any]], cuts: set[int], members: list[int], count: int
) -> None:
    archive, values = spread_out
    bounds = sorted({0, STEPS, *cuts})
    series = archive.open_year(2001, members[:count])
    assert series.members == tuple(members[:count])
    pieces = [series.read(start, stop)[0].copy() for start, stop in itertools.pairwise(bounds)]
    (whole,) = series.read(0, STEPS)
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), whole)
    expected = np.stack([values[:, member - 1] for member in series.members])
    np.testing.assert_allclose(whole, np.where(expected == 7, np.nan, expected * 0.01), rtol=1e-6)
    series.close()


def test_blocks_may_be_read_in_any_order(spread_out: tuple[Archive, npt.NDArray[Any]]) -> None:
    archive, _ = spread_out
    (whole,) = read_year(archive)
    series = archive.open_year(2001, [1])
    for start in (40, 0, 21, 45, 20):
        np.testing.assert_array_equal(series.read(start, start + 3)[0][0], whole[start : start + 3])
    series.close()


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 2), (0, STEPS + 1)])
def test_there_are_no_other_steps(spread_out: tuple[Archive, npt.NDArray[Any]], start: int, stop: int) -> None:
    series = spread_out[0].open_year(2001, [1])
    with pytest.raises(IndexError):
        series.read(start, stop)


def file_of_zeros(path: Path, shape: tuple[int, int, int], chunks: tuple[int, int, int] | None) -> None:
    """A file of which only the outline is written, however large its fields are."""
    axes = {
        "time": hours(shape[0], step=0.25),
        "lat": Along(np.linspace(-90, 90, shape[1]), {"units": "degrees_north"}),
        "lon": Along(np.linspace(0, 360, shape[2], endpoint=False), {"units": "degrees_east"}),
    }
    with netCDF4.Dataset(path, "w") as dataset:
        for (name, along), size in zip(axes.items(), shape, strict=True):
            dataset.createDimension(name, size)
            dataset.createVariable(name, "f8", (name,)).setncatts(dict(along.attributes))
            dataset[name][:] = along.values
        dataset.createVariable("u850", "f4", tuple(axes), chunksizes=chunks, zlib=chunks is not None, fill_value=0)
        dataset["u850"].units = "m s-1"


@pytest.mark.parametrize(
    ("shape", "chunks", "steps"),
    [
        ((1460, 91, 180), None, 256),
        ((1460, 91, 180), (1, 91, 180), 256),
        ((1460, 91, 180), (100, 91, 180), 200),
        ((1460, 91, 180), (1460, 10, 10), 1460),
        ((96, 721, 1440), (1, 721, 1440), 4),
        ((96, 721, 1440), (24, 103, 144), 24),
        ((96, 721, 1440), (96, 103, 144), 64),
        ((4, 3000, 6000), (1, 300, 600), 1),
    ],
)
def test_a_block_is_whole_chunks_of_about_16_mib(
    tmp_path: Path, shape: tuple[int, int, int], chunks: tuple[int, int, int] | None, steps: int
) -> None:
    file_of_zeros(tmp_path / "u.nc", shape, chunks)
    assert open_files([tmp_path / "u.nc"], U850).open_year(2001, [1]).block_steps == steps


def test_chunks_too_deep_to_read_at_once_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file_of_zeros(tmp_path / "u.nc", (96, 721, 1440), (96, 103, 144))
    open_files([tmp_path / "u.nc"], U850).open_year(2001, [1])
    assert "chunks of 96 time steps" in caplog.text
    assert "nccopy" in caplog.text


def bytes_read() -> int:
    """Bytes that this process has read so far, from the cache of the system or from disk."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.parametrize("chunks", [(50, 91, 180), (50, 31, 60), (600, 91, 180)])  # the last of 75 MiB
def test_no_chunk_is_unpacked_twice_by_blocks_that_share_it(tmp_path: Path, chunks: tuple[int, int, int]) -> None:
    path = tmp_path / "u.nc"
    axes = {
        "time": hours(600),
        "lat": Along(np.linspace(-90, 90, 91), {"units": "degrees_north"}),
        "lon": Along(np.arange(0, 360, 2.0), {"units": "degrees_east"}),
    }
    values = np.random.default_rng(0).integers(0, 1000, (600, 91, 180)).astype("f8")
    write_field(path, axes=axes, values=values, dtype="f8", zlib=True, complevel=1, chunksizes=chunks)

    def cost(block: int) -> int:
        series = open_files([path], U850).open_year(2001, [1])
        before = bytes_read()
        for start in range(0, 600, block):
            series.read(start, min(start + block, 600))
        series.close()
        return bytes_read() - before

    assert abs(cost(37) - cost(600)) < 0.02 * path.stat().st_size


MEASURE = """
import resource, sys
from pathlib import Path
from stormtracks.reanalysis import open_files
from stormtracks.settings.campaign import DataSettings
series = open_files([Path(sys.argv[1])], DataSettings(layout="cf", variable="u850")).open_year(2001, [1])
for start in range(0, len(series.times), series.block_steps):
    series.read(start, min(start + series.block_steps, len(series.times)))
print(len(series.times), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak_memory(path: Path, steps: int) -> float:
    """MiB that a process of its own takes at most to read a series of 2 degree fields."""
    file_of_zeros(path, (steps, 91, 180), (4, 91, 180))
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], check=True, capture_output=True, text=True)
    read, peak = done.stdout.split()
    assert int(read) == steps
    return float(peak)


def test_memory_does_not_grow_with_the_series(tmp_path: Path) -> None:
    short, long = peak_memory(tmp_path / "short.nc", 1024), peak_memory(tmp_path / "long.nc", 8192)
    # The long one is 512 MiB of fields; two blocks of 16 MiB are held for a moment as one follows the other.
    assert abs(long - short) < 24
