"""Commits that are killed, raced, copied and refused: all of a commit is on disk, or nothing."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from stormtracks.cluster.errors import ParameterSetError, StoreChangedError, StoreError
from stormtracks.cluster.persistence import PersistentStore, Workflow, open_campaign
from tests.cluster.persistence.stores import STORES, WORKER, add, campaign, everything

Store = type[PersistentStore]

each_store = pytest.mark.parametrize("cls", STORES, ids=lambda cls: cls.format)

KILLS = {"sqlite": 100, "json": 40, "zarr": 40}
"""How often a writer is killed; the default store bears most campaigns."""

PER_COMMIT = 5

MANY = 30
"""Years from which on the killing goes on with a fresh campaign: to read them all takes long."""

FORK = multiprocessing.get_context("fork")


def write_on(path: Path, told: Connection) -> None:
    """Commit year after year, each whole and with an attempt and a result, telling of each that is done."""
    with open_campaign(path) as store:
        year = store.get_all_tasks_metadata()[0]["num_elements"] // PER_COMMIT
        while True:
            slots = add(store, [3000 + year], range(PER_COMMIT))
            iteration = slots[0]
            store.add_EARs(0, 0, iteration, WORKER, {})
            store.set_EAR_start(0, iteration, 0, 0)
            store.set_parameter(slots[0], year)
            store.add_submission({"epoch": year})
            store.save()
            told.send(year)
            year += 1


def years_of(store: PersistentStore) -> int:
    """How many such years a store holds, having seen that each is whole."""
    found = everything(store)
    years = found["tasks"][0]["rows"]
    assert list(years) == list(range(3000, 3000 + len(years)))
    assert set(years.values()) <= {"+" + "-" * (PER_COMMIT - 1)}
    assert len(found["submissions"]) == len(years)
    assert [value for is_set, value in found["parameters"].values() if is_set] == list(range(len(years)))
    assert [len(element["iterations"][0]["EARs"]) for element in found["elements"][0]] == [1, 0, 0, 0, 0] * len(years)
    return len(years)


@each_store
def test_a_commit_that_is_killed_is_there_or_not(cls: Store, tmp_path: Path) -> None:
    path = tmp_path / "campaign"
    store = campaign(cls, path)
    store.delete_no_confirm()
    cls.write_empty_workflow({}, {}, path, None, {})
    with cls(Workflow(path)) as store:
        store.add_empty_task(0, {"name": "vort_track"})
        store.save()
    chance = random.Random(0)
    last = -1
    for _ in range(KILLS[cls.format]):
        ours, theirs = FORK.Pipe(duplex=False)
        writer = FORK.Process(target=write_on, args=(path, theirs))
        writer.start()
        theirs.close()
        assert ours.poll(60)
        time.sleep(chance.uniform(0, 0.02))
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join(60)
        while ours.poll():
            try:
                last = ours.recv()
            except EOFError:
                break
        with open_campaign(path) as store:
            # What was told of is there; so may be one that was not told of any more.
            years = years_of(store)
            assert years in (last + 1, last + 2)
            if years > MANY:
                last = start_again(cls, store)


def start_again(cls: Store, store: PersistentStore) -> int:
    """A fresh campaign in the place of one that has grown; the year told of last."""
    store.delete_no_confirm()
    cls.write_empty_workflow({}, {}, store.workflow_path, None, {})
    with cls(Workflow(store.workflow_path)) as fresh:
        fresh.add_empty_task(0, {"name": "vort_track"})
        fresh.save()
    return -1


def race(path: Path, number: int, start: Any, told: Connection) -> None:
    """Try to set the one parameter until somebody has."""
    start.wait(60)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        store = open_campaign(path)
        try:
            store.set_parameter(0, number)
            store.save()
            told.send((number, "won"))
            return
        except ParameterSetError:
            told.send((number, "lost"))
            return
        except StoreError:
            continue  # changed since it was read, or being written to: look again
        finally:
            store.close()


@each_store
def test_of_eight_who_set_a_parameter_one_wins(cls: Store, tmp_path: Path) -> None:
    for round_ in range(3):
        path = tmp_path / f"campaign{round_}"
        campaign(cls, path).close()
        start = FORK.Event()
        pipes = [FORK.Pipe(duplex=False) for _ in range(8)]
        racers = [FORK.Process(target=race, args=(path, at, start, pipe[1])) for at, pipe in enumerate(pipes)]
        for racer in racers:
            racer.start()
        start.set()
        outcomes = [pipe[0].recv() for pipe in pipes if pipe[0].poll(90)]
        for racer in racers:
            racer.join(60)
        winners = [number for number, outcome in outcomes if outcome == "won"]
        assert len(outcomes) == 8 and len(winners) == 1
        with open_campaign(path) as store:
            assert store.get_parameter_data(0) == (True, winners[0])


@each_store
def test_a_copy_made_during_commits_is_whole(cls: Store, tmp_path: Path) -> None:
    path = tmp_path / "campaign"
    cls.write_empty_workflow({}, {}, path, None, {})
    with cls(Workflow(path)) as store:
        store.add_empty_task(0, {"name": "vort_track"})
        store.save()
    ours, theirs = FORK.Pipe(duplex=False)
    writer = FORK.Process(target=write_on, args=(path, theirs))
    writer.start()
    try:
        seen = []
        for number in range(8):
            assert ours.poll(60)
            told = ours.recv()
            with open_campaign(path) as store:
                copy = store.copy(tmp_path / f"copy{number}")
            with open_campaign(copy) as copied:
                seen.append(years_of(copied))
            assert seen[-1] > told
        assert seen == sorted(seen) and seen[0] < seen[-1]
    finally:
        writer.kill()
        writer.join(60)


@each_store
def test_a_reader_sees_whole_commits_only(cls: Store, tmp_path: Path) -> None:
    path = tmp_path / "campaign"
    cls.write_empty_workflow({}, {}, path, None, {})
    with cls(Workflow(path)) as store:
        store.add_empty_task(0, {"name": "vort_track"})
        store.save()
    ours, theirs = FORK.Pipe(duplex=False)
    writer = FORK.Process(target=write_on, args=(path, theirs))
    writer.start()
    try:
        assert ours.poll(60)
        with open_campaign(path) as store:
            seen = [years_of(store)]
            while seen[-1] < seen[0] + 10:
                seen.append(years_of(store))
        assert seen == sorted(seen)
    finally:
        writer.kill()
        writer.join(60)


def fill_up(path: Path, told: Connection) -> None:
    """Commit until files may not grow any more, then go on where they may."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open_campaign(path) as store:
        before = everything(store)
        size = max(file.stat().st_size for file in path.rglob("*") if file.is_file())
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, resource.RLIM_INFINITY))
        add(store, range(4000, 4100), range(10))
        try:
            store.save()
        except StoreError as error:
            told.send(str(error))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        with open_campaign(path) as reader:
            told.send(everything(reader) == before)
        store.save()
        with open_campaign(path) as reader:
            told.send(everything(reader) == everything(store))


