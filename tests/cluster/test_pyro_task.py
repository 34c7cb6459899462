"""Tasks and their schedule: the documented names and strings, and the rules of the core under any order of events."""

from __future__ import annotations

from itertools import count
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stormtracks.cluster.errors import ClusterError, NotScheduledError, UnknownStatusError, UnknownTaskError
from stormtracks.cluster.pyro_task import (
    GLYPHS,
    STATUSES,
    TASKS,
    Attempt,
    PyroTask,
    PyroTaskSchedule,
    task_name,
)


def test_statuses_are_the_documented_ones() -> None:
    assert STATUSES == ("outstanding", "working", "complete", "failure", "timeout")
    assert "".join(GLYPHS.values()) == "-W+FT"


def test_a_task_by_itself() -> None:
    task = PyroTask(2000, 3, "vort_track")
    assert (task.year, task.ensemble_member, task.task, task.status) == (2000, 3, "vort_track", "outstanding")
    for status in STATUSES:
        task.status = status
        assert task.status == status
    assert repr(task) == "<PyroTask vort_track 2000 member 3: timeout>"


def test_a_task_is_known_by_what_is_to_be_done() -> None:
    task = PyroTask(2000, 3, "vort_tracking")
    task.status = "complete"
    assert task == PyroTask(2000, 3, "vort_track")
    assert len({task, PyroTask(2000, 3, "vort_track"), PyroTask(2000, 4, "vort_track")}) == 2
    assert task != "vort_track"


def test_the_alias_means_the_same() -> None:
    assert task_name("vort_tracking") == "vort_track"
    assert PyroTaskSchedule(task="vort_tracking").task == "vort_track"
    assert [task_name(name) for name in TASKS] == list(TASKS)


def test_unknown_names_are_refused_by_name() -> None:
    with pytest.raises(UnknownTaskError, match=r"unknown task 'rain_track'\n  remedy: use one of: vort_track"):
        PyroTask(2000, 1, "rain_track")
    task = PyroTaskSchedule().find(2000, 1)
    with pytest.raises(UnknownStatusError, match="unknown status 'done'\n  remedy: use one of: outstanding, working"):
        task.status = "done"
    assert task.status == "outstanding"
    assert issubclass(UnknownStatusError, ClusterError)


def test_default_schedule_is_the_documented_one() -> None:
    schedule = PyroTaskSchedule()
    assert len(schedule) == 13 * 56
    assert (schedule.years[0], schedule.years[-1]) == (2000, 2012)
    assert (schedule.members[0], schedule.members[-1]) == (1, 56)
    assert schedule.get_progress_for_year(2012) == "2012: " + 56 * "-"


def test_progress_has_the_documented_strings(capsys: pytest.CaptureFixture[str]) -> None:
    schedule = PyroTaskSchedule(2000, 2001, 8)
    for member, status in enumerate(("working", "complete", "failure", "timeout"), start=2):
        schedule.find(2000, member).status = status
    assert schedule.get_progress_for_year(2000) == "2000: -W+FT---"
    assert schedule.get_progress_for_year(2000, include_year=False) == "-W+FT---"
    assert schedule.get_progress() == "-W+FT---\n--------\n"
    assert schedule.get_progress(include_year=True) == "2000: -W+FT---\n2001: --------\n"
    assert schedule.get_progress([2001], True) == "2001: --------\n"
    schedule.print_years()
    assert capsys.readouterr().out == "2000: -W+FT---\n2001: --------\n"
    schedule.print_years([2000], include_year=False)
    assert capsys.readouterr().out == "-W+FT---\n"


def test_what_is_not_scheduled_is_named() -> None:
    schedule = PyroTaskSchedule(2000, 2012, 56)
    with pytest.raises(NotScheduledError, match=r"year 1999 is not in the schedule\n  remedy: .* 2000 to 2012"):
        schedule.get_progress_for_year(1999)
    with pytest.raises(NotScheduledError, match="year 2013"):
        schedule.get_progress([2000, 2013])
    with pytest.raises(NotScheduledError, match=r"member 57 is not in the schedule\n  remedy: .* 1 to 56"):
        schedule.find(2000, 57)


