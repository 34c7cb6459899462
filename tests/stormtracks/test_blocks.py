"""Blocks across files and years: gaps, stream breaks, overlaps, empty steps, and the warm-up before a year."""

import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from stormtracks.blocks import BlockReader
from stormtracks.errors import InputError
from stormtracks.grid import Grid
from stormtracks.reanalysis.archive import Quantity, Series
from stormtracks.settings.campaign import DataSettings
from stormtracks.times import TimeAxis, seconds_of
from tests.stormtracks.memory_archive import MemoryArchive, blocks_of

GRID = Grid(np.linspace(-60, 60, 5), np.arange(0, 360, 60.0))
HOUR = 3600
Field = npt.NDArray[np.float32]


def archive_of(
    hours: list[int], *, missing: tuple[int, ...] = (), start: tuple[int, int, int] = (2001, 12, 31)
) -> MemoryArchive:
    seconds = seconds_of("standard", *start) + np.array(hours, dtype=np.int64) * HOUR
    field = np.arange(len(hours), dtype=np.float32)[:, None, None] * np.ones(GRID.shape, np.float32)
    field[list(missing)] = np.nan
    return MemoryArchive(GRID, TimeAxis(seconds), (Quantity("x", "", "1"),), (field,))


def cuts(archive: MemoryArchive, **data: object) -> list[int]:
    settings = DataSettings.model_validate({"variable": "x", **data})
    blocks = list(blocks_of(archive, settings, archive.years()))
    values = np.concatenate([block.fields[0][0, :, 0, 0] for block in blocks])
    assert np.array_equal(values, archive.fields[0][:, 0, 0], equal_nan=True)
    return np.flatnonzero(np.concatenate([block.cut[0] for block in blocks])).tolist()


@pytest.mark.parametrize("block_steps", [1, 3, 100])
def test_a_series_without_gaps_is_cut_only_at_its_start(block_steps: int) -> None:
    archive = archive_of(list(range(0, 60, 6)))
    archive.block_steps = block_steps
    assert cuts(archive) == [0]


def test_a_gap_inside_a_file_is_an_error_that_says_where_unless_it_may_cut() -> None:
    archive = archive_of([0, 6, 18, 24, 30])
    with pytest.raises(
        InputError, match=r"after 2001-12-31 06:00:00 comes 2001-12-31 18:00:00, where the step is 6"
    ) as caught:
        cuts(archive)
    assert "gaps" in caught.value.remedy
    assert cuts(archive, gaps="cut") == [0, 2]


def test_a_gap_between_files_always_cuts() -> None:
    assert cuts(archive_of([0, 6, 12, 18, 30, 36])) == [0, 4]


def test_a_stream_that_starts_afresh_cuts() -> None:
    archive = archive_of(list(range(0, 96, 6)))
    assert cuts(archive, breaks=("2002-01-02",)) == [0, 8]
    assert cuts(archive, breaks=("2002-01-01", "2002-01-03")) == [0, 4, 12]


@pytest.mark.parametrize("block_steps", [1, 2, 5, 100])
def test_steps_without_any_value_cut_before_and_after(block_steps: int) -> None:
    archive = archive_of(list(range(0, 60, 6)), missing=(4,))
    archive.block_steps = block_steps
    assert cuts(archive, missing="mask") == [0, 4, 5]


@pytest.mark.parametrize("block_steps", [1, 3, 100])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_missing_values_are_an_error_that_says_when_or_a_mask(bad: float, block_steps: int) -> None:
    archive = archive_of(list(range(0, 60, 6)))
    archive.block_steps = block_steps
    archive.fields[0][6, 2, 3] = bad
    settings = DataSettings(variable="x")
    blocks = list(blocks_of(archive, settings, archive.years()))
    # All that lies before it can be used, in blocks of any length: who stops there is not bothered.
    before, block = next((sum(len(b.times) for b in blocks[:i]), b) for i, b in enumerate(blocks) if b.problems)
    step, error = block.problems[0]
    assert before + step == 6
    assert "'x' in memory has 1 missing values at 2002-01-01 12:00:00" in error.what
    assert "mask" in error.remedy

    masked = blocks_of(archive, DataSettings(variable="x", missing="mask"), archive.years())
    field = np.concatenate([block.fields[0][0] for block in masked])
    assert np.argwhere(np.isnan(field)).tolist() == [[6, 2, 3]]


