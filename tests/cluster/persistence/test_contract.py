"""What every kind of store does, whatever it is written with."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormtracks.cluster.errors import ParameterSetError, StoreChangedError, StoreError, WorkflowNotFoundError
from stormtracks.cluster.persistence import PersistentStore, Workflow, open_campaign, store_cls_from_path
from tests.cluster.persistence.stores import CREATION, STORES, TEMPLATE, WORKER, add, campaign, everything, new_store

Store = type[PersistentStore]

pytestmark = pytest.mark.parametrize("cls", STORES, ids=lambda cls: cls.format)


@pytest.fixture
def tmp_path(memory: Path) -> Path:
    """In memory: hundreds of stores are made here, and nothing is asked of the disk."""
    return memory


def rows(store: PersistentStore) -> dict[int, str]:
    found: dict[int, str] = store.get_all_tasks_metadata()[0]["rows"]
    return found


def begin(store: PersistentStore, iteration: int, number: int = 1) -> int:
    """Add an attempt that is under way; gives its run."""
    element = store.get_task_elements(0, 0, slice(None))
    before = [it for one in element for it in one["iterations"] if it["index"] == iteration]
    store.add_EARs(0, 0, iteration, {**WORKER, "number": number}, {})
    run = len(before[0]["EARs"])
    store.set_EAR_start(0, iteration, 0, run)
    return run


# --- the store as a whole


def test_what_a_campaign_was_made_with_is_kept(cls: Store, tmp_path: Path) -> None:
    new_store(cls, tmp_path / "campaign").close()
    with open_campaign(tmp_path / "campaign") as store:
        assert type(store) is cls
        assert store.get_template() == TEMPLATE
        assert store.get_template_components() == {"versions": {"numpy": "2"}}
        assert store.get_creation_info() == CREATION
        assert store.workflow == Workflow(tmp_path / "campaign")
        assert store.workflow_path == tmp_path / "campaign"
        assert store.store_path.exists() and store.store_path.is_relative_to(store.workflow_path)
        assert store.store_name == cls.format
        assert store.features.submission
        assert datetime.now(UTC).strftime(store.ts_fmt)
        assert (store.get_loops(), store.get_submissions(), store.get_all_tasks_metadata()) == ([], [], [])


def test_a_folder_without_a_store_is_refused_by_name(cls: Store, tmp_path: Path) -> None:
    assert not cls.path_has_store(tmp_path)
    for attempt in (lambda: cls(Workflow(tmp_path)), lambda: store_cls_from_path(tmp_path)):
        with pytest.raises(WorkflowNotFoundError, match=str(tmp_path)) as error:
            attempt()
        assert error.value.remedy


def test_a_store_is_not_made_where_something_is(cls: Store, tmp_path: Path) -> None:
    store = campaign(cls, tmp_path / "campaign")
    before = everything(store)
    with pytest.raises(StoreError, match="something at"):
        cls.write_empty_workflow({}, {}, tmp_path / "campaign", None, {})
    assert everything(store) == before
    assert [path.name for path in tmp_path.iterdir()] == ["campaign"]


def test_a_copy_is_the_same_and_apart(cls: Store, tmp_path: Path) -> None:
    store = campaign(cls, tmp_path / "campaign")
    before = everything(store)
    assert store.copy() == tmp_path / "campaign.copy"
    assert store.copy() == tmp_path / "campaign.copy2"
    assert store.copy(tmp_path / "elsewhere") == tmp_path / "elsewhere"
    with pytest.raises(StoreError, match="something at"):
        store.copy(tmp_path / "elsewhere")
    add(store, [2003], [1])
    store.save()
    for name in ("campaign.copy", "campaign.copy2", "elsewhere"):
        with open_campaign(tmp_path / name) as copy:
            assert everything(copy) == before
            add(copy, [2004], [1])
            copy.save()


def test_a_store_is_deleted_on_confirmation(cls: Store, tmp_path: Path) -> None:
    store = campaign(cls, tmp_path / "campaign")
    asked = []

    def answer(text: str) -> Callable[[str], str]:
        return lambda question: asked.append(question) or text

    store.delete(confirm=answer(""))
    assert store.exists()
    store.delete(confirm=answer("y"))
    assert not store.exists()
    assert all(str(tmp_path / "campaign") in question for question in asked)
    assert list(tmp_path.iterdir()) == []


# --- pending changes


def test_changes_are_seen_by_their_maker_at_once_and_by_others_when_saved(cls: Store, tmp_path: Path) -> None:
    store = new_store(cls, tmp_path / "campaign")
    reader = cls(Workflow(tmp_path / "campaign"))
    before = everything(reader)
    assert not store.has_pending
    slots = add(store, [2001], [1, 2])
    store.set_parameter(slots[0], {"tracks": 4})
    store.add_EARs(0, 0, 1, WORKER, {})
    assert store.has_pending
    pending = everything(store)
    assert pending["tasks"][0]["rows"] == {2001: "+W"}
    assert everything(reader) == before
    store.save()
    assert not store.has_pending
    assert everything(store) == everything(reader) == pending
    assert reader.is_modified_on_disk() and not store.is_modified_on_disk()


@pytest.mark.parametrize("drop", ["reject_pending", "clear_pending"])
def test_dropped_changes_leave_nothing(cls: Store, tmp_path: Path, drop: str) -> None:
    store = campaign(cls, tmp_path / "campaign")
    before = everything(store)
    add(store, [2003], [1])
    store.set_parameter(0, 1)
    store.add_loop([0], {"name": "rerun"}, {})
    store.add_submission({"epoch": 1})
    store.add_template_components({"more": 1})
    getattr(store, drop)()
    assert not store.has_pending
    assert everything(store) == before
    assert add(store, [2003], [1]) == [6]
    store.save()
    assert rows(store)[2003] == "-  "


def test_a_store_changed_by_another_is_noticed_and_nothing_lost(cls: Store, tmp_path: Path) -> None:
    ours, theirs = campaign(cls, tmp_path / "campaign"), cls(Workflow(tmp_path / "campaign"))
    ours.close()  # of which, in a store of one writer, the other takes the place
    ours = cls(Workflow(tmp_path / "campaign"))
    add(theirs, [2003], [1, 2, 3])
    theirs.save()
    after = everything(theirs)
    theirs.close()
    add(ours, [2004], [1, 2, 3])
    for save in (ours.save, ours.commit_pending):
        with pytest.raises(StoreChangedError, match="somebody else") as error:
            save()
        assert error.value.remedy
    assert ours.has_pending
    ours.reject_pending()
    assert everything(ours) == after
    add(ours, [2004], [1, 2, 3])
    ours.save()
    assert rows(ours) == dict.fromkeys([2001, 2002, 2003, 2004], "---")


def test_a_store_that_was_replaced_meanwhile_is_not_written_to(cls: Store, tmp_path: Path) -> None:
    ours = campaign(cls, tmp_path / "campaign")
    (tmp_path / "campaign").rename(tmp_path / "away")
    other = campaign(cls, tmp_path / "campaign")
    before = everything(other)
    other.close()
    add(ours, [2003], [1])
    with pytest.raises(StoreError):
        ours.save()
    with open_campaign(tmp_path / "campaign") as store:
        assert everything(store) == before


def test_within_a_cached_load_nothing_moves(cls: Store, tmp_path: Path) -> None:
    writer = campaign(cls, tmp_path / "campaign")
    reader = cls(Workflow(tmp_path / "campaign"))
    before = everything(reader)
    with reader.cached_load():
        assert rows(reader) == {2001: "---", 2002: "---"}
        for slot in range(6):
            writer.set_parameter(slot, slot)
            writer.save()
            assert everything(reader) == before
    assert rows(reader) == {2001: "+++", 2002: "+++"}


def test_what_is_saved_within_a_cached_load_is_seen_there(cls: Store, tmp_path: Path) -> None:
    store = campaign(cls, tmp_path / "campaign")
    with store.cached_load():
        store.set_parameter(0, 1)
        store.save()
        assert rows(store)[2001] == "+--"
        store.set_parameter(1, 1)
        store.save()
        assert rows(store)[2001] == "++-"
    assert rows(store)[2001] == "++-"


# --- tasks and elements


def test_tasks_keep_their_insert_ID_wherever_they_stand(cls: Store, tmp_path: Path) -> None:
    store = new_store(cls, tmp_path / "campaign")
    for place, name in [(0, "vort_track"), (1, "match"), (0, "fetch")]:
        assert store.get_num_added_tasks() == (0 if name == "vort_track" else 1 if name == "match" else 2)
        store.add_empty_task(place, {"name": name, "extra": 1})
    store.save()
    found = [(task["index"], task["insert_ID"], task["name"], task["extra"]) for task in store.get_all_tasks_metadata()]
    assert found == [(0, 2, "fetch", 1), (1, 0, "vort_track", 1), (2, 1, "match", 1)]
    assert [store.get_task_idx_from_insert_ID(insert_ID) for insert_ID in range(3)] == [1, 2, 0]
    with pytest.raises(StoreError, match="place"):
        store.get_task_elements(0, 0, slice(None))


def test_elements_are_told_by_year_and_member(cls: Store, tmp_path: Path) -> None:
    store = campaign(cls, tmp_path / "campaign")
    add(store, [2000, 2003], [3, 7])
    store.save()
    (task,) = store.get_all_tasks_metadata()
    assert task["num_elements"] == 10
    assert task["members"] == [1, 2, 3, 7]
    assert task["rows"] == {2000: "  --", 2001: "--- ", 2002: "--- ", 2003: "  --"}
    assert task["element_sets"] == [
        {"years": [2001, 2002], "members": [1, 2, 3]},
        {"years": [2000, 2003], "members": [3, 7]},
    ]
    elements = store.get_task_elements(0, 0, slice(None))
    assert [element["index"] for element in elements] == list(range(10))
    assert [element["element_set"] for element in elements] == [0] * 6 + [1] * 4
    assert (elements[6]["year"], elements[6]["member"]) == (2000, 3)
    add(store, [2001], [9, 5])
    store.save()
    assert store.get_all_tasks_metadata()[0]["members"] == [1, 2, 3, 5, 7, 9]
    assert rows(store)[2001] == "---- -"
    assert elements[6]["iterations"] == [{"index": 6, "parameter": 6, "loop": None, "status": "-", "EARs": []}]


@pytest.mark.parametrize("retired", [False, True])
def test_a_year_and_member_is_in_a_task_once(cls: Store, tmp_path: Path, retired: bool) -> None:
    store = campaign(cls, tmp_path / "campaign")
    if retired:
        store.retire_elements(0, 0, [5])
        store.save()
    for years, members in ([2002], [3]), ([2003], [1, 1]):
        with pytest.raises(StoreError, match=f"year {years[0]}, member {members[-1]}"):
            add(store, years, members)
        store.clear_pending()
    assert len(store.get_task_elements(0, 0, slice(None))) == 6


def test_retired_elements_keep_their_history_and_count_no_more(cls: Store, tmp_path: Path) -> None:
    store = campaign(cls, tmp_path / "campaign")
    begin(store, 1)
    store.save()
    history = store.get_task_elements(0, 0, slice(None))
    store.retire_elements(0, 0, [1, 3, 4, 5])
    store.save()
    assert rows(store) == {2001: "--"}
    assert store.get_all_tasks_metadata()[0]["members"] == [1, 3]
    retired = store.get_task_elements(0, 0, slice(None))
    assert [element["retired"] for element in retired] == [False, True, False, True, True, True]
    assert [element["iterations"] for element in retired] == [element["iterations"] for element in history]
    store.restore_elements(0, 0, [1, 3, 4, 5])
    store.save()
    assert store.get_task_elements(0, 0, slice(None)) == history


def test_a_rerun_is_a_new_iteration_beside_the_old(cls: Store, tmp_path: Path) -> None:
    store = campaign(cls, tmp_path / "campaign")
    store.set_parameter(1, {"tracks": 3})
    store.add_loop([0], {"name": "rerun"}, {"result": {"from": 0}})
    slots = [store.add_unset_parameter_data({"round": 1}) for _ in range(2)]
    iterations = [{"parameter": slot, "loop": 0} for slot in slots]
    store.add_element_iterations(0, 0, iterations, {4: [7], 1: [6]})
    store.update_loop_num_added_iters(0, 2)
    store.save()
    assert rows(store) == {2001: "---", 2002: "---"}
    (element,) = store.get_task_elements(0, 0, slice(1, 2), keep_iterations_idx=True)
    assert [(it["index"], it["parameter"], it["loop"], it["status"]) for it in element["iterations"]] == [
        (1, 1, None, "+"),
        (6, 6, 0, "-"),
    ]
    assert element["iterations_idx"] == [1, 6]
    assert store.get_loops() == [
        {
            "name": "rerun",
            "task_indices": [0],
            "iterable_parameters": {"result": {"from": 0}},
            "index": 0,
            "num_added_iterations": 2,
        }
    ]
    store.set_parameter(6, {"tracks": 4})
    store.save()
    assert rows(store)[2001] == "-+-"
    assert store.get_parameter_data(1) == (True, {"tracks": 3})


@pytest.mark.parametrize("given_to", [{1: [5]}, {1: [6], 2: [6]}, {1: [6, 6]}, {}, {1: [6, 7]}, {99: [6]}])
def test_iterations_are_given_to_elements_one_by_one(cls: Store, tmp_path: Path, given_to: dict[int, Any]) -> None:
    store = campaign(cls, tmp_path / "campaign")
    slot = store.add_unset_parameter_data({})
    with pytest.raises(StoreError):
        store.add_element_iterations(0, 0, [{"parameter": slot}], given_to)


@given(
    start=st.none() | st.integers(-8, 8), stop=st.none() | st.integers(-8, 8), step=st.sampled_from([None, 1, 2, -1])
)
def test_a_selection_is_that_of_a_list(
    cls: Store, tmp_path_factory: pytest.TempPathFactory, start: int | None, stop: int | None, step: int | None
) -> None:
    path = tmp_path_factory.getbasetemp() / f"selection-{cls.format}"
    store = open_campaign(path) if path.exists() else campaign(cls, path)
    with store:
        whole = store.get_task_elements(0, 0, slice(None))
        chosen = slice(start, stop, step)
        assert store.get_task_elements(0, 0, chosen) == whole[chosen]
        assert list(store.get_task_elements_islice(0, 0, chosen)) == whole[chosen]
        if start is not None and -6 <= start < 6:
            assert list(store.get_task_elements_islice(0, 0, start)) == [whole[start]]


# --- attempts


@pytest.mark.parametrize("gap", [0, 1, 100])
def test_elements_are_found_by_the_status_of_their_latest_iteration(
    cls: Store, tmp_path: Path, gap: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stormtracks.cluster.persistence.reading.GAP", gap)
    store = campaign(cls, tmp_path / "campaign")
    add(store, [2003], [1, 2, 3])
    for element, status in enumerate((None, "failure", "timeout", "complete", "failure", "lost")):
        run = begin(store, element)
        if status is not None:
            store.set_EAR_end(0, element, 0, run, status=status)
    store.set_parameter(3, {"tracks": 1})
    store.set_parameter(4, {"tracks": 1})
    slot = store.add_unset_parameter_data({"round": 1})
    store.add_element_iterations(0, 0, [{"parameter": slot, "loop": None}], {4: [9]})
    store.retire_elements(0, 0, [2, 8])
    expected = {
        "W": [0],
        "F": [1],
        "T": [],
        "WF": [0, 1],
        "WFT": [0, 1],
        "+": [3],
        "-": [4, 5, 6, 7],
        "F-": [1, 4, 5, 6, 7],
    }
    all_elements = store.get_task_elements(0, 0, slice(None))
    for _ in ("pending", "saved"):
        for statuses, indices in expected.items():
            found = list(store.get_task_elements_of_status(0, 0, statuses))
            assert found == [all_elements[index] for index in indices], statuses
        store.save()


def test_an_attempt_is_told_whole(cls: Store, tmp_path: Path) -> None:
    store = campaign(cls, tmp_path / "campaign")
    eastern = timezone(timedelta(hours=5, minutes=45))
    store.add_submission({"epoch": 1})
    store.add_EARs(0, 0, 2, {**WORKER, "worker": "w\udcff"}, {2: {"worker": "w"}})
    store.set_EAR_submission_indices(0, (0, 2, 0, 0))
    store.set_EAR_start(0, 2, 0, 0, at=datetime(2024, 3, 31, 2, 30, 0, 7, tzinfo=eastern))
    store.set_EAR_end(0, 2, 0, 0, status="failure", error="ß: no\n", exit_code=-9, seconds=1 / 3)
    store.save()
    with open_campaign(tmp_path / "campaign") as again:
        (attempt,) = again.get_task_elements(0, 0, slice(2, 3))[0]["iterations"][0]["EARs"]
        assert again.get_parameter_source(2) == {"type": "result", "worker": "w"}
    assert attempt["end"].utcoffset() == timedelta(0)
    assert abs(attempt.pop("end") - datetime.now(UTC)) < timedelta(hours=1)
    assert attempt == {
        **WORKER,
        "worker": "w\\udcff",
        "submission": 0,
        "start": datetime(2024, 3, 30, 20, 45, 0, 7, tzinfo=UTC),
        "status": "failure",
        "error": "ß: no\n",
        "exit_code": -9,
        "seconds": 1 / 3,
    }
    assert attempt["start"].utcoffset() == timedelta(0)


@pytest.mark.parametrize(("status", "glyph"), [("failure", "F"), ("timeout", "T"), ("lost", "-"), ("complete", "-")])
def test_the_status_is_that_of_the_last_attempt_until_the_result_is_there(
    cls: Store, tmp_path: Path, status: str, glyph: str
) -> None:
    store = campaign(cls, tmp_path / "campaign")
    begin(store, 0)
    assert rows(store)[2001] == "W--"
    store.save()
    assert rows(store)[2001] == "W--"
    store.set_EAR_end(0, 0, 0, 0, status=status)
    store.save()
    assert rows(store)[2001] == f"{glyph}--"
    assert begin(store, 0, number=2) == 1
    store.save()
    assert rows(store)[2001] == "W--"
    if status in ("failure", "timeout"):
        store.set_EAR_end(0, 0, 0, 0, status="forgiven")
        store.save()
        assert rows(store)[2001] == "W--", "an earlier attempt changes nothing"
    store.set_EAR_end(0, 0, 0, 1, status="complete")
    store.set_parameter(0, {"tracks": 1})
    store.save()
    assert rows(store)[2001] == "+--"
    statuses = [attempt["status"] for attempt in store.get_task_elements(0, 0, slice(1))[0]["iterations"][0]["EARs"]]
    assert statuses == ["forgiven" if status in ("failure", "timeout") else status, "complete"]


def test_a_forgiven_attempt_keeps_what_is_known_of_it(cls: Store, tmp_path: Path) -> None:
    store = campaign(cls, tmp_path / "campaign")
    begin(store, 0)
    store.set_EAR_end(0, 0, 0, 0, status="failure", error="why", exit_code=3, seconds=2.5)
    store.save()
    (before,) = store.get_task_elements(0, 0, slice(1))[0]["iterations"][0]["EARs"]
    store.set_EAR_end(0, 0, 0, 0, status="forgiven")
    store.save()
    (after,) = store.get_task_elements(0, 0, slice(1))[0]["iterations"][0]["EARs"]
    assert after == {**before, "status": "forgiven"}
    assert rows(store)[2001] == "---"


def test_a_lost_attempt_that_goes_on_has_not_ended(cls: Store, tmp_path: Path) -> None:
    store = campaign(cls, tmp_path / "campaign")
    begin(store, 0)
    store.save()
    before = everything(store)
    for _ in range(2):
        store.set_EAR_end(0, 0, 0, 0, status="lost", error="not heard from", seconds=7.0)
        store.save()
        store.set_EAR_end(0, 0, 0, 0, status=None)
        store.save()
        assert everything(store) == before
    store.set_EAR_end(0, 0, 0, 0, status="failure", error="why", exit_code=3, seconds=9.5)
    store.save()
    (after,) = store.get_task_elements(0, 0, slice(1))[0]["iterations"][0]["EARs"]
    assert (after["status"], after["error"], after["exit_code"], after["seconds"]) == ("failure", "why", 3, 9.5)
    assert rows(store)[2001] == "F--"
    store.set_EAR_end(0, 0, 0, 0, status="forgiven")
    store.save()
    assert rows(store)[2001] == "---"


@pytest.mark.parametrize(("first", "second"), [("complete", "failure"), ("lost", "forgiven"), (None, "forgiven")])
def test_an_attempt_ends_once(cls: Store, tmp_path: Path, first: str | None, second: str) -> None:
    store = campaign(cls, tmp_path / "campaign")
    begin(store, 0)
    if first is not None:
        store.set_EAR_end(0, 0, 0, 0, status=first)
    store.save()
    before = everything(store)
    for status in (second, "tired"):
        with pytest.raises(StoreError, match="cannot become") as error:
            store.set_EAR_end(0, 0, 0, 0, status=status)
        assert error.value.remedy
    assert everything(store) == before


def test_a_time_without_a_zone_is_refused(cls: Store, tmp_path: Path) -> None:
    store = campaign(cls, tmp_path / "campaign")
    begin(store, 0)
    with pytest.raises(StoreError, match="zone"):
        store.set_EAR_start(0, 0, 0, 0, at=datetime(2001, 1, 1))


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.add_EARs(0, 0, 6, WORKER, {}),
        lambda store: store.add_EARs(0, 0, -1, WORKER, {}),
        lambda store: store.add_EARs(0, 0, 0, WORKER, {6: {}}),
        lambda store: store.set_EAR_start(0, 0, 0, 0),
        lambda store: store.set_EAR_start(0, 0, 1, 0),
        lambda store: store.set_EAR_submission_indices(0, (0, 0, 0, 0)),
        lambda store: store.get_task_elements(0, 1, slice(None)),
        lambda store: store.get_task_elements(1, 0, slice(None)),
        lambda store: store.add_element_set(1, {}),
        lambda store: store.add_elements(0, 0, [{"year": 1, "member": 1}], []),
        lambda store: store.add_elements(0, 0, [{"year": 1, "member": 1}], [{"parameter": 0}]),
        lambda store: store.add_elements(0, 0, [{"year": 1, "member": 1}], [{"parameter": 6}]),
        lambda store: store.retire_elements(0, 0, [0, 6]),
        lambda store: store.add_empty_task(2, {"name": "x"}),
        lambda store: store.add_empty_task(0, {}),
        lambda store: store.get_task_idx_from_insert_ID(1),
        lambda store: store.set_parameter(6, 1),
        lambda store: store.set_parameter(-1, 1),
        lambda store: store.set_parameter(0, object()),
        lambda store: store.add_parameter_data({1, 2}, {}),
        lambda store: store.get_parameter_data(6),
        lambda store: store.is_parameter_set(6),
        lambda store: store.get_parameter_source(6),
        lambda store: store.update_loop_num_added_iters(0, 1),
        lambda store: store.append_submission_attempt(0, 0),
        lambda store: store.set_jobscript_job_ID(0, 0, 1),
        lambda store: store.reinstate_replaced_dir(),
    ],
)
def test_what_is_not_there_is_refused_and_nothing_pending(
    cls: Store, tmp_path: Path, call: Callable[[PersistentStore], object]
) -> None:
    store = campaign(cls, tmp_path / "campaign")
    with pytest.raises(StoreError) as error:
        call(store)
    assert error.value.remedy
    assert not store.has_pending


# --- parameters


def test_a_parameter_is_written_once(cls: Store, tmp_path: Path) -> None:
    store = new_store(cls, tmp_path / "campaign")
    values: list[Any] = [None, False, 0, 1.5, "ö\x00\n", [], {"a": [1, {"b": None}]}, float("inf")]
    indices = [store.add_parameter_data(value, {"type": "settings"}) for value in values]
    unset = store.add_unset_parameter_data({"type": "result"})
    store.save()
    assert [store.get_parameter_data(index) for index in indices] == [(True, value) for value in values]
    assert store.get_parameter_data(unset) == (False, None)
    assert not store.is_parameter_set(unset)
    store.set_parameter(unset, None)
    for moment in ("pending", "saved"):
        assert store.is_parameter_set(unset), moment
        for index in (unset, indices[0]):
            with pytest.raises(RuntimeError, match=f"parameter {index} .* set already"):
                store.set_parameter(index, 2)
        store.save()
    assert issubclass(ParameterSetError, RuntimeError)
    assert store.get_all_parameter_data() == dict(enumerate([*((True, value) for value in values), (True, None)]))
    assert store.get_parameter_source(unset) == {"type": "result"}
    assert store.check_parameters_exist(unset) is True
    assert store.check_parameters_exist([0, unset, unset + 1, -1]) == [True, True, False, False]


def test_template_components_add_up(cls: Store, tmp_path: Path) -> None:
    store = new_store(cls, tmp_path / "campaign")
    store.add_template_components({"versions": {"numpy": "3"}, "cpu": ["avx2"]})
    assert store.get_template_components() == {"versions": {"numpy": "3"}, "cpu": ["avx2"]}
    store.save()
    with open_campaign(tmp_path / "campaign") as again:
        assert again.get_template_components() == {"versions": {"numpy": "3"}, "cpu": ["avx2"]}


# --- submissions


def test_each_start_is_told_with_its_workers(cls: Store, tmp_path: Path) -> None:
    store = new_store(cls, tmp_path / "campaign")
    when = datetime(2024, 10, 27, 1, 30, tzinfo=UTC)
    store.add_submission({"epoch": 1, "host": "here"})
    store.save()
    store.set_jobscript_job_ID(0, 0, "w1-7")
    store.set_jobscript_submit_time(0, 0, when)
    store.set_jobscript_version_info(0, 0, ("stormtracks", "0.1"))
    store.append_submission_attempt(0, 0)
    store.save()
    store.set_jobscript_job_ID(0, 1, 4711)
    store.append_submission_attempt(0, 1)
    store.add_submission({"epoch": 2})
    with pytest.raises(StoreError, match="jobscript 3"):
        store.set_jobscript_job_ID(0, 3, 1)
    store.save()
    with open_campaign(tmp_path / "campaign") as again:
        first, second = again.get_submissions()
    assert first == {
        "epoch": 1,
        "host": "here",
        "index": 0,
        "submission_attempts": [0, 1],
        "jobscripts": [
            {"index": 0, "job_ID": "w1-7", "submit_time": when, "version_info": ["stormtracks", "0.1"]},
            {"index": 1, "job_ID": 4711},
        ],
    }
    assert second == {"epoch": 2, "index": 1, "submission_attempts": [], "jobscripts": []}


# --- any order of calls


def random_step(store: PersistentStore, chance: random.Random, at: datetime) -> None:
    """One change that may be made to a campaign in its present state, by chance."""
    elements = store.get_task_elements(0, 0, slice(None))
    element = chance.choice(elements)
    iteration = element["iterations"][-1]
    running = [run for run, attempt in enumerate(iteration["EARs"]) if attempt["status"] is None]
    kind = chance.randrange(9)
    if kind == 0:
        add(store, [2000 + len(elements)], range(1, chance.randrange(2, 4)))
    elif kind == 1:
        slot = store.add_unset_parameter_data({"round": len(element["iterations"])})
        count = sum(len(one["iterations"]) for one in elements)
        store.add_element_iterations(0, 0, [{"parameter": slot, "loop": 0}], {element["index"]: [count]})
    elif kind in (2, 3):
        store.add_EARs(0, 0, iteration["index"], WORKER, {iteration["parameter"]: {"at": kind}})
        store.set_EAR_start(0, iteration["index"], 0, len(iteration["EARs"]), at=at)
    elif kind in (4, 5) and running:
        status = chance.choice(["complete", "failure", "timeout", "lost"])
        store.set_EAR_end(0, iteration["index"], 0, running[0], status=status, seconds=chance.random(), at=at)
    elif kind == 6 and not store.is_parameter_set(iteration["parameter"]):
        store.set_parameter(iteration["parameter"], {"value": chance.random()})
    elif kind == 7:
        change = store.restore_elements if element["retired"] else store.retire_elements
        change(0, 0, [element["index"]])
    elif kind == 8:
        store.add_template_components({f"name {chance.randrange(3)}": chance.random()})


@pytest.mark.parametrize("seed", range(5))
def test_any_order_of_calls_gives_the_same_in_memory_on_disk_and_in_every_kind(
    cls: Store, tmp_path: Path, seed: int
) -> None:
    ours, model = campaign(cls, tmp_path / "ours"), campaign(STORES[0], tmp_path / "model")
    for store in (ours, model):
        store.add_loop([0], {"name": "rerun"}, {})
    chances = random.Random(seed), random.Random(seed)
    at = datetime(2001, 1, 1, tzinfo=UTC)
    for step in range(80):
        for store, chance in zip((ours, model), chances, strict=True):
            random_step(store, chance, at + timedelta(hours=step))
        if step % 7 == 0:
            ours.save()
        if step % 20 == 0:
            assert everything(ours) == everything(model)
    ours.save()
    final = everything(model)
    with cls(Workflow(tmp_path / "ours")) as again:
        assert everything(again) == everything(ours) == final