@pytest.mark.parametrize(
    "arguments", [{"start_year": 2012, "end_year": 2000}, {"members": []}, {"years": []}, {"max_attempts": 0}]
)
def test_a_schedule_of_nothing_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ClusterError):
        PyroTaskSchedule(**arguments)


def test_get_next_outstanding_hands_out_without_marking() -> None:
    schedule = PyroTaskSchedule(2000, 2001, 2)
    order = []
    while (task := schedule.get_next_outstanding()) is not None:
        assert schedule.get_next_outstanding() == task
        assert task.status == "outstanding"
        order.append((task.year, task.ensemble_member))
        task.status = "working"
    assert order == [(2000, 1), (2000, 2), (2001, 1), (2001, 2)]
    assert schedule.counts["working"] == 4


def test_a_task_that_is_outstanding_again_comes_in_its_place() -> None:
    schedule = PyroTaskSchedule(2000, 2002, 2)
    for task in schedule:
        task.status = "complete"
    assert schedule.get_next_outstanding() is None
    assert schedule.done
    for year, member in ((2002, 1), (2000, 2), (2001, 1)):
        schedule.find(year, member).status = "outstanding"
    found = []
    while (task_again := schedule.get_next_outstanding()) is not None:
        found.append((task_again.year, task_again.ensemble_member))
        task_again.status = "complete"
    assert found == [(2000, 2), (2001, 1), (2002, 1)]


def test_years_and_members_may_be_any_numbers() -> None:
    schedule = PyroTaskSchedule(years=[2005, 1890], members=[0, 7])
    assert schedule.get_progress(include_year=True) == "1890: --\n2005: --\n"
    assert [(task.year, task.ensemble_member) for task in schedule] == [(1890, 0), (1890, 7), (2005, 0), (2005, 7)]


def test_fresh_tasks_go_out_before_retries_and_the_failure_shows_until_then() -> None:
    schedule = PyroTaskSchedule(2000, 2000, 3, max_attempts=2)
    (first,) = schedule.next_assignment("a")
    assert schedule.failed(first, "disk full")
    assert schedule.get_progress_for_year(2000) == "2000: F--"
    (second,) = schedule.next_assignment("a")
    (third,) = schedule.next_assignment("a")
    assert (second.ensemble_member, third.ensemble_member) == (2, 3)
    assert schedule.timed_out(second, "too slow")
    assert schedule.get_progress_for_year(2000) == "2000: FTW"
    assert not schedule.done
    assert schedule.left == 3
    assert schedule.next_assignment("b") == (Attempt(2, 2000, 1, "vort_track"),)
    assert schedule.next_assignment("b") == (Attempt(2, 2000, 2, "vort_track"),)
    assert schedule.next_assignment("b") == ()
    assert schedule.get_progress_for_year(2000) == "2000: WWW"


def test_retries_are_capped_and_every_reason_is_kept() -> None:
    schedule = PyroTaskSchedule(2000, 2000, 1, max_attempts=3)
    for number in range(1, 4):
        (attempt,) = schedule.next_assignment(f"host{number}")
        assert attempt.number == number
        assert schedule.failed(attempt, f"reason {number}")
    assert schedule.next_assignment("host4") == ()
    assert schedule.done
    ((task, failures),) = schedule.failures()
    assert task.status == "failure"
    assert [(one.worker, one.reason) for one in failures] == [(f"host{n}", f"reason {n}") for n in (1, 2, 3)]


def test_a_lost_attempt_does_not_count_against_its_task() -> None:
    schedule = PyroTaskSchedule(2000, 2000, 1, max_attempts=1)
    for number in range(1, 6):
        (attempt,) = schedule.next_assignment("a")
        assert attempt.number == number
        assert schedule.lost(attempt)
        assert schedule.get_progress_for_year(2000) == "2000: -"
    (attempt,) = schedule.next_assignment("a")
    assert schedule.completed(attempt)
    assert schedule.done