@pytest.mark.parametrize("block_steps", [1, 3, 100])
def test_a_gap_is_no_concern_of_who_stops_before_it(block_steps: int) -> None:
    archive = archive_of([0, 6, 12, 18, 24, 30, 42, 48])
    archive.block_steps = block_steps
    blocks = []
    reader = blocks_of(archive, DataSettings(variable="x"), archive.years())
    with pytest.raises(InputError, match="after 2002-01-01 06:00:00 comes 2002-01-01 18:00:00"):
        blocks.extend(iter(lambda: next(reader), None))
    assert sum(len(block.times) for block in blocks) == 6


@pytest.mark.parametrize("block_steps", [1, 3, 100])
def test_of_several_gaps_in_the_steps_before_a_year_none_is_passed_over(block_steps: int) -> None:
    hours = [0, 6, 12, 18, 24, 36, 42, 48, 60, 66, 72, 78, 84, 90]
    archive = archive_of(hours, start=(2001, 12, 29))  # 2002 begins with the step at 72 hours
    archive.block_steps = block_steps
    settings = DataSettings(variable="x")
    # The gap before the first of the eight steps is no concern; the one among them is.
    assert next(iter(blocks_of(archive, settings, [2002], warm_up=2))).times.date(0) == "2001-12-31 12:00:00"
    for warm_up, found in ((5, "2001-12-31 00:00:00 comes 2001-12-31 12:00:00"), (8, "2001-12-30 00:00:00 comes")):
        with pytest.raises(InputError, match=f"a gap in time in memory: after {found}"):
            list(blocks_of(archive, settings, [2002], warm_up=warm_up))
    cutting = DataSettings(variable="x", gaps="cut")
    cut = np.concatenate([block.cut[0] for block in blocks_of(archive, cutting, [2002], warm_up=8)])
    assert np.flatnonzero(cut).tolist() == [0, 3, 6]


def test_every_year_is_opened_once_and_closed() -> None:
    archive = archive_of(list(range(0, 60, 6)))
    opened: list[int] = []
    closed: list[int] = []

    class Watched(MemoryArchive):
        def open_year(self, year: int, members: Sequence[int]):  # type: ignore[no-untyped-def]
            series = super().open_year(year, members)
            opened.append(year)
            series.close = lambda: closed.append(year)
            return series

    watched = Watched(archive.grid, archive.times, archive.quantities, archive.fields)
    list(blocks_of(watched, DataSettings(variable="x"), [2002], warm_up=8))
    assert opened == closed == [2001, 2002]


def test_times_rounded_by_minutes_are_no_gap() -> None:
    archive = archive_of(list(range(10)))
    archive.times.seconds[1::2] += 225
    assert cuts(archive) == [0]


def test_a_year_that_begins_before_the_one_before_it_ends_is_refused() -> None:
    archive = archive_of([0, 6, 12, 18, 24])

    class Overlapping(MemoryArchive):
        def open_year(self, year: int, members: Sequence[int]):  # type: ignore[no-untyped-def]
            return super().open_year(2001, members)

    twice = Overlapping(archive.grid, archive.times, archive.quantities, archive.fields)
    with pytest.raises(InputError, match=r"memory begins at 2001-12-31 00:00:00, before memory ends"):
        cuts(twice)


