"""What the zarr store alone does: cells that many processes write, and generations that one does."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from stormtracks.cluster.errors import ParameterSetError, StoreChangedError, StoreDamagedError, StoreError
from stormtracks.cluster.persistence import Workflow, open_campaign
from stormtracks.cluster.persistence.generation import ENDS, STARTS, divided, with_cells
from stormtracks.cluster.persistence.rows import Attempt
from stormtracks.cluster.persistence.zarr import ZarrPersistentStore
from tests.cluster.persistence.stores import WORKER, add, campaign, ends, everything, stop_here, stopped

FORK = multiprocessing.get_context("fork")
AT = datetime(2001, 1, 1, tzinfo=UTC)
PROCESSES, EACH = 8, 400


def begun(path: Path) -> ZarrPersistentStore:
    """A campaign of six tasks, of which the first is complete, the second was forgiven and the third is running."""
    store = campaign(ZarrPersistentStore, path)
    assert isinstance(store, ZarrPersistentStore)
    store.add_submission({"epoch": 1})
    for iteration in range(3):
        store.add_EARs(0, 0, iteration, WORKER, {})
        store.set_EAR_start(0, iteration, 0, 0, at=AT)
    store.save()
    store.set_parameter(0, {"tracks": 22})
    store.set_EAR_end(0, 0, 0, 0, status="complete", seconds=1.5, at=AT)
    store.set_EAR_end(0, 1, 0, 0, status="failure", error="größer", exit_code=3, at=AT)
    store.save()
    store.set_EAR_end(0, 1, 0, 0, status="forgiven")
    store.save()
    return store


def opened(path: Path) -> ZarrPersistentStore:
    return ZarrPersistentStore(Workflow(path))


# --- what is in the files


def test_any_reader_of_zarr_can_read_it(tmp_path: Path) -> None:
    begun(tmp_path / "campaign").close()
    group = zarr.open_group(tmp_path / "campaign/store.zarr", mode="r")
    assert sorted(group.array_keys()) == ["ends", "metadata", "parameters", "pointer", "starts"]
    for name, array in group.arrays():
        assert array.chunks == (1,) and "crc32c" in json.dumps(array.metadata.to_dict(), default=str), name
    assert json.loads(str(group["parameters"][0])) == {"tracks": 22}  # type: ignore[index]
    assert [json.loads(str(text))[1] for text in group["ends"][:2]] == ["complete", "failure"]  # type: ignore[index]
    assert str(group["parameters"][1]) == ""  # type: ignore[index]


def attempts() -> st.SearchStrategy[Attempt]:
    ended = st.tuples(
        st.text(max_size=8),
        st.sampled_from(["complete", "failure", "timeout", "lost", "forgiven"]),
        st.text(max_size=8),
        st.none() | st.integers(-9, 255),
        st.floats(0, 1e6),
    )
    running = st.just((None, None, "", None, 0.0))
    whole = st.tuples(st.none() | st.text(max_size=8), running | ended)
    return whole.map(lambda one: Attempt(0, 1, 2, 3, 4, "w", "i", "h", 5, "c", 6, one[0], *one[1]))


@given(first=attempts(), later=attempts())
def test_what_is_divided_comes_together_again(first: Attempt, later: Attempt) -> None:
    kept, cells = divided(first, None, None)
    assert isinstance(kept, Attempt)
    assert with_cells(kept, cells.get(STARTS), cells.get(ENDS)) == first
    # Of what has been said once, the start and the status can be said again, by the one writer.
    if first.status is not None:
        later = first._replace(start=later.start or first.start, status="forgiven", submission=7)
    elif first.start is not None and later.start is None:
        later = later._replace(start=first.start)
    again, more = divided(later, kept, first)
    assert isinstance(again, Attempt)
    assert not cells.keys() & more.keys()
    cells |= more
    assert with_cells(again, cells.get(STARTS), cells.get(ENDS)) == later
    unmoved, none = divided(later, again, later)
    assert (unmoved, none) == (again, {})


# --- many writers


def set_many(path: Path, first: int) -> None:
    with open_campaign(path) as store:
        for index in range(first, first + EACH):
            store.set_parameter(index, {"value": index})
            store.save()


def test_of_what_many_processes_set_at_once_nothing_is_lost(memory: Path) -> None:
    path = memory / "campaign"
    with campaign(ZarrPersistentStore, path) as store:
        add(store, [3000], range(PROCESSES * EACH - 6))
        store.save()
        writers = [FORK.Process(target=set_many, args=(path, EACH * number)) for number in range(PROCESSES)]
        for writer in writers:
            writer.start()
        # Meanwhile the one who may goes on with all else.
        commits = 0
        while any(writer.is_alive() for writer in writers):
            store.add_template_components({"commits": commits})
            store.save()
            commits += 1
        for writer in writers:
            writer.join(120)
        assert [writer.exitcode for writer in writers] == [0] * PROCESSES
        assert commits > 1
        expected = {index: (True, {"value": index}) for index in range(PROCESSES * EACH)}
        assert store.get_all_parameter_data() == expected
        assert set("".join(store.get_all_tasks_metadata()[0]["rows"].values())) <= set("+ ")
        assert store.get_template_components()["commits"] == commits - 1


def say(path: Path, number: int, start: Any, told: Any) -> None:
    """Set a parameter and end an attempt that others set and end, too."""
    with open_campaign(path) as store:
        start.wait(60)
        outcomes = []
        try:
            store.set_parameter(5, number)
            store.save()
            outcomes.append("set")
        except RuntimeError:
            outcomes.append("refused")
        store.reject_pending()
        try:
            store.set_EAR_end(0, 2, 0, 0, status="complete", seconds=number)
            store.save()
            outcomes.append("ended")
        except StoreError:
            outcomes.append("refused")
        told.send(outcomes)


def test_of_those_who_write_one_cell_the_first_wins(tmp_path: Path) -> None:
    path = tmp_path / "campaign"
    begun(path).close()
    start = FORK.Event()
    pipes = [FORK.Pipe(duplex=False) for _ in range(PROCESSES)]
    racers = [FORK.Process(target=say, args=(path, at, start, pipe[1])) for at, pipe in enumerate(pipes)]
    for racer in racers:
        racer.start()
    start.set()
    outcomes = [pipe[0].recv() for pipe in pipes if pipe[0].poll(90)]
    for racer in racers:
        racer.join(60)
    assert sorted(one for one, _ in outcomes) == ["refused"] * (PROCESSES - 1) + ["set"]
    assert sorted(one for _, one in outcomes) == ["ended"] + ["refused"] * (PROCESSES - 1)
    with opened(path) as store:
        is_set, value = store.get_parameter_data(5)
        assert is_set and outcomes[value][0] == "set"
        attempt = store.get_task_elements(0, 0, slice(2, 3))[0]["iterations"][0]["EARs"][0]
        assert outcomes[int(attempt["seconds"])][1] == "ended"


def test_what_others_change_is_no_matter_to_a_single_cell(tmp_path: Path) -> None:
    with begun(tmp_path / "campaign") as manager, opened(tmp_path / "campaign") as worker:
        worker.set_parameter(2, "done")
        manager.add_EARs(0, 0, 2, WORKER, {2: {"attempt": 2}})
        add(manager, [2003], [1])
        manager.save()
        worker.save()
        worker.set_EAR_end(0, 2, 0, 0, status="complete", at=AT)
        worker.save()
        assert not manager.is_modified_on_disk()
        for store in (manager, worker):
            assert store.get_parameter_data(2) == (True, "done")
            assert store.get_parameter_source(2) == {"type": "result", "attempt": 2}
            assert store.get_all_tasks_metadata()[0]["rows"] == {2001: "+-+", 2002: "---", 2003: "-  "}
        # Several at once, or anything else, is for one writer.
        worker.set_parameter(3, 1)
        worker.set_parameter(4, 1)
        with pytest.raises(StoreChangedError):
            worker.save()
        worker.reject_pending()
        assert [worker.is_parameter_set(index) for index in (3, 4)] == [False, False]


def test_a_commit_of_several_gives_way_to_a_cell_that_was_first(tmp_path: Path) -> None:
    with begun(tmp_path / "campaign") as manager, opened(tmp_path / "campaign") as worker:
        manager.set_parameter(2, "manager")
        manager.set_parameter(3, "manager")
        worker.set_parameter(2, "worker")
        worker.save()
        with pytest.raises(ParameterSetError):
            manager.save()
        assert [opened(tmp_path / "campaign").get_parameter_data(index) for index in (2, 3)] == [
            (True, "worker"),
            (False, None),
        ]


# --- commits that are cut short


STEPS = ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.listdir", "os.scandir")


def commit(path: Path) -> None:
    with open_campaign(path) as store:
        add(store, [2005], [1, 2])
        store.set_parameter(1, "one")
        store.set_parameter(2, "two")
        store.set_EAR_end(0, 2, 0, 0, status="complete", at=AT)
        store.save()


def commit_until(path: Path, last: int, told: Any) -> None:
    """Commit in this process, which is killed at its step number `last` that touches the store."""
    count = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in STEPS and str(path) in str(arguments[0]):
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    commit(path)
    told.send(count)


def test_a_commit_killed_at_any_step_is_made_or_not_and_the_next_one_stands(memory: Path) -> None:
    with begun(memory / "begun") as store:
        before = everything(store)
    states, last = [], 0
    while True:
        last += 1
        path = memory / f"{last}"
        shutil.copytree(memory / "begun", path)
        ours, theirs = FORK.Pipe(duplex=False)
        writer = FORK.Process(target=commit_until, args=(path, last, theirs))
        writer.start()
        writer.join(60)
        with opened(path) as store:
            found = everything(store)
            is_made = len(found["parameters"]) == 8
            assert found == before or is_made
            assert [found["parameters"][index][0] for index in (1, 2)] == [is_made, is_made]
            states.append(is_made)
            store.set_parameter(3, "three")
            store.set_parameter(4, "four")
            store.save()
            after = everything(store)
            held = [store.store_path / f"parameters/c/{index}" for index in (1, 2)]
            assert [cell.exists() for cell in held] == [is_made, is_made]
            assert not list(store.store_path.rglob(".stormtracks-*"))
        assert {**after, "parameters": None, "tasks": None, "elements": None} == {
            **found,
            "parameters": None,
            "tasks": None,
            "elements": None,
        }
        if writer.exitcode == 0:
            assert ours.recv() < last
            break
    assert states == sorted(states) and states[0] is False
    # Killed between the pointer and the cells, a commit stands.
    assert states.count(True) > 4


def offsets_in(data: bytes, *, all_of_them: bool) -> Iterator[int]:
    """Where to damage a file: everywhere at its end, where its checksum is, and here and there before."""
    tail = max(len(data) - (120 if all_of_them else 4), 0)
    return chain(range(0, tail, 29 if all_of_them else 61), range(tail, len(data)))


def test_a_damaged_file_is_never_taken_for_what_it_is_not(memory: Path) -> None:
    path = memory / "campaign"
    with begun(path) as store:
        before = everything(store)
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.stat().st_size)
    told, kinds = set(), set()
    for file in files:
        data, kind = file.read_bytes(), file.name if file.suffix else file.parent
        for offset in offsets_in(data, all_of_them=kind not in kinds):
            for damage in (data[:offset], data[:offset] + bytes([data[offset] ^ 4]) + data[offset + 1 :]):
                file.write_bytes(damage)
                try:
                    with opened(path) as store:
                        assert everything(store) == before, f"{file} cut at {offset}"
                except StoreDamagedError as error:
                    assert str(file.parent) in str(error) and error.remedy
                    told.add(file.relative_to(path / "store.zarr").as_posix())
        file.write_bytes(data)
        kinds.add(kind)
    current = json.loads(str(zarr.open_array(path / "store.zarr/pointer", mode="r")[0]))[2] % 2
    assert told == {
        "pointer/c/0",
        f"metadata/c/{current}",
        "parameters/c/0",
        *(f"starts/c/{number}" for number in range(3)),
        *(f"ends/c/{number}" for number in range(2)),
        *(f"{name}/zarr.json" for name in ("pointer", "metadata", "parameters", "starts", "ends")),
    }
    with opened(path) as store:
        assert everything(store) == before


@pytest.mark.parametrize("name", ["pointer/c/0", "metadata"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with begun(tmp_path / "campaign") as store:
        found = [file for file in (store.store_path / name).rglob("*") if file.is_file()]
    for file in found or [store.store_path / name]:
        file.unlink()
    with pytest.raises(StoreDamagedError, match=name.partition("/")[0]):
        opened(tmp_path / "campaign")


def test_the_document_can_be_looked_into(tmp_path: Path) -> None:
    store = campaign(ZarrPersistentStore, tmp_path / "campaign")
    document = store.load_metadata()
    assert [tuple(row[2:4]) for row in document["tables"]["elements"]] == [
        (year, member) for year in (2001, 2002) for member in (1, 2, 3)
    ]
    assert document["generation"] == 1 and len(document["tables"]["parameters"]) == 6


# --- copies


def work_on(path: Path) -> None:
    """Commit several cells, one cell, and the document."""
    with opened(path) as store:
        store.set_parameter(2, "two")
        store.set_parameter(3, "three")
        store.save()
        store.set_parameter(4, "four")
        store.save()
        add(store, [2005], [1])
        store.save()


def copy_in_two(path: Path, to: Path, last: int) -> None:
    """Copy a store, and stop in between: after so many cells."""
    copied = 0
    copyfile = shutil.copyfile

    def copy_and_stop(*arguments: Any) -> None:
        nonlocal copied
        copyfile(*arguments)
        copied += 1
        if copied == last:
            stop_here()

    shutil.copyfile = copy_and_stop  # type: ignore[assignment]
    with opened(path) as store:
        store.copy(to)


@pytest.mark.parametrize("last", [1, 3, 6])
def test_a_copy_keeps_nobody_from_committing_and_is_of_one_state(tmp_path: Path, last: int) -> None:
    path, to = tmp_path / "campaign", tmp_path / "copy"
    with begun(path) as store:
        before = everything(store)
    with stopped(copy_in_two, path, to, last):
        assert ends(work_on, path)
    with opened(to) as copy:
        assert everything(copy) == before
    with opened(path) as store:
        assert everything(store) != before
    assert ends(work_on, to)
    with opened(to) as copy, opened(path) as store:
        assert everything(copy) == everything(store)


def test_a_copy_that_is_cut_short_is_none(tmp_path: Path) -> None:
    path, to = tmp_path / "campaign", tmp_path / "copy"
    with begun(path) as store:
        before = everything(store)
    with stopped(copy_in_two, path, to, 3) as copier:
        copier.kill()
    assert not to.exists()
    with opened(path) as store:
        store.copy(to)
    with opened(to) as copy:
        assert everything(copy) == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["campaign", "copy"]


def test_a_copy_waits_for_the_disk_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[str] = []
    to = tmp_path / "copy"
    with campaign(ZarrPersistentStore, tmp_path / "campaign") as store:
        add(store, [3000], range(100))
        for index in range(106):
            store.set_parameter(index, index)
        store.save()
        monkeypatch.setattr(os, "fsync", lambda descriptor: waits.append("file"))
        monkeypatch.setattr(os, "sync", lambda: waits.append(f"all, {'in place' if to.exists() else 'in the making'}"))
        store.copy(to)
    assert waits.count("all, in the making") == 1
    assert len(waits) < 40
    with opened(to) as copy:
        assert copy.get_all_parameter_data() == {index: (True, index) for index in range(106)}