def test_the_task_of_a_worker_that_is_gone_shows_a_timeout_and_goes_out_first() -> None:
    schedule = PyroTaskSchedule(2000, 2000, 4, max_attempts=1)
    attempts = [schedule.next_assignment("a")[0] for _ in range(3)]
    assert schedule.orphaned(attempts[1])
    assert schedule.orphaned(attempts[0])
    assert not schedule.orphaned(attempts[0])
    assert schedule.get_progress_for_year(2000) == "2000: TTW-"
    assert schedule.left == 4
    assert not schedule.done
    assert schedule.next_assignment("b") == (Attempt(2, 2000, 2, "vort_track"),)
    assert schedule.next_assignment("a", others=True) == (Attempt(2, 2000, 1, "vort_track"),)
    assert schedule.get_progress_for_year(2000) == "2000: WWW-"
    assert not schedule.completed(attempts[0])
    assert list(schedule.failures()) == []


def test_a_retry_goes_to_another_worker_where_there_is_one() -> None:
    schedule = PyroTaskSchedule(2000, 2000, 3, max_attempts=3)
    for worker in "aab":
        (attempt,) = schedule.next_assignment(worker)
        schedule.failed(attempt, "no")
    assert schedule.next_assignment("c", others=True)[0].ensemble_member == 1
    assert schedule.next_assignment("a", others=True)[0].ensemble_member == 3
    assert schedule.next_assignment("a", others=True) == ()
    assert schedule.left == 3
    assert schedule.next_assignment("a")[0].ensemble_member == 2


def test_a_stale_attempt_is_ignored_and_said_so(caplog: pytest.LogCaptureFixture) -> None:
    schedule = PyroTaskSchedule(2000, 2000, 1)
    (first,) = schedule.next_assignment("a")
    schedule.lost(first)
    (second,) = schedule.next_assignment("b")
    foreign = Attempt(2, 2000, 1, "match")
    assert not schedule.completed(first)
    assert not schedule.failed(foreign, "no")
    assert not schedule.timed_out(Attempt(1, 1871, 99, "vort_track"), "no")
    assert caplog.text.count("not the current attempt") == 3
    assert schedule.get_progress_for_year(2000) == "2000: W"
    assert schedule.completed(second)
    assert not schedule.completed(second)


def test_a_status_set_by_hand_makes_the_attempt_stale() -> None:
    schedule = PyroTaskSchedule(2000, 2000, 2)
    (attempt,) = schedule.next_assignment("a")
    schedule.find(2000, 1).status = "complete"
    assert not schedule.failed(attempt, "too late")
    assert schedule.get_progress_for_year(2000) == "2000: +-"


class CountingCodes(bytearray):
    """Counts how many tasks are looked at."""

    looked_at = 0

    def find(self, value: int, start: int = 0) -> int:  # type: ignore[override]
        found = super().find(value, start)
        CountingCodes.looked_at += (len(self) if found < 0 else found + 1) - start
        return found

    def __getitem__(self, index: Any) -> Any:
        CountingCodes.looked_at += 1
        return super().__getitem__(index)


def test_handing_out_100_000_tasks_scans_nothing() -> None:
    schedule = PyroTaskSchedule(1000, 1999, 100)
    schedule._codes = CountingCodes(schedule._codes)
    CountingCodes.looked_at = 0
    for number in count():
        assignment = schedule.next_assignment("a")
        if not assignment:
            break
        (attempt,) = assignment
        # Some fail once, some are lost once, and come back in another place of the order.
        if attempt.number == 1 and number % 10 == 0:
            schedule.failed(attempt, "no")
        elif attempt.number == 1 and number % 10 == 5:
            schedule.lost(attempt)
        else:
            schedule.completed(attempt)
    assert schedule.counts["complete"] == 100_000
    assert CountingCodes.looked_at < 20 * 100_000