@pytest.mark.parametrize(("warm_up", "first"), [(0, 4), (1, 3), (3, 1), (8, 0)])
def test_the_warm_up_reads_the_last_steps_of_the_year_before(warm_up: int, first: int) -> None:
    archive = archive_of(list(range(0, 60, 6)))
    blocks = list(blocks_of(archive, DataSettings(variable="x"), [2002], warm_up=warm_up))
    values = np.concatenate([block.fields[0][0, :, 0, 0] for block in blocks])
    assert values.tolist() == list(range(first, 10))
    assert np.flatnonzero(np.concatenate([block.cut[0] for block in blocks])).tolist() == [0]


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize("block_steps", [1, 3, 100])
def test_each_member_has_its_own_breaks_and_problems(block_steps: int, cores: int) -> None:
    archive = archive_of(list(range(0, 60, 6)))
    whole = np.repeat(archive.fields[0][np.newaxis], 3, axis=0)
    whole[1, [3, 6]] = np.nan  # the first of them is the last step of its year
    whole[2, 8, 2, 2] = np.nan
    archive.fields = (whole,)
    archive.block_steps = block_steps
    settings = DataSettings(variable="x", missing="mask")
    blocks = list(blocks_of(archive, settings, archive.years(), members=[3, 2, 1], cores=cores))
    assert {block.members for block in blocks} == {(3, 2, 1)}
    read = np.concatenate([block.fields[0] for block in blocks], axis=1)
    np.testing.assert_array_equal(read, whole[::-1])
    cut = np.concatenate([block.cut for block in blocks], axis=1)
    assert [np.flatnonzero(steps).tolist() for steps in cut] == [[0], [0, 3, 4, 6, 7], [0]]
    assert not any(block.problems for block in blocks)

    blocks = list(blocks_of(archive, DataSettings(variable="x"), archive.years(), members=[3, 2, 1], cores=cores))
    found = [
        (block.members[place], block.times.date(step), error.what.partition(" has ")[2])
        for block in blocks
        for place, (step, error) in block.problems.items()
    ]
    assert sorted(found) == [
        (2, "2001-12-31 18:00:00", "30 missing values at 2001-12-31 18:00:00"),
        (2, "2002-01-01 12:00:00", "30 missing values at 2002-01-01 12:00:00"),
        (3, "2002-01-02 00:00:00", "1 missing values at 2002-01-02 00:00:00"),
    ]


class Watched(MemoryArchive):
    """Says which steps are read, and fails to read beyond some."""

    def open_year(self, year: int, members: Sequence[int]) -> Series:
        series = super().open_year(year, members)
        read = series.read

        def watched(start: int, stop: int) -> tuple[Field, ...]:
            self.read.append((start, threading.current_thread()))
            if stop > self.whole:
                raise InputError("damaged")
            return read(start, stop)

        series.read = watched  # type: ignore[method-assign]
        return series

    read: list[tuple[int, threading.Thread]]
    whole: int


def watched(whole: int) -> Watched:
    archive = archive_of(list(range(0, 60, 6)), start=(2001, 1, 1))
    found = Watched(archive.grid, archive.times, archive.quantities, archive.fields, block_steps=2)
    found.read, found.whole = [], whole
    return found


@pytest.mark.parametrize(("cores", "ahead"), [(1, 0), (2, 1), (16, 1)])
def test_no_more_than_one_block_is_read_ahead(cores: int, ahead: int) -> None:
    archive = watched(whole=100)
    reader = BlockReader(archive, DataSettings(variable="x"), cores=cores)
    for given, _ in enumerate(reader.read(2001, [1]), start=1):
        reader.settle()
        assert [start for start, _ in archive.read] == list(range(0, 2 * min(5, given + ahead), 2))
    assert (threading.current_thread() in {thread for _, thread in archive.read}) == (ahead == 0)
    assert {thread for _, thread in archive.read if thread.is_alive()} <= {threading.current_thread()}


@pytest.mark.parametrize("cores", [1, 2])
def test_what_fails_ahead_fails_in_its_turn(cores: int) -> None:
    archive = watched(whole=4)
    blocks = []
    with pytest.raises(InputError, match="damaged"):
        blocks.extend(BlockReader(archive, DataSettings(variable="x"), cores=cores).read(2001, [1]))
    assert sum(len(block.times) for block in blocks) == 4


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize("block_steps", [1, 2, 3, 5, 100])
def test_what_is_whole_is_given_however_long_blocks_are(block_steps: int, cores: int) -> None:
    archive = watched(whole=7)
    archive.block_steps = block_steps
    steps: list[int] = []
    with pytest.raises(InputError, match="damaged"):
        for block in BlockReader(archive, DataSettings(variable="x"), cores=cores).read(2001, [1]):
            assert block.fields[0].shape[1] == len(block.times)
            steps.extend(block.fields[0][0, :, 0, 0].astype(int))
    assert steps == list(range(7))


@pytest.mark.parametrize("cores", [1, 2])
def test_closed_in_the_middle_nothing_reads_on(cores: int) -> None:
    archive = watched(whole=100)
    blocks = BlockReader(archive, DataSettings(variable="x"), cores=cores).read(2001, [1])
    next(blocks)
    blocks.close()
    assert {thread for _, thread in archive.read if thread.is_alive()} <= {threading.current_thread()}
    assert len(archive.read) == cores
