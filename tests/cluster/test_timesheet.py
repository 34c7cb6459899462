"""The page of memory on which a child notes what it is at: always whole, always true, or not believed."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stormtracks.cluster.backends.timesheet import Times, Timesheet

SIZE = 56
BOUND = 60.0
WRITER = """
import sys
from stormtracks.cluster.backends.timesheet import Timesheet
fd, size = map(int, sys.argv[1:])
sheet = Timesheet(fd, size)
sheet.turn(0)
print("there", flush=True)
while True:
    for place in range(size):
        sheet.turn(place)
        sheet.turn(None)
"""


@pytest.fixture
def fd() -> Iterator[int]:
    fd = os.memfd_create("test")
    yield fd
    os.close(fd)


def spent(times: Times) -> float:
    return times.common + sum(times.own)


def test_one_reads_what_the_other_has_written(fd: int) -> None:
    ours = Timesheet(fd, 3)
    ours.begin()
    theirs = Timesheet(fd, 3)
    first = ours.read()
    assert (first.at, first.common, first.own) == (None, 0.0, (0.0, 0.0, 0.0))
    for at in (2, 0, None, 0):
        theirs.turn(at)
        found = ours.read()
        assert found.at == at
    assert found.own[0] > 0 and found.own[2] > 0 and found.own[1] == 0 and found.common > 0
    assert spent(found) <= found.since - first.since
    with pytest.raises(IndexError, match="no attempt 3 among 3"):
        theirs.turn(3)
    with pytest.raises(IndexError, match="no attempt -1"):
        theirs.turn(-1)


def test_turning_counts_each_second_once() -> None:
    times = Times(None, 10.0, 0.0, (0.0, 0.0))
    times = times.turned(1, 12.0).turned(0, 15.0).turned(0, 16.0).turned(None, 20.0).turned(1, 21.0)
    assert times == Times(1, 21.0, 3.0, (5.0, 3.0))


def test_a_page_serves_bundles_of_any_size_one_after_the_other(fd: int) -> None:
    for size in (1, 1000, 3):
        ours = Timesheet(fd, size)
        ours.begin()
        began = ours.read().since
        Timesheet(fd, size).turn(size - 1)
        found = ours.read()
        assert (found.at, len(found.own)) == (size - 1, size)
        assert 0 <= spent(found) <= found.since - began


def test_it_is_whole_at_every_moment_and_when_its_writer_is_killed(fd: int) -> None:
    """A writer that does nothing else is read all the time, and killed in the middle of it, again and again."""
    sheet = Timesheet(fd, SIZE)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    for _ in range(3):
        sheet.begin()
        began = sheet.read().since
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(fd), str(SIZE)], pass_fds=[fd], stdout=subprocess.PIPE, env=environment
        )
        try:
            assert writer.stdout is not None
            writer.stdout.readline()
            found, deadline = {sheet.read()}, time.monotonic() + BOUND
            while len(found) < 200 and time.monotonic() < deadline:
                found.add(sheet.read())
        finally:
            writer.kill()
            writer.communicate()
        last = sheet.read()
        assert sheet.read() == last
        found.add(last)
        assert len(found) >= 200
        assert all(times.is_sound(time.monotonic()) for times in found)
        # All seconds are counted, but for those until the writer's first word, which are the same for all.
        untold = [times.since - began - spent(times) for times in found if times.at is not None or times.common]
        assert max(untold) - min(untold) < 1e-3


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e300, -5.0, 3.0])
def test_what_cannot_be_true_is_not_believed(fd: int, number: float) -> None:
    """A child that writes where it should not may have written here before it crashed."""
    sheet = Timesheet(fd, 3)
    sheet.begin()
    sound = sheet.read()
    os.pwrite(fd, struct.pack("=q48d", 7, *[number] * 48), 0)
    assert sheet.read() == sound
    os.pwrite(fd, os.urandom(8), 0)
    assert sheet.read() == sound
