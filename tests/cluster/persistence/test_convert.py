"""Conversion: whatever a campaign holds comes out the same, and whatever ends it, one whole store is there."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stormtracks.cluster.errors import UnknownFormatError, WorkflowNotFoundError
from stormtracks.cluster.persistence import (
    PersistentStore,
    Workflow,
    open_campaign,
    recover_replaced,
    store_cls_from_path,
)
from stormtracks.cluster.persistence.convert import convert_store
from stormtracks.cluster.persistence.json import JSONPersistentStore
from stormtracks.cluster.persistence.sqlite import SQLitePersistentStore
from stormtracks.errors import StormtracksError
from tests.cluster.persistence.stores import add, campaign, everything

FORK = multiprocessing.get_context("fork")
STEPS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "sqlite3.connect")

TEXTS = st.text(st.characters(exclude_categories=()), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXTS, values, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=3)
TIMES = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


def write_campaign(data: st.DataObject, path: Path) -> None:
    """A campaign with some of everything, as chance has it."""
    SQLitePersistentStore.write_empty_workflow(data.draw(OBJECTS), data.draw(OBJECTS), path, None, data.draw(OBJECTS))
    with SQLitePersistentStore(Workflow(path)) as store:
        store.add_parameter_data(data.draw(VALUES), data.draw(OBJECTS))
        for task in range(data.draw(st.integers(0, 2))):
            # In front of the ones before: places and insert IDs part.
            store.add_empty_task(0, {**data.draw(OBJECTS), "name": f"task {task}"})
        store.add_loop([0], data.draw(OBJECTS), {"x": data.draw(OBJECTS)})
        store.update_loop_num_added_iters(0, data.draw(st.integers(0, 9)))
        for _ in range(data.draw(st.integers(0, 2))):
            store.add_submission(data.draw(OBJECTS))
            store.set_jobscript_job_ID(0, 0, data.draw(TEXTS))
            store.set_jobscript_submit_time(0, 0, data.draw(TIMES))
            store.append_submission_attempt(0, 0)
        for insert_ID in range(store.get_num_added_tasks()):
            add_elements(data, store, insert_ID)
        store.save()


def add_elements(data: st.DataObject, store: PersistentStore, insert_ID: int) -> None:
    place = store.get_task_idx_from_insert_ID(insert_ID)
    keys = data.draw(st.lists(st.tuples(st.integers(0, 9999), st.integers(0, 999)), max_size=3, unique=True))
    store.add_element_set(place, {**data.draw(OBJECTS), "keys": keys})
    slots = [store.add_unset_parameter_data(data.draw(OBJECTS)) for _ in keys]
    elements = [{"year": year, "member": member} for year, member in keys]
    store.add_elements(place, insert_ID, elements, [{"parameter": slot} for slot in slots])
    for again in range(data.draw(st.integers(0, 2)) if keys else 0):
        element = data.draw(st.integers(0, len(keys) - 1))
        slot = store.add_unset_parameter_data({})
        store.add_element_iterations(place, insert_ID, [{"parameter": slot, "loop": 0}], {element: [len(keys) + again]})
        slots.append(slot)
    for iteration, slot in enumerate(slots):
        add_attempts(data, store, insert_ID, iteration)
        if data.draw(st.booleans()):
            store.set_parameter(slot, data.draw(VALUES))
    store.retire_elements(
        place, insert_ID, data.draw(st.sets(st.sampled_from(range(len(keys)))) if keys else st.just([]))
    )


def add_attempts(data: st.DataObject, store: PersistentStore, insert_ID: int, iteration: int) -> None:
    place = store.get_task_idx_from_insert_ID(insert_ID)
    for run in range(data.draw(st.integers(0, 2))):
        told = {"number": run + 1, "pid": data.draw(st.none() | st.integers(0, 2**31))}
        told |= {name: data.draw(TEXTS) for name in ("worker", "incarnation", "host", "code")}
        store.add_EARs(place, insert_ID, iteration, told, {0: data.draw(OBJECTS)})
        if data.draw(st.booleans()):
            store.set_EAR_start(insert_ID, iteration, 0, run, at=data.draw(TIMES))
        status = data.draw(st.sampled_from([None, "complete", "failure", "timeout", "lost", "forgiven"]))
        if status is not None:
            first = "timeout" if status == "forgiven" else status
            seconds, exit_code = data.draw(st.floats(0, 1e9)), data.draw(st.none() | st.integers(-64, 255))
            said = {"error": data.draw(TEXTS), "exit_code": exit_code, "seconds": seconds, "at": data.draw(TIMES)}
            store.set_EAR_end(insert_ID, iteration, 0, run, status=first, **said)
        if status == "forgiven":
            store.set_EAR_end(insert_ID, iteration, 0, run, status="forgiven")


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_campaign_comes_round_as_it_was(memory: Path, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        path = Path(folder) / "campaign"
        write_campaign(data, path)
        with open_campaign(path) as store:
            before, rows = everything(store), list(store.all_rows())
        for store_format in ("json", "zarr", "sqlite", "zarr", "json", "sqlite"):
            convert_store(path, store_format)
            with open_campaign(path) as store:
                assert store.store_name == store_format
                assert not store.has_pending
                assert everything(store) == before
                assert list(store.all_rows()) == rows
            assert sorted(one.name for one in Path(folder).iterdir()) == ["campaign"]


@pytest.mark.parametrize("store_format", ["sqlite", "json", "zarr"])
def test_work_goes_on_after_a_conversion(tmp_path: Path, store_format: str) -> None:
    path = tmp_path / "campaign"
    campaign(SQLitePersistentStore, path).close()
    convert_store(path, store_format)
    with open_campaign(path) as store:
        add(store, [2003], [1, 2, 3])
        store.add_EARs(0, 0, 6, {"number": 1, "worker": "w"}, {})
        store.set_EAR_start(0, 6, 0, 0, at=datetime(2001, 1, 1, tzinfo=UTC) + timedelta(hours=1))
        store.set_parameter(0, 1)
        store.save()
    with open_campaign(path) as store:
        assert store.get_all_tasks_metadata()[0]["rows"] == {2001: "+--", 2002: "---", 2003: "W--"}


def test_a_store_of_the_kind_asked_for_stays_as_it_is(tmp_path: Path) -> None:
    campaign(JSONPersistentStore, tmp_path / "campaign").close()
    before = {file: file.stat().st_ino for file in (tmp_path / "campaign").iterdir()}
    convert_store(tmp_path / "campaign", "json")
    assert {file: file.stat().st_ino for file in (tmp_path / "campaign").iterdir()} == before


def test_what_cannot_be_converted_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkflowNotFoundError, match="no campaign store"):
        convert_store(tmp_path / "campaign", "json")
    campaign(SQLitePersistentStore, tmp_path / "campaign").close()
    with pytest.raises(UnknownFormatError, match="use one of: sqlite, json, zarr"):
        convert_store(tmp_path / "campaign", "hdf5")


# --- conversions that are cut short


def watch_steps(path: Path, last: int, end: Callable[[], Any]) -> Callable[[], int]:
    """Call `end` at the step number `last` that touches these folders; gives what counts the steps."""
    count = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in STEPS and arguments and str(path.parent) in str(arguments[0]):
            count += 1
            if count == last:
                end()

    sys.addaudithook(watch)
    return lambda: count


def convert_until_killed(path: Path, last: int, told: Any) -> None:
    steps = watch_steps(path, last, lambda: os.kill(os.getpid(), signal.SIGKILL))
    convert_store(path, "json")
    told.send(steps())


def convert_until_failed(path: Path, last: int, told: Any) -> None:
    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    steps = watch_steps(path, last, fail)
    try:
        convert_store(path, "json")
    except (OSError, StormtracksError) as error:
        told.send(str(error))
    else:
        told.send(steps())


def last_word(ours: Any) -> Any:
    """What a process that has ended has told; None if nothing."""
    try:
        return ours.recv()
    except EOFError:
        return None


@pytest.mark.parametrize("convert", [convert_until_killed, convert_until_failed])
def test_whatever_step_is_the_last_the_campaign_is_there_whole(
    memory: Path, convert: Callable[[Path, int, Any], None]
) -> None:
    kinds, last = [], 0
    while True:
        last += 1
        path = memory / f"{last}/campaign"
        with campaign(SQLitePersistentStore, path) as store:
            store.set_parameter(0, {"tracks": 1})
            store.save()
            before = everything(store)
        ours, theirs = FORK.Pipe(duplex=False)
        converter = FORK.Process(target=convert, args=(path, last, theirs))
        converter.start()
        converter.join(60)
        theirs.close()
        said = last_word(ours)
        if convert is convert_until_failed and not isinstance(said, int):
            # Nobody need do anything: an error leaves the older store in its place, or the newer one whole.
            with open_campaign(path) as store:
                assert everything(store) == before
        recover_replaced(path)
        with open_campaign(path) as store:
            assert everything(store) == before
        assert [one.name for one in path.parent.iterdir()] == ["campaign"]
        kinds.append(store_cls_from_path(path).format)
        if isinstance(said, int) and said < last:
            break
    assert kinds == sorted(kinds, reverse=True)
    assert (kinds[0], kinds[-1]) == ("sqlite", "json")
