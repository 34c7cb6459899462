"""The local backend with real processes: what a task can do to its slot, and that nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from stormtracks.cluster.backends.base import Backend
from stormtracks.cluster.backends.local import LocalBackend
from stormtracks.cluster.errors import BackendError
from stormtracks.cluster.facts import facts, versions
from stormtracks.cluster.process import Process
from stormtracks.cluster.pyro_task import Attempt, Outcome
from tests.cluster import toy_tasks

BOUND = 60.0


def attempt(member: int) -> Attempt:
    return Attempt(1, 2000, member, "vort_track")


def outcomes(backend: Backend, members: Iterable[int], cancel: Iterable[int] = ()) -> dict[int, Outcome]:
    """Begin members, and wait for as many outcomes."""
    (worker,) = backend.workers()
    begin = [(attempt(member),) for member in members]
    found: list[Outcome] = []
    deadline = time.monotonic() + BOUND
    wanted = len(begin) or 1
    to_cancel = [attempt(member) for member in cancel]
    while len(found) < wanted:
        assert time.monotonic() < deadline
        found += backend.exchange(worker.name, begin, to_cancel, 1.0)
        begin, to_cancel = [], []
    return {outcome.attempt.ensemble_member: outcome for outcome in found}


def one(function: str | Callable[..., Any], **options: Any) -> Outcome:
    """What becomes of one attempt; the slot must be good for another one after it."""
    with LocalBackend(function, **options) as backend:
        first = outcomes(backend, [1])[1]
        again = outcomes(backend, [2])[2]
        assert again.status == first.status
    return first


def poll_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(autouse=True)
def nothing_left() -> Iterable[None]:
    """No process, thread or file descriptor outlives a test."""
    me = psutil.Process()
    before = (me.children(recursive=True), me.num_fds(), threading.active_count())
    yield
    assert (me.children(recursive=True), me.num_fds(), threading.active_count()) == before


def test_results_come_back_with_their_attempts() -> None:
    with LocalBackend(toy_tasks.double, slots=2) as backend:
        found = outcomes(backend, range(1, 21))
    assert {member: one.result["tracks"] for member, one in found.items()} == {n: 2 * n for n in range(1, 21)}
    assert found[3].result["name"] == "vort_track/2000/m003"
    assert {one.status for one in found.values()} == {"complete"}
    assert all(one.seconds >= 0 and one.error == "" for one in found.values())
    assert len({one.result["pid"] for one in found.values()}) <= 2


def test_a_wait_can_be_ended_from_another_thread() -> None:
    with LocalBackend(toy_tasks.double) as backend:
        (worker,) = backend.workers()
        found: list[list[Outcome]] = []
        waits = threading.Thread(target=lambda: found.append(backend.exchange(worker.name, [], [], BOUND)))
        waits.start()
        backend.wake()
        waits.join(BOUND / 2)
        assert found == [[]]


def test_a_child_is_used_again() -> None:
    with LocalBackend("tests.cluster.toy_tasks:double") as backend:
        pids = {outcomes(backend, [member])[member].result["pid"] for member in range(1, 6)}
    assert len(pids) == 1


def test_arguments_reach_the_function() -> None:
    arguments = {"threshold": 4e-5, "region": [260.0, 0.0, 340.0, 60.0], "name": "Fönsturm", "preset": None}
    assert one(toy_tasks.echo, arguments=arguments).result == {"arguments": arguments}


def test_children_compute_with_one_thread_and_leave_interrupts_to_the_parent() -> None:
    result = one(toy_tasks.surroundings).result
    assert result == {"omp": "1", "interrupt": "1", "leads_group": True, "parent": os.getpid()}


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("unbuildable", "UnbuildableError: 1 is not 2 (toy_tasks.py:"),
        ("mute", "MuteError: its message raises RuntimeError (toy_tasks.py:"),
        ("remedied", "InputError: variable 'u850' is not in u850_2001.nc (toy_tasks.py:"),
        ("remedied", "\n  remedy: name the variable in [data]"),
        ("endless_message", "xxx ..."),
        ("leave", "SystemExit: by the back door (toy_tasks.py:"),
        ("unsendable", "TypeError: Object of type lock is not JSON serializable"),
        ("huge", "ValueError: the task returned 50012 bytes, more than 16000; leave data in files"),
        ("no_dict", "TypeError: the task returned int, not a dict"),
        ("segfault", "its process was ended by SIGSEGV (signal 11) in ctypes/__init__.py:"),
        ("segfault", "< cluster/toy_tasks.py:"),
        ("segfault_beside_threads", "its process was ended by SIGSEGV (signal 11) in ctypes/__init__.py:"),
        ("exit_3", "its process ended with exit status 3 before it answered: libfoo: assertion failed"),
        ("exit_0", "its process ended with exit status 0 before it answered"),
        ("killed", "its process was ended by SIGKILL (signal 9), as the kernel does when memory runs out"),
    ],
)
def test_a_failure_costs_that_attempt_alone_and_says_why(function: str, reason: str) -> None:
    outcome = one(f"tests.cluster.toy_tasks:{function}")
    assert outcome.status == "failure"
    assert reason in outcome.error
    assert outcome.result == {}
    assert len(outcome.error) < 5000


def test_the_neighbours_of_a_crash_go_on() -> None:
    deadly = {"2": "segfault", "3": "exit_0", "5": "killed", "6": "unbuildable"}
    with LocalBackend("tests.cluster.toy_tasks:chosen", slots=2, arguments={"by_member": deadly}) as backend:
        found = outcomes(backend, range(1, 11))
    assert {member for member, one in found.items() if one.status == "failure"} == {2, 3, 5, 6}
    assert {member for member, one in found.items() if one.status == "complete"} == {1, 4, 7, 8, 9, 10}


@pytest.mark.parametrize("function", ["hang", "hang_deaf"])
def test_a_hang_is_a_timeout(function: str) -> None:
    with LocalBackend(
        "tests.cluster.toy_tasks:chosen", time_limit=0.3, arguments={"by_member": {"1": function}}
    ) as backend:
        found = outcomes(backend, [1, 2])
    assert (found[1].status, found[1].error) == ("timeout", "not done within its time limit of 0.3 s")
    assert found[1].seconds >= 0.3
    assert found[2].status == "complete"


def test_the_time_limit_goes_by_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = time.time
    with LocalBackend("tests.cluster.toy_tasks:double", time_limit=600.0) as backend:
        monkeypatch.setattr(time, "time", lambda: wall() + 86400.0)
        assert outcomes(backend, [1])[1].status == "complete"


def test_a_memory_blow_up_is_a_failure_with_the_remedy() -> None:
    outcome = one("tests.cluster.toy_tasks:memory", memory_limit_gib=1.0, arguments={"gib": 1.5})
    assert outcome.status == "failure"
    assert outcome.error.startswith("MemoryError: ")
    assert outcome.error.endswith("remedy: allow a process more than 1 GiB (memory_limit)")
    assert one("tests.cluster.toy_tasks:memory", memory_limit_gib=None, arguments={"gib": 0.1}).status == "complete"


# --- publishing


def test_whoever_is_asked_may_let_an_attempt_publish_or_not(tmp_path: Path) -> None:
    asked: list[Attempt] = []

    def may_publish(attempt: Attempt) -> bool:
        asked.append(attempt)
        return attempt.ensemble_member != 2

    with LocalBackend(toy_tasks.confirmed, arguments={"folder": str(tmp_path)}, may_publish=may_publish) as backend:
        found = outcomes(backend, [1, 2, 3])
    assert asked == [attempt(1), attempt(2), attempt(3)]
    assert {member: one.status for member, one in found.items()} == {1: "complete", 2: "lost", 3: "complete"}
    assert "no longer holds its lease" in found[2].error
    # It costs nothing but that attempt, and leaves nothing.
    assert found[1].result["pid"] == found[3].result["pid"]
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2", "3", "asked", "m1.nc", "m3.nc"}


@pytest.mark.parametrize("overdue", [False, True])
def test_an_attempt_that_asks_can_still_be_ended(tmp_path: Path, overdue: bool) -> None:
    limit = 1.0 if overdue else 600.0
    with LocalBackend(
        toy_tasks.confirmed_at_the_barrier, time_limit=limit, arguments={"folder": str(tmp_path)}
    ) as backend:
        (worker,) = backend.workers()
        backend.exchange(worker.name, [(attempt(1),)], [], 0.0)
        poll_until(lambda: bool(backend.exchange(worker.name, [], [], 0.02)) or (tmp_path / "1").exists(), "it begins")
        (tmp_path / "go").touch()
        # Nobody listens while it asks.
        poll_until((tmp_path / "asked").exists, "it asks")
        if overdue:
            time.sleep(limit)
        (ended,) = backend.exchange(worker.name, [], [] if overdue else [attempt(1)], 0.0)
        assert ended.status == ("timeout" if overdue else "lost")
    assert {path.name for path in tmp_path.iterdir()} == {"1", "go", "asked"}


def test_whether_another_attempt_is_in_vain_and_how_the_process_ended() -> None:
    by_member = {"1": "hopeless", "2": "remedied", "3": "exit_3", "4": "killed", "5": "double"}
    with LocalBackend("tests.cluster.toy_tasks:chosen", arguments={"by_member": by_member}) as backend:
        found = outcomes(backend, range(1, 6))
    assert [found[member].permanent for member in range(1, 6)] == [True, True, False, False, False]
    assert [found[member].exit_code for member in range(1, 6)] == [None, None, 3, -9, None]


def test_the_worker_says_which_process_it_is_and_what_it_computes_with() -> None:
    with LocalBackend(toy_tasks.double) as first, LocalBackend(toy_tasks.double) as second:
        (one,), (other,) = first.workers(), second.workers()
    assert one.process == Process.own()
    assert one.facts == versions() | facts()
    assert one.incarnation != other.incarnation


def test_cancelling_ends_what_runs_and_what_waits() -> None:
    with LocalBackend("tests.cluster.toy_tasks:chosen", slots=1, arguments={"by_member": {"1": "hang"}}) as backend:
        (worker,) = backend.workers()
        begin = [(attempt(member),) for member in (1, 2, 3)]
        assert backend.exchange(worker.name, begin, [], 0.0) == []
        poll_until(lambda: bool(backend.exchange(worker.name, [], [], 0.05)) or bool(backend.running(worker.name)), "")
        (running,) = backend.running(worker.name)
        assert (running.attempt, running.slot) == (attempt(1), 1)
        found = backend.exchange(worker.name, [], [attempt(1), attempt(2), attempt(9)], 0.0)
        assert {(one.attempt.ensemble_member, one.status, one.error) for one in found} == {
            (1, "lost", "cancelled"),
            (2, "lost", "cancelled before it began"),
        }
        assert outcomes(backend, [])[3].status == "complete"
        assert backend.running(worker.name) == ()


def test_the_attempts_of_an_assignment_share_a_slot_and_fail_alone() -> None:
    with LocalBackend("tests.cluster.toy_tasks:chosen", slots=2, arguments={"by_member": {"2": "segfault"}}) as backend:
        (worker,) = backend.workers()
        found = backend.exchange(worker.name, [tuple(map(attempt, (1, 2, 3, 4)))], [], 0.0)
        deadline = time.monotonic() + BOUND
        while len(found) < 4:
            assert time.monotonic() < deadline
            assert len(backend.running(worker.name)) <= 1
            found += backend.exchange(worker.name, [], [], 1.0)
    assert [(one.attempt.ensemble_member, one.status) for one in found] == [
        (1, "complete"),
        (2, "failure"),
        (3, "complete"),
        (4, "complete"),
    ]


def test_a_task_that_is_ended_can_tidy_up(tmp_path: Path) -> None:
    with LocalBackend(
        "tests.cluster.toy_tasks:temporary_file", slots=2, arguments={"folder": str(tmp_path)}
    ) as backend:
        (worker,) = backend.workers()
        begin = [(attempt(1),), (attempt(2),)]
        assert backend.exchange(worker.name, begin, [], 0.0) == []
        poll_until(lambda: backend.exchange(worker.name, [], [], 0.05) == [] and len(list(tmp_path.iterdir())) == 2, "")
        backend.exchange(worker.name, [], [attempt(1)], 0.0)
        assert [path.name for path in tmp_path.iterdir()] == ["m2.tmp"]
    assert list(tmp_path.iterdir()) == []


def test_what_a_task_has_started_ends_with_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with LocalBackend(
        "tests.cluster.toy_tasks:grandchild", time_limit=600.0, arguments={"folder": str(tmp_path)}
    ) as backend:
        (worker,) = backend.workers()
        backend.exchange(worker.name, [(attempt(1),)], [], 0.0)
        poll_until(lambda: backend.exchange(worker.name, [], [], 0.05) == [] and pid_file.exists(), "no grandchild")
        pid = int(pid_file.read_text())
        assert not gone(pid)
    poll_until(lambda: gone(pid), "the grandchild goes on")


def test_waits_no_longer_than_it_is_told_and_does_so_without_work_too() -> None:
    with LocalBackend("tests.cluster.toy_tasks:hang") as backend:
        (worker,) = backend.workers()
        for begin in ([], [(attempt(1),)]):
            start = time.monotonic()
            assert backend.exchange(worker.name, begin, [], 0.2) == []
            assert time.monotonic() - start >= 0.2


def test_idle_children_that_are_killed_are_replaced() -> None:
    with LocalBackend("tests.cluster.toy_tasks:double") as backend:
        pid = outcomes(backend, [1])[1].result["pid"]
        os.kill(pid, signal.SIGKILL)
        poll_until(lambda: gone(pid), "not killed")
        second = outcomes(backend, [2])[2]
    assert second.status == "complete"
    assert second.result["pid"] != pid


def test_no_threads_but_one_for_any_number_of_slots() -> None:
    before = threading.active_count()
    with LocalBackend("tests.cluster.toy_tasks:double", slots=6) as backend:
        outcomes(backend, range(1, 13))
        assert threading.active_count() <= before + 1
        assert len(psutil.Process().children(recursive=True)) <= 6


def test_children_outlive_the_thread_that_asked_for_them() -> None:
    with LocalBackend("tests.cluster.toy_tasks:double") as backend:
        found: list[dict[int, Outcome]] = []
        for member in (1, 2):
            thread = threading.Thread(target=lambda number=member: found.append(outcomes(backend, [number])))
            thread.start()
            thread.join(BOUND)
    assert found[0][1].result["pid"] == found[1][2].result["pid"]


@pytest.mark.parametrize("task_function", ["tests.cluster.toy_tasks:absent", "no_such_module_anywhere:task"])
def test_a_function_that_cannot_be_loaded_is_the_backends_failure(task_function: str) -> None:
    with LocalBackend(task_function) as backend, pytest.raises(BackendError, match=r"cannot be loaded: .*Error: "):
        outcomes(backend, [1])


def test_too_little_memory_to_load_the_function_is_said_with_the_remedy() -> None:
    with (
        LocalBackend("tests.cluster.toy_tasks:double", memory_limit_gib=0.001) as backend,
        pytest.raises(
            BackendError, match=r"cannot be loaded: MemoryError.*\n  remedy: allow a process more than 0.001"
        ),
    ):
        outcomes(backend, [1])


def test_children_that_cannot_start_are_the_backends_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with (
        LocalBackend("tests.cluster.toy_tasks:double") as backend,
        pytest.raises(BackendError, match="cannot start, 3 times in a row: its process ended with exit status 1"),
    ):
        outcomes(backend, [1])
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with (
        LocalBackend("tests.cluster.toy_tasks:double") as backend,
        pytest.raises(BackendError, match=r"cannot start a child process: .*No such file"),
    ):
        outcomes(backend, [1])


@pytest.mark.parametrize(
    "function", [lambda *_: {}, partial(toy_tasks.double, 2000), "double", "tests.cluster.toy_tasks:"]
)
def test_only_importable_functions_are_taken(function: Any) -> None:
    with pytest.raises(BackendError, match="cannot be imported by another process"):
        LocalBackend(function)


def test_misuse_is_refused() -> None:
    with pytest.raises(BackendError, match="cannot be sent to another process"):
        LocalBackend("tests.cluster.toy_tasks:double", arguments={"lock": threading.Lock()})
    with pytest.raises(BackendError, match="0 slots"):
        LocalBackend("tests.cluster.toy_tasks:double", slots=0)
    for both in (None, toy_tasks.double):
        with pytest.raises(BackendError, match="give either a task function or a bundle function"):
            LocalBackend(both, bundle_function=both)
    backend = LocalBackend("tests.cluster.toy_tasks:double")
    with pytest.raises(BackendError, match="no worker 'elsewhere'"):
        backend.exchange("elsewhere", [], [], 0.0)
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.exchange(backend.workers()[0].name, [], [], 0.0)


@pytest.mark.parametrize("function", ["at_the_barrier", "hang_deaf_at_the_barrier"])
def test_children_die_with_their_parent(tmp_path: Path, function: str) -> None:
    program = (
        "import sys\n"
        "from stormtracks.cluster.backends.local import LocalBackend\n"
        "from stormtracks.cluster.pyro_task import Attempt\n"
        f"backend = LocalBackend('tests.cluster.toy_tasks:{function}', slots=2, arguments={{'folder': sys.argv[1]}})\n"
        "begin = [(Attempt(1, 2000, member, 'vort_track'),) for member in (1, 2)]\n"
        "while True:\n"
        "    backend.exchange(backend.workers()[0].name, begin, [], 1.0)\n"
        "    begin = []\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], env=environment)
    try:
        poll_until(lambda: {"1", "2"} <= {path.name for path in tmp_path.iterdir()}, "the children do not start")
        children = [int((tmp_path / name).read_text()) for name in ("1", "2")]
        assert not any(map(gone, children))
    finally:
        parent.kill()
        parent.wait()
    poll_until(lambda: all(map(gone, children)), "orphans")