@each_store
def test_a_full_disk_is_told_and_the_commit_can_be_made_later(cls: Store, tmp_path: Path) -> None:
    path = tmp_path / "campaign"
    campaign(cls, path).close()
    ours, theirs = FORK.Pipe(duplex=False)
    writer = FORK.Process(target=fill_up, args=(path, theirs))
    writer.start()
    theirs.close()
    try:
        assert ours.poll(60)
        assert "remedy:" in ours.recv()
        assert ours.poll(60) and ours.recv() is True
        assert ours.poll(60) and ours.recv() is True
    finally:
        writer.join(60)
    with open_campaign(path) as store:
        assert len(store.get_task_elements(0, 0, slice(None))) == 1006


@each_store
def test_two_who_write_in_turn_lose_nothing(cls: Store, tmp_path: Path) -> None:
    path = tmp_path / "campaign"
    campaign(cls, path).close()
    for year in range(2003, 2013):
        with open_campaign(path) as one, open_campaign(path) as other:
            add(one, [year], [1])
            one.save()
            add(other, [year + 100], [1])
            refused: Callable[[], None] = other.save
            with pytest.raises(StoreChangedError):
                refused()
            other.reject_pending()
            one.close()
            add(other, [year + 100], [1])
            other.save()
    with open_campaign(path) as store:
        assert len(store.get_task_elements(0, 0, slice(None))) == 26
