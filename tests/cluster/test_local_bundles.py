"""Bundles in the slots of the local backend, with real processes: whatever one member does, each comes back once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest

from stormtracks.cluster.backends.local import LocalBackend
from stormtracks.cluster.pyro_task import Attempt, Outcome
from tests.cluster import toy_bundles
from tests.cluster.cluster_parts import BOUND, poll_until

ALL = range(1, 7)
"""The members of a bundle; the odd ones are done before the even ones."""
WITH_ANOTHER = "its bundle ended with another task: year 2000, member "


def bundle(members: Iterable[int] = ALL) -> tuple[Attempt, ...]:
    return tuple(Attempt(1, 2000, member, "vort_track") for member in members)


def backend_of(function: Any = toy_bundles.chosen, *, arguments: Any = None, **options: Any) -> LocalBackend:
    return LocalBackend(bundle_function=function, arguments=arguments, **options)


def step(backend: LocalBackend, *begin: tuple[Attempt, ...], cancel: Iterable[Attempt] = ()) -> list[Outcome]:
    """A short exchange."""
    (worker,) = backend.workers()
    return backend.exchange(worker.name, begin, list(cancel), 0.02)


def running(backend: LocalBackend) -> list[int]:
    (worker,) = backend.workers()
    return [one.attempt.ensemble_member for one in backend.running(worker.name)]


def outcomes(backend: LocalBackend, *begin: tuple[Attempt, ...]) -> list[Outcome]:
    """Begin bundles, and wait until nothing is under way."""
    found = step(backend, *begin)
    deadline = time.monotonic() + BOUND
    while len(found) < sum(map(len, begin)):
        assert time.monotonic() < deadline
        found += step(backend)
    assert Counter(one.attempt for one in found) == Counter(attempt for attempts in begin for attempt in attempts)
    assert step(backend) == [] and running(backend) == []
    return found


def made(members: Iterable[int] = ALL, **arguments: Any) -> dict[int, Outcome]:
    """What becomes of the members of a bundle; its slot must be good for another one after it."""
    options = {name: arguments.pop(name) for name in ("time_limit", "memory_limit_gib") if name in arguments}
    with backend_of(arguments=arguments, **options) as backend:
        found = {one.attempt.ensemble_member: one for one in outcomes(backend, bundle(members))}
        assert {one.status for one in outcomes(backend, bundle([7, 9]))} <= {"complete", "failure"}
    return found


def statuses(found: dict[int, Outcome]) -> str:
    return " ".join(found[member].status for member in sorted(found))


@pytest.fixture(autouse=True)
def nothing_left() -> Iterable[None]:
    """No process, thread or file descriptor outlives a test."""
    me = psutil.Process()
    before = (me.children(recursive=True), me.num_fds(), threading.active_count())
    yield
    assert (me.children(recursive=True), me.num_fds(), threading.active_count()) == before


def test_each_comes_back_as_it_is_done_with_what_it_has_found() -> None:
    with backend_of(slots=2) as backend:
        found = outcomes(backend, bundle(range(1, 57)), bundle(range(57, 60)), bundle([60]))
        again = outcomes(backend, bundle([61]), bundle(range(62, 65)))
    assert {one.attempt.ensemble_member: one.result["tracks"] for one in found} == {n: 2 * n for n in range(1, 61)}
    first = [one.attempt.ensemble_member for one in found if one.attempt.ensemble_member <= 56]
    assert first == [*range(1, 57, 2), *range(2, 57, 2)]
    assert len({one.result["pid"] for one in [*found, *again]}) == 2


def test_a_bundle_may_count_on_its_slots_share_of_the_cores() -> None:
    cores = len(os.sched_getaffinity(0))
    for slots in (1, cores, cores + 1):
        with backend_of(toy_bundles.surroundings, slots=slots) as backend:
            (first, second) = outcomes(backend, bundle([3, 5]))
        assert first.result == {"cores": max(1, cores // slots), "attempt": [2000, 3, "vort_track"]}
        assert second.result["attempt"] == [2000, 5, "vort_track"]


def test_it_takes_one_slot_until_its_last_member_has_ended(tmp_path: Path) -> None:
    with backend_of(arguments={"by_member": {"5": "wait_at_the_barrier"}, "folder": str(tmp_path)}) as backend:
        found = step(backend, bundle(), bundle([7, 8]))
        while len(found) < 2:
            found += step(backend)
        poll_until((tmp_path / "5").exists, "the fifth begins")
        (worker,) = backend.workers()
        under_way = backend.running(worker.name)
        assert [(one.attempt.ensemble_member, one.slot) for one in under_way] == [(2, 1), (4, 1), (5, 1), (6, 1)]
        time.sleep(0.1)
        seconds = {one.attempt.ensemble_member: one.seconds for one in backend.running(worker.name)}
        assert seconds[5] >= under_way[2].seconds + 0.1
        assert seconds[6] < seconds[5]
        (tmp_path / "go").touch()
        while len(found) < 8:
            found += step(backend)
    by_member = {one.attempt.ensemble_member: one for one in found}
    assert {one.status for one in found} == {"complete"}
    assert by_member[5].seconds >= 0.1
    assert by_member[6].seconds < by_member[5].seconds


@pytest.mark.parametrize(
    ("act", "reason", "exit_code"),
    [
        ("segfault", "its process was ended by SIGSEGV (signal 11)", -11),
        ("exit_3", "its process ended with exit status 3 before it answered: libfoo: assertion failed", 3),
        ("killed", "its process was ended by SIGKILL (signal 9)", -9),
    ],
)
def test_a_crash_is_the_failure_of_the_one_it_was_at(act: str, reason: str, exit_code: int) -> None:
    found = made(by_member={"5": act})
    assert statuses(found) == "complete lost complete lost failure lost"
    assert found[5].error.startswith(reason)
    assert (found[5].exit_code, found[2].exit_code) == (exit_code, None)
    assert {found[member].error for member in (2, 4, 6)} == {WITH_ANOTHER + "5"}


def test_a_crash_at_work_for_all_is_the_failure_of_all_that_are_not_done() -> None:
    found = made(for_all="exit_3")
    assert statuses(found) == "complete failure complete failure complete failure"
    assert {found[member].exit_code for member in (2, 4, 6)} == {3}


def test_too_little_memory_at_work_for_all_is_that_of_all_that_are_not_done() -> None:
    found = made(for_all="too_much_memory", memory_limit_gib=1.0)
    assert statuses(found) == "complete failure complete failure complete failure"
    assert all(found[member].error.startswith("MemoryError: ") for member in (2, 4, 6))
    with backend_of(toy_bundles.too_little_memory_for_all) as backend:
        assert {(one.status, one.error.split("(")[0]) for one in outcomes(backend, bundle())} == {
            ("failure", "MemoryError: no more ")
        }


def test_what_a_member_raises_is_its_failure_alone() -> None:
    found = made(by_member={"1": "unbuildable", "2": "remedied", "3": "hopeless", "4": "no_dict", "6": "huge"})
    assert statuses(found) == "failure failure failure failure complete failure"
    assert found[1].error.startswith("UnbuildableError: 1 is not 2 (toy_tasks.py:")
    assert [found[member].permanent for member in (1, 3)] == [False, True]
    assert found[4].error.startswith("TypeError: the task returned int, not a dict")
    assert found[6].error.startswith("ValueError: the task returned 50012 bytes, more than 16000")


def test_what_the_function_itself_raises_ends_its_bundle_but_not_its_process() -> None:
    with backend_of(arguments={"by_member": {"5": "unbuildable"}, "raises": True}) as backend:
        found = {one.attempt.ensemble_member: one for one in outcomes(backend, bundle())}
        (after,) = outcomes(backend, bundle([7]))
    assert statuses(found) == "complete lost complete lost failure lost"
    assert found[5].error.startswith("UnbuildableError: 1 is not 2")
    assert found[5].exit_code is None
    assert found[6].error == WITH_ANOTHER + "5"
    assert after.result["pid"] == found[1].result["pid"]


@pytest.mark.parametrize(
    ("function", "expected", "reason"),
    [
        ("forgetful", "complete complete failure", "RuntimeError: 1 attempts of 3 got no answer"),
        ("twice", "complete failure failure", "KeyError: 0"),
        ("fails_in_the_end", "complete complete complete", ""),
        ("none_at_all", "failure failure failure", "TypeError: 'NoneType' object is not iterable"),
        ("out_of_place", "failure failure failure", "IndexError: there is no attempt 3 among 3"),
    ],
)
def test_a_function_that_keeps_to_no_contract(function: str, expected: str, reason: str) -> None:
    with backend_of(f"tests.cluster.toy_bundles:{function}") as backend:
        for _ in range(2):
            found = {one.attempt.ensemble_member: one for one in outcomes(backend, bundle([1, 2, 3]))}
            assert statuses(found) == expected
            assert found[3].error.startswith(reason)


@pytest.mark.parametrize("raises", [False, True])
def test_a_member_that_wants_too_much_memory_fails_alone_and_its_process_ends(raises: bool) -> None:
    with backend_of(arguments={"by_member": {"3": "too_much_memory"}, "raises": raises}, memory_limit_gib=1.0) as one:
        found = {outcome.attempt.ensemble_member: outcome for outcome in outcomes(one, bundle())}
        (after,) = outcomes(one, bundle([5]))
    assert statuses(found) == "complete lost failure lost lost lost"
    assert found[3].error.startswith("MemoryError: ")
    assert found[3].error.endswith("remedy: allow a process more than 1 GiB (memory_limit)")
    assert after.result["pid"] != found[1].result["pid"]


@pytest.mark.parametrize("function", ["hang", "hang_deaf"])
def test_a_member_that_hangs_is_the_timeout(function: str) -> None:
    found = made(by_member={"3": function}, time_limit=0.5)
    assert statuses(found) == "complete lost timeout lost lost lost"
    assert found[3].error == "not done within its time limit of 0.5 s"
    assert found[3].seconds >= 0.5
    assert max(found[member].seconds for member in (1, 2, 4, 5, 6)) < found[3].seconds
    assert found[6].error == WITH_ANOTHER + "3"


def test_work_for_all_that_hangs_is_a_timeout_of_all(tmp_path: Path) -> None:
    with backend_of(toy_bundles.stands_for_all, time_limit=0.5, arguments={"folder": str(tmp_path)}) as backend:
        found = outcomes(backend, bundle())
    assert {(one.status, one.error) for one in found} == {("timeout", "not done within its time limit of 0.5 s")}


def test_the_time_limit_is_for_each() -> None:
    with backend_of(toy_bundles.naps, time_limit=2.0, arguments={"nap": 0.3}) as backend:
        began = time.monotonic()
        found = outcomes(backend, bundle())
        took = time.monotonic() - began
    assert {one.status for one in found} == {"complete"}
    assert all(one.seconds >= 0.35 for one in found)
    # More than one alone may have.
    assert 2.1 <= sum(one.seconds for one in found) <= took


# --- publishing and cancelling


def test_each_is_asked_for_before_it_publishes(tmp_path: Path) -> None:
    asked: list[Attempt] = []

    def may_publish(attempt: Attempt) -> bool:
        asked.append(attempt)
        return attempt.ensemble_member != 3

    arguments = {"by_member": dict.fromkeys("1234", "confirmed"), "folder": str(tmp_path)}
    with backend_of(arguments=arguments, may_publish=may_publish) as backend:
        found = {one.attempt.ensemble_member: one for one in outcomes(backend, bundle([1, 2, 3, 4]))}
    assert asked == list(bundle([1, 3, 2, 4]))
    assert statuses(found) == "complete complete lost complete"
    assert "no longer holds its lease" in found[3].error
    assert {path.name for path in tmp_path.glob("*.nc*")} == {"m1.nc", "m2.nc", "m4.nc"}
    assert len({found[member].result["pid"] for member in (1, 2, 4)}) == 1


def test_one_that_is_cancelled_publishes_nothing_and_the_others_go_on(tmp_path: Path) -> None:
    arguments = {"by_member": dict.fromkeys("123", "confirmed_at_the_barrier"), "folder": str(tmp_path)}
    with backend_of(arguments=arguments) as backend:
        assert step(backend, bundle([1, 2, 3])) == []
        poll_until(lambda: step(backend) or (tmp_path / "1").exists(), "it begins")
        found = step(backend, cancel=bundle([3]))
        assert found == []
        assert running(backend) == [1, 2, 3]
        (tmp_path / "go").touch()
        while len(found) < 3:
            found += step(backend)
    assert [(one.attempt.ensemble_member, one.status, one.error) for one in found] == [
        (1, "complete", ""),
        (3, "lost", "cancelled"),
        (2, "complete", ""),
    ]
    assert {path.name for path in tmp_path.glob("*.nc*")} == {"m1.nc", "m2.nc"}


def test_it_is_ended_when_nobody_wants_what_is_left_of_it(tmp_path: Path) -> None:
    arguments = {"by_member": {"3": "wait_at_the_barrier"}, "folder": str(tmp_path)}
    with backend_of(arguments=arguments) as backend:
        found = step(backend, bundle([1, 2, 3, 4]), bundle([5, 6]))
        poll_until(lambda: found.extend(step(backend)) or (tmp_path / "3").exists(), "it begins")
        found += step(backend, cancel=bundle([2, 3, 6]))
        assert running(backend) == [2, 3, 4]
        pid = int((tmp_path / "3").read_text())
        found += step(backend, cancel=bundle([4]))
        assert not psutil.pid_exists(pid)
        while len(found) < 6:
            found += step(backend)
    by_member = {one.attempt.ensemble_member: one for one in found}
    assert len(found) == 6
    assert statuses(by_member) == "complete lost lost lost complete lost"
    assert {by_member[member].error for member in (2, 3, 4)} == {"cancelled"}
    assert by_member[6].error == "cancelled before it began"


@pytest.mark.parametrize("overdue", [False, True])
def test_one_that_asks_while_its_bundle_is_ended_publishes_nothing(tmp_path: Path, overdue: bool) -> None:
    arguments = {"by_member": {"1": "confirmed_at_the_barrier"}, "folder": str(tmp_path)}
    with backend_of(time_limit=1.0 if overdue else 600.0, arguments=arguments) as backend:
        step(backend, bundle([1, 2]))
        poll_until(lambda: step(backend) or (tmp_path / "1").exists(), "it begins")
        (tmp_path / "go").touch()
        # Nobody listens while it asks.
        poll_until((tmp_path / "asked").exists, "it asks")
        if overdue:
            time.sleep(1.0)
        found = {one.attempt.ensemble_member: one for one in step(backend, cancel=() if overdue else bundle([1, 2]))}
        assert statuses(found) == ("timeout lost" if overdue else "lost lost")
    assert not list(tmp_path.glob("*.nc*"))


def test_kill_its_process_at_any_moment() -> None:
    """Each comes back once, at most one of them to blame if the process was at one."""
    with backend_of(toy_bundles.naps, arguments={"nap": 0.01}) as backend:
        outcomes(backend, bundle([1]))
        for number in range(12):
            found = step(backend, bundle())
            poll_until(lambda: found.extend(step(backend)) or running(backend), "it begins")  # noqa: B023
            (child,) = psutil.Process().children()
            time.sleep(0.006 * number)
            child.send_signal(signal.SIGKILL)
            while len(found) < len(ALL):
                found += step(backend)
            assert sorted(one.attempt.ensemble_member for one in found) == list(ALL)
            assert {one.error for one in found if one.status == "lost"} <= {f"{WITH_ANOTHER}{n}" for n in ALL}
            failed = [one.attempt.ensemble_member for one in found if one.status == "failure"]
            left = [one.attempt.ensemble_member for one in found if one.status != "complete"]
            assert failed in ([], left, failed[:1])
            assert bool(failed) == bool(left)
            poll_until(lambda: step(backend) == [] and not child.is_running(), "it is gone")  # noqa: B023