def test_a_million_tasks_take_little_room() -> None:
    import tracemalloc

    tracemalloc.start()
    schedule = PyroTaskSchedule(1000, 1999, 1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(schedule) == 1_000_000
    assert peak < 20e6


YEARS, MEMBERS, MAX_ATTEMPTS = (2000, 2003), (2, 5, 6), 2
KEYS = [(year, member) for year in YEARS for member in MEMBERS]


class ScheduleMachine(RuleBasedStateMachine):
    """The schedule against a plain model, under events in any order, stale and doubled ones among them."""

    @initialize()
    def begin(self) -> None:
        self.schedule = PyroTaskSchedule(years=YEARS, members=MEMBERS, max_attempts=MAX_ATTEMPTS)
        self.status = dict.fromkeys(KEYS, "outstanding")
        self.current: dict[tuple[int, int], Attempt] = {}
        self.made = dict.fromkeys(KEYS, 0)
        self.strikes = dict.fromkeys(KEYS, 0)
        self.workers: dict[Attempt, str] = {}
        self.orphans: list[tuple[int, int]] = []
        self.retries: list[tuple[int, int]] = []
        self.failed_at: dict[tuple[int, int], str] = {}
        self.known: list[Attempt] = []
        self.completions = dict.fromkeys(KEYS, 0)

    def outstanding(self) -> list[tuple[int, int]]:
        return [key for key in KEYS if self.status[key] == "outstanding"]

    @rule(worker=st.sampled_from("ab"), others=st.booleans())
    def hand_out(self, worker: str, others: bool) -> None:
        retries = [key for key in self.retries if not (others and self.failed_at[key] == worker)]
        candidates = self.orphans or self.outstanding() or retries
        assignment = self.schedule.next_assignment(worker, others=others)
        if not candidates:
            assert assignment == ()
            return
        expected = candidates[0]
        self.made[expected] += 1
        assert assignment == (Attempt(self.made[expected], *expected, "vort_track"),)
        assert expected not in self.current
        self.current[expected] = assignment[0]
        self.workers[assignment[0]] = worker
        self.status[expected] = "working"
        self.orphans = [key for key in self.orphans if key != expected]
        self.retries = [key for key in self.retries if key != expected]
        self.known.append(assignment[0])

    @precondition(lambda self: self.known)
    @rule(data=st.data(), event=st.sampled_from(["complete", "failure", "timeout", "lost", "orphaned"]))
    def answer(self, data: st.DataObject, event: str) -> None:
        attempt = data.draw(st.sampled_from(self.known))
        key = (attempt.year, attempt.ensemble_member)
        is_current = self.current.get(key) == attempt
        if event == "complete":
            accepted = self.schedule.completed(attempt)
        elif event == "lost":
            accepted = self.schedule.lost(attempt)
        elif event == "orphaned":
            accepted = self.schedule.orphaned(attempt)
        else:
            fail = self.schedule.failed if event == "failure" else self.schedule.timed_out
            accepted = fail(attempt, "reason")
        assert accepted == is_current
        if not accepted:
            return
        del self.current[key]
        self.status[key] = {"lost": "outstanding", "orphaned": "timeout"}.get(event, event)
        if event == "orphaned":
            self.orphans.append(key)
        self.completions[key] += event == "complete"
        if event in ("failure", "timeout"):
            self.strikes[key] += 1
            if self.strikes[key] < MAX_ATTEMPTS:
                self.retries.append(key)
                self.failed_at[key] = self.workers[attempt]

    @rule(key=st.sampled_from(KEYS), status=st.sampled_from(STATUSES))
    def set_by_hand(self, key: tuple[int, int], status: str) -> None:
        self.schedule.find(*key).status = status
        self.status[key] = status
        self.current.pop(key, None)
        self.orphans = [other for other in self.orphans if other != key]
        self.retries = [other for other in self.retries if other != key]
        self.completions[key] = int(status == "complete")

    @invariant()
    def agrees(self) -> None:
        task = self.schedule.get_next_outstanding()
        following = self.outstanding()
        assert (None if task is None else (task.year, task.ensemble_member)) == (following[0] if following else None)
        assert self.schedule.counts == {name: list(self.status.values()).count(name) for name in STATUSES}
        rows = ["".join(GLYPHS[self.status[year, member]] for member in MEMBERS) for year in YEARS]
        assert self.schedule.get_progress() == "".join(f"{row}\n" for row in rows)
        assert self.schedule.left == sum(
            status in ("outstanding", "working") or key in self.orphans or key in self.retries
            for key, status in self.status.items()
        )
        assert self.schedule.done == (self.schedule.left == 0)
        assert max(self.completions.values()) <= 1
        kept = {(task.year, task.ensemble_member): len(failures) for task, failures in self.schedule.failures()}
        assert kept == {key: strikes for key, strikes in self.strikes.items() if strikes}


ScheduleMachine.TestCase.settings = settings(derandomize=True, deadline=None, max_examples=100, stateful_step_count=40)
TestScheduleMachine = ScheduleMachine.TestCase
