"""Tasks and their schedule: the documented names and strings, and the rules of the core under any order of events."""

from __future__ import annotations

import copy
import tracemalloc
from collections import Counter
from itertools import count
from math import inf
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
    Failure,
    PyroTask,
    PyroTaskSchedule,
    Rules,
    task_name,
)
from stormtracks.cluster.schedule.bundles import gather


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


@pytest.mark.parametrize("arguments", [{"start_year": 2012, "end_year": 2000}, {"members": []}, {"years": []}])
def test_a_schedule_of_nothing_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ClusterError):
        PyroTaskSchedule(**arguments)


@pytest.mark.parametrize("name", ["max_attempts", "max_losses", "worker_strikes", "lease"])
def test_rules_that_allow_nothing_are_refused_by_name(name: str) -> None:
    with pytest.raises(ClusterError, match=f"{name} is 0.*\n  remedy: "):
        Rules(**{name: 0})


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


def begin(schedule: PyroTaskSchedule, *workers: str) -> PyroTaskSchedule:
    """Let workers join, whose incarnations have their names."""
    for worker in workers:
        schedule.join(worker, worker, now=0)
    return schedule


def take(schedule: PyroTaskSchedule, worker: str, now: float = 0.0) -> Attempt:
    (attempt,) = schedule.next_assignment(worker, now=now)
    return attempt


def members_of(attempts: tuple[Attempt, ...] | list[Attempt]) -> list[int]:
    return [attempt.ensemble_member for attempt in attempts]


# --- failures


def test_fresh_tasks_go_out_before_retries_and_the_failure_shows_until_then() -> None:
    schedule = begin(PyroTaskSchedule(2000, 2000, 3), "a", "b")
    first = take(schedule, "a")
    assert schedule.failed(first, "disk full", now=0)
    assert schedule.get_progress_for_year(2000) == "2000: F--"
    second, third = take(schedule, "a"), take(schedule, "a")
    assert members_of([second, third]) == [2, 3]
    assert schedule.timed_out(second, "too slow", now=0)
    assert schedule.get_progress_for_year(2000) == "2000: FTW"
    assert not schedule.done
    assert schedule.left == 3
    assert take(schedule, "b") == Attempt(2, 2000, 1, "vort_track")
    assert take(schedule, "b") == Attempt(2, 2000, 2, "vort_track")
    assert schedule.next_assignment("b", now=0) == ()
    assert schedule.get_progress_for_year(2000) == "2000: WWW"


def test_retries_are_capped_and_every_reason_is_kept() -> None:
    schedule = begin(PyroTaskSchedule(2000, 2000, 1, rules=Rules(max_attempts=3)), "a", "b", "c", "d")
    for number, worker in enumerate("abc", start=1):
        attempt = take(schedule, worker)
        assert attempt.number == number
        assert schedule.failed(attempt, f"reason {number}", now=0)
    assert schedule.next_assignment("d", now=0) == ()
    assert schedule.done
    ((task, failures),) = schedule.failures()
    assert task.status == "failure"
    assert [(one.worker, one.reason) for one in failures] == [("a", "reason 1"), ("b", "reason 2"), ("c", "reason 3")]


def test_what_cannot_be_done_at_all_is_given_up_at_once_and_no_worker_blamed() -> None:
    schedule = begin(PyroTaskSchedule(2000, 2000, 9, rules=Rules(max_attempts=5, worker_strikes=2)), "a", "b")
    for _ in range(4):
        assert schedule.failed(take(schedule, "a"), "no such file", now=0, permanent=True)
    assert schedule.quarantined == {}
    assert schedule.left == 5
    assert schedule.get_progress() == "FFFF-----\n"


def test_a_retry_goes_to_another_worker_while_there_is_one_and_blocks_nobody() -> None:
    schedule = begin(PyroTaskSchedule(2000, 2000, 3, rules=Rules(max_attempts=3)), "a", "b")
    for worker in "aab":
        schedule.failed(take(schedule, worker), "no", now=0)
    assert take(schedule, "a").ensemble_member == 3
    assert schedule.next_assignment("a", now=0) == ()
    assert schedule.left == 3
    assert take(schedule, "b").ensemble_member == 1
    schedule.leave("b", now=0, ended=False)
    assert take(schedule, "a").ensemble_member == 2


def test_a_task_that_failed_and_was_then_lost_still_goes_to_another_worker() -> None:
    schedule = begin(PyroTaskSchedule(2000, 2000, 1, rules=Rules(max_attempts=3)), "a", "b", "c")
    schedule.failed(take(schedule, "a"), "no", now=0)
    take(schedule, "b")
    schedule.leave("b", now=0, ended=True)
    assert schedule.next_assignment("a", now=0) == ()
    assert take(schedule, "c").number == 3


def test_a_failed_task_rests_longer_each_time_and_never_too_long() -> None:
    rules = Rules(max_attempts=30, retry_delay=8.0, seed=1)
    schedule = begin(PyroTaskSchedule(2000, 2000, 1, rules=rules), "a")
    now, rests = 0.0, []
    for _ in range(12):
        schedule.failed(take(schedule, "a", now), "no", now=now)
        rest = schedule.next_change(now)
        assert schedule.next_assignment("a", now=now + 0.99 * rest) == ()
        rests.append(rest)
        now += rest
    assert all(4.0 * 2**n <= rest <= min(12.0 * 2**n, 300.0) for n, rest in enumerate(rests[:6]))
    assert rests[-3:] == pytest.approx([300.0] * 3)
    again = begin(PyroTaskSchedule(2000, 2000, 1, rules=rules), "a")
    again.failed(take(again, "a"), "no", now=0)
    assert again.next_change(0) == rests[0]
    assert again.tick(1e9) == ()
    assert again.next_change(1e9) == inf


def test_a_stale_attempt_is_ignored_and_said_so(caplog: pytest.LogCaptureFixture) -> None:
    schedule = begin(PyroTaskSchedule(2000, 2000, 1), "a", "b")
    first = take(schedule, "a")
    schedule.lost(first)
    second = take(schedule, "b")
    foreign = Attempt(2, 2000, 1, "match")
    assert not schedule.completed(first)
    assert not schedule.failed(foreign, "no", now=0)
    assert not schedule.timed_out(Attempt(1, 1871, 99, "vort_track"), "no", now=0)
    assert caplog.text.count("not the current attempt") == 3
    assert schedule.get_progress_for_year(2000) == "2000: W"
    assert schedule.completed(second)
    assert not schedule.completed(second)


def test_a_status_set_by_hand_makes_the_attempt_stale() -> None:
    schedule = begin(PyroTaskSchedule(2000, 2000, 2), "a")
    attempt = take(schedule, "a")
    schedule.find(2000, 1).status = "complete"
    assert not schedule.failed(attempt, "too late", now=0)
    assert schedule.held("a") == ()
    assert schedule.get_progress_for_year(2000) == "2000: +-"


# --- leases and losses


def test_who_has_not_joined_or_has_left_gets_nothing() -> None:
    schedule = begin(PyroTaskSchedule(2000, 2000, 2), "a")
    assert schedule.next_assignment("b", now=0) == ()
    assert schedule.leave("b", now=0, ended=True) == ()
    schedule.leave("a", now=0, ended=True)
    assert schedule.next_assignment("a", now=0) == ()
    assert schedule.usable == frozenset()


def test_a_cancelled_attempt_counts_nothing() -> None:
    schedule = begin(PyroTaskSchedule(2000, 2000, 1, rules=Rules(max_attempts=1, max_losses=1)), "a")
    for number in range(1, 6):
        attempt = take(schedule, "a")
        assert attempt.number == number
        assert schedule.lost(attempt)
        assert schedule.get_progress_for_year(2000) == "2000: -"
    assert schedule.completed(take(schedule, "a"))
    assert schedule.done
    assert list(schedule.failures()) == []


def test_what_a_silent_worker_holds_goes_out_first_when_its_lease_is_over() -> None:
    schedule = begin(PyroTaskSchedule(2000, 2000, 4, rules=Rules(lease=10)), "a", "b")
    held = [take(schedule, "a") for _ in range(2)]
    schedule.heard("a", 5)
    assert schedule.leave("a", now=7, ended=False, reason="cut off") == ()
    assert schedule.next_change(7) == 8
    assert schedule.tick(14.9) == ()
    assert schedule.get_progress() == "WW--\n"
    assert schedule.tick(15) == tuple(held)
    assert schedule.get_progress() == "TT--\n"
    assert (schedule.left, schedule.next_change(15)) == (4, inf)
    assert [take(schedule, "b", 15).ensemble_member for _ in range(3)] == [1, 2, 3]
    assert schedule.get_progress() == "WWW-\n"
    assert not schedule.completed(held[0])
    assert list(schedule.failures()) == []


def test_what_a_worker_held_that_has_surely_ended_goes_out_at_once() -> None:
    schedule = begin(PyroTaskSchedule(2000, 2000, 3, rules=Rules(lease=10)), "a", "b")
    held = (take(schedule, "a"), take(schedule, "a"))
    assert schedule.held("a") == held
    assert schedule.leave("a", now=1, ended=True, reason="killed") == held
    assert take(schedule, "b", 1).number == 2


def test_an_attempt_that_was_lost_may_complete_its_task_until_that_goes_out_again() -> None:
    schedule = begin(PyroTaskSchedule(2000, 2000, 2, rules=Rules(lease=10)), "a", "b")
    late, too_late = take(schedule, "a"), take(schedule, "a")
    schedule.tick(10)
    assert not schedule.failed(late, "what it has to say else counts no more", now=10)
    assert schedule.completed(late)
    assert take(schedule, "b", 10) == Attempt(2, 2000, 2, "vort_track")
    assert not schedule.completed(too_late)
    assert schedule.get_progress() == "+W\n"


def test_a_worker_that_returns_goes_on_with_what_is_its_own_and_lets_go_of_the_rest() -> None:
    schedule = begin(PyroTaskSchedule(2000, 2000, 4, rules=Rules(lease=10, max_losses=1)), "a", "b")
    kept, dropped = take(schedule, "a"), take(schedule, "a")
    other = take(schedule, "b")
    stale = schedule.join("a", "a", [kept, other, Attempt(7, 2000, 4, "vort_track")], now=8)
    assert stale == (other, Attempt(7, 2000, 4, "vort_track"))
    assert schedule.get_progress() == "WTW-\n"
    assert schedule.held("a") == (kept,)
    assert not schedule.completed(dropped)
    schedule.heard("b", 8)
    assert schedule.tick(17.9) == ()
    # It lives: not a loss, of which one would have been enough.
    assert take(schedule, "b", 8) == Attempt(2, 2000, 2, "vort_track")


def test_a_worker_that_returns_after_its_lease_keeps_what_has_not_gone_out_again() -> None:
    schedule = begin(PyroTaskSchedule(2000, 2000, 2, rules=Rules(lease=10, max_losses=2)), "a", "b")
    attempts = (take(schedule, "a"), take(schedule, "a"))
    schedule.tick(10)
    take(schedule, "b", 10)
    assert schedule.join("a", "a", attempts, now=11) == attempts[:1]
    assert schedule.held("a") == attempts[1:]
    # Nor was it lost: it takes two losses from here.
    assert schedule.leave("a", now=12, ended=True) == attempts[1:]
    assert schedule.get_progress() == "WT\n"


def test_another_process_of_the_same_name_proves_nothing_about_the_one_before() -> None:
    schedule = PyroTaskSchedule(2000, 2000, 2, rules=Rules(lease=10))
    schedule.join("a", "a.1", now=0)
    held = take(schedule, "a.1")
    assert schedule.join("a", "a.2", [held], now=1) == (held,)
    assert schedule.held("a.1") == (held,)
    assert take(schedule, "a.2", 1).ensemble_member == 2
    schedule.leave("a.1", now=1, ended=False)
    schedule.heard("a.2", 9)
    assert schedule.tick(10) == (held,)


def test_workers_that_come_and_go_leave_nothing_behind() -> None:
    schedule = begin(PyroTaskSchedule(2000, 2000, 1, rules=Rules(lease=10, max_losses=99)), "a")
    for number in range(60):
        schedule.join("b", f"b.{number}", now=20 * number)
        take(schedule, f"b.{number}", 20 * number)
        schedule.leave(f"b.{number}", now=20 * number, ended=number % 2 == 0)
        schedule.tick(20 * number + 10)
    assert [holder.incarnation for holder in schedule._holders] == ["a"]


def test_a_task_that_is_lost_with_its_worker_too_often_is_given_up_and_says_with_whom() -> None:
    schedule = PyroTaskSchedule(2000, 2000, 1, rules=Rules(max_losses=3, max_attempts=1, lease=10))
    for number, worker in enumerate("abc"):
        schedule.join(worker, worker, now=0)
        attempt = take(schedule, worker)
        if number == 1:
            schedule.tick(10)
        else:
            schedule.leave(worker, now=0, ended=True, reason="killed")
        schedule.leave(worker, now=0, ended=True)
    assert schedule.get_progress() == "F\n"
    assert schedule.done
    ((_, (failure,)),) = schedule.failures()
    assert failure == Failure(
        attempt, "lost", "c", "lost with its worker 3 times: a (killed); b (no answer for 10 s); c (killed)"
    )


def test_tasks_that_may_break_their_workers_do_not_share_one() -> None:
    schedule = PyroTaskSchedule(2000, 2000, 3)
    for number in range(2):
        schedule.join("a", f"a.{number}", now=0)
        assert members_of([take(schedule, f"a.{number}"), take(schedule, f"a.{number}")]) == [1, 2]
        schedule.leave(f"a.{number}", now=0, ended=True)
    begin(schedule, "b", "c")
    assert members_of([take(schedule, "b"), take(schedule, "b"), take(schedule, "c")]) == [1, 3, 2]


# --- quarantine


def test_a_worker_that_fails_everything_is_quarantined_and_the_tasks_pay_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    schedule = begin(PyroTaskSchedule(2000, 2000, 5, rules=Rules(max_attempts=1)), "bad", "good")
    running = [take(schedule, "bad") for _ in range(4)]
    for attempt in running[:2]:
        schedule.failed(attempt, "no disk", now=0)
    assert schedule.get_progress() == "FFWW-\n"
    assert schedule.left == 3
    schedule.timed_out(running[2], "slow disk", now=0)
    assert schedule.quarantined == {"bad": "failed 3 different tasks in a row, at last 2000 member 3: slow disk"}
    assert "worker bad gets no more work" in caplog.text
    assert schedule.usable == {"good"}
    assert schedule.get_progress() == "---W-\n"
    assert schedule.next_assignment("bad", now=0) == ()
    # What it was at counts no more than the rest.
    schedule.failed(running[3], "no disk", now=0)
    forgiven = schedule.take_forgiven()
    assert [one.attempt for one in forgiven] == running
    assert all(one.forgiven for one in forgiven)
    assert schedule.take_forgiven() == ()
    assert all(schedule.completed(take(schedule, "good")) for _ in range(5))
    assert [reasons for _, reasons in schedule.failures()] == [(one,) for one in forgiven]


def test_a_worker_that_completes_a_task_now_and_then_is_no_bad_worker() -> None:
    schedule = begin(PyroTaskSchedule(2000, 2000, 40, rules=Rules(max_attempts=1)), "a", "b")
    for number in range(40):
        attempt = take(schedule, "a")
        if number % 3:
            schedule.failed(attempt, "no", now=0)
        else:
            schedule.completed(attempt)
    assert schedule.quarantined == {}


def test_one_task_that_fails_again_and_again_makes_no_bad_worker() -> None:
    schedule = begin(PyroTaskSchedule(2000, 2000, 1, rules=Rules(max_attempts=9)), "a")
    for _ in range(8):
        schedule.failed(take(schedule, "a"), "no", now=0)
    schedule.join("b", "b", now=0)
    assert schedule.quarantined == {}


def test_the_last_worker_is_not_quarantined_before_another_one_comes() -> None:
    schedule = begin(PyroTaskSchedule(2000, 2000, 6, rules=Rules(max_attempts=1)), "bad")
    for _ in range(5):
        schedule.failed(take(schedule, "bad"), "no", now=0)
    assert schedule.quarantined == {}
    assert schedule.get_progress() == "FFFFF-\n"
    schedule.join("good", "good", now=0)
    assert list(schedule.quarantined) == ["bad"]
    assert schedule.get_progress() == "------\n"
    schedule.leave("good", now=0, ended=True)
    assert schedule.next_assignment("bad", now=0) == ()


def test_a_bad_worker_that_is_started_again_may_try_again() -> None:
    schedule = begin(PyroTaskSchedule(2000, 2000, 9), "bad", "good")
    for _ in range(3):
        schedule.failed(take(schedule, "bad"), "no", now=0)
    schedule.join("bad", "bad", now=0)
    assert schedule.next_assignment("bad", now=0) == ()
    schedule.join("bad", "mended", now=0)
    assert schedule.quarantined == {}
    assert take(schedule, "mended").number == 2


def test_a_failure_elsewhere_is_not_forgiven_with_the_rest() -> None:
    schedule = begin(PyroTaskSchedule(2000, 2000, 4), "bad", "good")
    for _ in range(2):
        schedule.failed(take(schedule, "bad"), "no", now=0)
    attempts = [take(schedule, "good") for _ in range(4)]
    assert attempts[2] == Attempt(2, 2000, 1, "vort_track")
    schedule.failed(attempts[2], "no", now=0)
    assert schedule.left == 3
    schedule.failed(attempts[0], "no", now=0)
    schedule.failed(take(schedule, "bad"), "no", now=0)
    assert list(schedule.quarantined) == ["bad"]
    # What has failed on the good one as well is tried again there, as there is no other.
    assert schedule.get_progress() == "FW-W\n"
    assert schedule.left == 4
    assert members_of([take(schedule, "good"), take(schedule, "good")]) == [3, 1]


# --- bundles


def bundles_of(schedule: PyroTaskSchedule, worker: str, now: float = 0.0) -> list[tuple[int, list[int]]]:
    """Year and members of all that a worker can be given until its slots are taken."""
    found = []
    while schedule.free_slots(worker):
        assignment = schedule.next_assignment(worker, now=now)
        if not assignment:
            break
        (year,) = {attempt.year for attempt in assignment}
        found.append((year, members_of(assignment)))
    return found


def join(schedule: PyroTaskSchedule, **slots: int) -> PyroTaskSchedule:
    """Let workers join, each with so many slots."""
    for worker, number in slots.items():
        schedule.join(worker, worker, now=0, slots=number)
    return schedule


def test_the_members_of_a_year_travel_together_and_take_one_slot_until_the_last_has_ended() -> None:
    schedule = join(PyroTaskSchedule(2000, 2001, 4, largest_bundle=4), a=1)
    assert schedule.free_slots("a") == 1
    bundle = schedule.next_assignment("a", now=0)
    assert bundle == tuple(Attempt(1, 2000, member, "vort_track") for member in (1, 2, 3, 4))
    assert schedule.get_progress() == "WWWW\n----\n"
    for attempt in bundle[1:]:
        assert schedule.completed(attempt)
        assert schedule.free_slots("a") == 0
    schedule.failed(bundle[0], "no", now=0)
    assert schedule.free_slots("a") == 1
    assert schedule.get_progress() == "F+++\n----\n"
    assert bundles_of(schedule, "a") == [(2001, [1, 2, 3, 4])]
    assert schedule.free_slots("b") == 0


def test_a_bundle_holds_what_is_outstanding_of_a_year_and_no_more_than_it_may() -> None:
    schedule = join(PyroTaskSchedule(2000, 2001, 8, largest_bundle=3), a=1)
    for year, member in ((2000, 2), (2000, 3), (2000, 7), (2001, 1)):
        schedule.find(year, member).status = "complete"
    assert members_of(schedule.next_assignment("a", now=0, most=2)) == [1, 4]
    assert schedule.next_assignment("a", now=0, most=0) == ()
    given = [members_of(schedule.next_assignment("a", now=0)) for _ in range(5)]
    assert given == [[5, 6, 8], [2, 3, 4], [5, 6, 7], [8], []]


@pytest.mark.parametrize(
    ("years", "slots", "bundles"),
    [
        (5, [1, 1], [8, 8]),  # more years than slots: whole years
        (2, [1, 1], [8, 8]),
        (1, [1, 1], [4, 4]),
        (1, [2], [4, 4]),
        (1, [1, 2], [3, 3, 2]),
        (2, [2, 2], [4, 4, 4, 4]),
        (2, [3], [8, 4, 4]),  # two years for three slots: only the second one is divided
        (1, [12], [1] * 8),
    ],
)
def test_years_are_divided_only_while_slots_would_have_nothing_to_do(
    years: int, slots: list[int], bundles: list[int]
) -> None:
    schedule = PyroTaskSchedule(2001, 2000 + years, 8, largest_bundle=8)
    names = [f"w{number}" for number in range(len(slots))]
    join(schedule, **dict(zip(names, slots, strict=True)))
    given = [bundle for name in names for bundle in bundles_of(schedule, name)]
    assert [len(members) for _, members in given] == bundles
    for year in schedule.years:
        handed_out = [member for of, members in given for member in members if of == year]
        assert handed_out == list(range(1, len(handed_out) + 1))


def test_what_is_left_of_a_year_is_divided_among_the_free_slots() -> None:
    schedule = join(PyroTaskSchedule(2000, 2000, 8, largest_bundle=8), a=1, b=1, c=1)
    for member in (1, 2, 3, 4):
        schedule.find(2000, member).status = "complete"
    assert [bundles_of(schedule, name) for name in "abc"] == [[(2000, [5, 6])], [(2000, [7])], [(2000, [8])]]


def test_what_was_lost_with_a_worker_goes_out_together_and_alone_when_it_was_twice() -> None:
    schedule = join(PyroTaskSchedule(2000, 2001, 4, largest_bundle=4, rules=Rules(lease=10)), a=1, b=1)
    bundle = schedule.next_assignment("a", now=0)
    schedule.completed(bundle[1])
    schedule.leave("a", now=0, ended=True)
    assert schedule.get_progress() == "T+TT\n----\n"
    assert bundles_of(schedule, "b") == [(2000, [1, 3, 4])]
    assert schedule.tick(10) == tuple(Attempt(2, 2000, member, "vort_track") for member in (1, 3, 4))
    schedule.leave("b", now=10, ended=True)
    join(schedule, c=2)
    # The second slot gets no other suspect, but what is sound.
    assert bundles_of(schedule, "c") == [(2000, [1]), (2001, [1, 2, 3, 4])]
    join(schedule, d=2)
    assert bundles_of(schedule, "d") == [(2000, [3])]
    assert schedule.free_slots("d") == 1


def test_what_has_failed_is_tried_again_alone_even_if_it_is_lost_then() -> None:
    schedule = join(PyroTaskSchedule(2000, 2000, 3, largest_bundle=3, rules=Rules(max_attempts=9)), a=1)
    for attempt in schedule.next_assignment("a", now=0):
        schedule.failed(attempt, "no", now=0)
    join(schedule, b=2)
    assert bundles_of(schedule, "b") == [(2000, [1]), (2000, [2])]
    schedule.leave("b", now=0, ended=True)
    join(schedule, c=3)
    assert bundles_of(schedule, "c") == [(2000, [1]), (2000, [2]), (2000, [3])]


def test_what_comes_back_again_and_again_goes_with_half_as_many_each_time() -> None:
    schedule = join(PyroTaskSchedule(2000, 2000, 8, largest_bundle=8), a=1)
    sizes = []
    for _ in range(6):
        bundle = schedule.next_assignment("a", now=0)
        sizes.append(len(bundle))
        for attempt in bundle:
            schedule.lost(attempt)
        for task in list(schedule)[len(bundle) :]:  # those that were not in it
            task.status = "complete"
    assert sizes == [8, 8, 4, 2, 1, 1]
    assert list(schedule.failures()) == []


def test_no_task_travels_with_more_than_it_may() -> None:
    company = {0: 9, 1: 1, 2: 3, 3: 2, 4: 9}
    assert gather(0, range(5), 9, company.__getitem__) == [0, 2, 4]
    assert gather(3, range(5), 9, company.__getitem__) == [0, 3]
    assert gather(0, iter([4, 2]), 9, company.__getitem__) == [0, 2, 4]
    assert gather(1, range(5), 9, company.__getitem__) == [1]
    assert gather(4, range(5), 1, company.__getitem__) == [4]


def test_the_failures_of_one_bundle_are_one_strike() -> None:
    """What the tasks share may be at fault, such as a file that kills whoever reads it."""
    schedule = join(PyroTaskSchedule(2000, 2009, 4, largest_bundle=4, rules=Rules(worker_strikes=2)), bad=1, good=1)
    for attempt in schedule.next_assignment("bad", now=0):
        schedule.failed(attempt, "killed", now=0)
    assert schedule.quarantined == {}
    for attempt in schedule.next_assignment("bad", now=0)[:1]:
        schedule.failed(attempt, "killed", now=0)
    assert list(schedule.quarantined) == ["bad"]
    assert "failed 5 different tasks in a row" in schedule.quarantined["bad"]
    # They come back, and travel together.
    assert schedule.get_progress([2000, 2001]) == "----\n-WWW\n"
    assert bundles_of(schedule, "good") == [(2000, [1, 2, 3, 4])]


def test_what_a_worker_goes_on_with_of_a_year_takes_one_slot() -> None:
    schedule = PyroTaskSchedule(2000, 2002, 4, largest_bundle=4)
    running = [Attempt(1, year, member, "vort_track") for year in (2000, 2001) for member in (2, 3)]
    for attempt in running:
        schedule.restore(attempt.year, attempt.ensemble_member, attempts=1, held=(1, "a", "a"))
    assert schedule.join("a", "a", running[:3], now=0, slots=2) == ()
    assert schedule.free_slots("a") == 0
    schedule.completed(running[2])
    assert bundles_of(schedule, "a") == [(2001, [3])]
    join(schedule, b=1)
    assert bundles_of(schedule, "b") == [(2000, [1, 4])]


def test_bundles_of_nothing_are_refused() -> None:
    with pytest.raises(ClusterError, match="bundles of 0 tasks"):
        PyroTaskSchedule(largest_bundle=0)


# --- size


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
    schedule = begin(PyroTaskSchedule(1000, 1999, 100), "a")
    schedule._codes = CountingCodes(schedule._codes)
    CountingCodes.looked_at = 0
    for number in count():
        assignment = schedule.next_assignment("a", now=0)
        if not assignment:
            break
        (attempt,) = assignment
        # Some fail once, some are lost once, and come back in another place of the order.
        if attempt.number == 1 and number % 10 == 0:
            schedule.failed(attempt, "no", now=0)
        elif attempt.number == 1 and number % 10 == 5:
            schedule.lost(attempt)
        else:
            schedule.completed(attempt)
    assert schedule.counts["complete"] == 100_000
    assert CountingCodes.looked_at < 20 * 100_000


def test_a_million_tasks_take_little_room() -> None:
    tracemalloc.start()
    schedule = PyroTaskSchedule(1000, 1999, 1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(schedule) == 1_000_000
    assert peak < 20e6


YEARS, MEMBERS = (2000, 2003), (2, 5, 6)
KEYS = [(year, member) for year in YEARS for member in MEMBERS]
RULES = Rules(max_attempts=2, max_losses=3, worker_strikes=2, retry_delay=1.0, lease=10.0)
PROCESSES = {"a.1": "a", "a.2": "a", "b.1": "b", "c.1": "c"}


class ScheduleMachine(RuleBasedStateMachine):
    """The schedule under events in any order, stale and doubled ones among them, and a record such as a store keeps."""

    @initialize(largest=st.sampled_from([1, 2, 3]))
    def begin(self, largest: int) -> None:
        self.largest = largest
        self.schedule = PyroTaskSchedule(years=YEARS, members=MEMBERS, rules=RULES, largest_bundle=largest)
        self.now = 0.0
        self.known: list[Attempt] = []
        self.latest = dict.fromkeys(KEYS, 0)
        self.holder: dict[Attempt, str] = {}
        self.late: set[Attempt] = set()
        self.losses: Counter[tuple[int, int]] = Counter()
        self.joined: set[str] = set()
        self.complete: set[tuple[int, int]] = set()

    def key(self, attempt: Attempt) -> tuple[int, int]:
        return attempt.year, attempt.ensemble_member

    def lose(self, attempts: tuple[Attempt, ...]) -> None:
        for attempt in attempts:
            del self.holder[attempt]
            self.late.add(attempt)
            self.losses[self.key(attempt)] += 1

    @rule(incarnation=st.sampled_from(sorted(PROCESSES)), data=st.data())
    def join(self, incarnation: str, data: st.DataObject) -> None:
        running = data.draw(st.lists(st.sampled_from(self.known), unique=True)) if self.known else []
        held = {attempt for attempt, by in self.holder.items() if by == incarnation}
        stale = self.schedule.join(PROCESSES[incarnation], incarnation, running, now=self.now, slots=2)
        self.joined.add(incarnation)
        kept = set(self.schedule.held(incarnation))
        assert set(running) == kept | set(stale)
        for attempt in held - kept:
            del self.holder[attempt]
        for attempt in kept - held:
            assert attempt in self.late
            self.late.remove(attempt)
            self.holder[attempt] = incarnation
            self.losses[self.key(attempt)] -= 1

    @rule(incarnation=st.sampled_from(sorted(PROCESSES)), ended=st.booleans())
    def leave(self, incarnation: str, ended: bool) -> None:
        held = {attempt for attempt, by in self.holder.items() if by == incarnation}
        lost = self.schedule.leave(incarnation, now=self.now, ended=ended, reason="gone")
        self.joined.discard(incarnation)
        assert set(lost) == (held if ended else set())
        self.lose(lost)

    @rule(incarnation=st.sampled_from(sorted(PROCESSES)))
    def heard(self, incarnation: str) -> None:
        self.schedule.heard(incarnation, self.now)

    @rule(seconds=st.sampled_from([0.5, 2.0, 6.0]))
    def tick(self, seconds: float) -> None:
        before = self.schedule.next_change(self.now)
        self.now += seconds
        lost = self.schedule.tick(self.now)
        assert not lost or before <= seconds
        assert self.schedule.next_change(self.now) > 0
        self.lose(lost)

    @rule(incarnation=st.sampled_from(sorted(PROCESSES)))
    def hand_out(self, incarnation: str) -> None:
        usable, free = self.schedule.usable, self.schedule.free_slots(incarnation)
        bundle = self.schedule.next_assignment(incarnation, now=self.now)
        assert self.schedule.free_slots(incarnation) == max(0, free - bool(bundle))
        assert len(bundle) <= self.largest
        assert len({attempt.year for attempt in bundle}) <= 1
        assert members_of(bundle) == sorted({attempt.ensemble_member for attempt in bundle})
        if len(bundle) > 1:
            failed = {(task.year, task.ensemble_member): kept for task, kept in self.schedule.failures()}
            assert all(one.forgiven for attempt in bundle for one in failed.get(self.key(attempt), ()))
            assert not any(self.losses[self.key(attempt)] > 1 for attempt in bundle)
        for attempt in bundle:
            assert PROCESSES[incarnation] in usable
            key = self.key(attempt)
            assert attempt.number == self.latest[key] + 1
            assert key not in map(self.key, self.holder)
            self.latest[key] = attempt.number
            self.late = {one for one in self.late if self.key(one) != key}
            self.holder[attempt] = incarnation
            self.known.append(attempt)

    @precondition(lambda self: self.known)
    @rule(data=st.data(), event=st.sampled_from(["complete", "failure", "timeout", "permanent", "lost"]))
    def answer(self, data: st.DataObject, event: str) -> None:
        attempt = data.draw(st.sampled_from(self.known))
        if event == "complete":
            accepted = self.schedule.completed(attempt)
            assert accepted == (attempt in self.holder or attempt in self.late)
            self.late.discard(attempt)
        elif event == "lost":
            accepted = self.schedule.lost(attempt)
        elif event == "timeout":
            accepted = self.schedule.timed_out(attempt, "reason", now=self.now)
        else:
            accepted = self.schedule.failed(attempt, "reason", now=self.now, permanent=event == "permanent")
        if event != "complete":
            assert accepted == (attempt in self.holder)
        if accepted:
            self.holder.pop(attempt, None)
            if event == "complete":
                self.complete.add(self.key(attempt))

    @invariant()
    def adds_up(self) -> None:
        signs = Counter(self.schedule.get_progress().replace("\n", ""))
        assert self.schedule.counts == {status: signs[sign] for status, sign in GLYPHS.items()}
        assert sum(self.schedule.counts.values()) == len(self.schedule) == len(KEYS)
        assert self.schedule.done == (self.schedule.left == 0)
        held = {attempt: one for one in PROCESSES for attempt in self.schedule.held(one)}
        assert held == self.holder
        assert signs["W"] == len(held)
        for key in KEYS:
            assert (self.schedule.find(*key).status == "complete") == (key in self.complete)
        assert self.schedule.usable.isdisjoint(self.schedule.quarantined)
        for incarnation in PROCESSES:
            at = sum(by == incarnation for by in self.holder.values())
            bundles = range(bool(at), at + 1)
            free = {max(0, 2 - number) for number in bundles} if incarnation in self.joined else {0}
            assert self.schedule.free_slots(incarnation) in free

    @invariant()
    def all_that_is_left_can_be_done(self) -> None:
        schedule = copy.deepcopy(self.schedule)
        done = schedule.counts["complete"] + schedule.left
        for attempt in self.holder:
            assert schedule.completed(attempt)
        schedule.join("d", "d.1", now=self.now)
        done += schedule.left - self.schedule.left + len(self.holder)  # what joining has let be forgiven
        while assignment := schedule.next_assignment("d.1", now=self.now + 1e3):
            assert all(map(schedule.completed, assignment))
        assert schedule.done
        assert schedule.counts["complete"] == done
        for task, failures in schedule.failures():
            if task.status != "complete":
                counted = [one for one in failures if not one.forgiven]
                assert len(counted) >= RULES.max_attempts or any(
                    one.permanent or one.status == "lost" for one in counted
                )

    @invariant()
    def is_restored_as_it_was(self) -> None:
        restored = PyroTaskSchedule(years=YEARS, members=MEMBERS, rules=RULES, largest_bundle=self.largest)
        failures = {(task.year, task.ensemble_member): kept for task, kept in self.schedule.failures()}
        held = {self.key(attempt): (attempt.number, PROCESSES[by], by) for attempt, by in self.holder.items()}
        for key, made in self.latest.items():
            restored.restore(
                *key,
                attempts=made,
                complete=key in self.complete,
                failures=[one for one in failures.get(key, ()) if one.status != "lost"],
                held=held.get(key),
                now=self.now,
            )
        # Losses of before do not count: what was given up for them is outstanding.
        broke = {key for key, kept in failures.items() if kept[-1].status == "lost" and key not in self.complete}
        assert restored.left == self.schedule.left + len(broke)
        for key in KEYS:
            here, there = self.schedule.find(*key).status, restored.find(*key).status
            lost = any(self.key(attempt) == key for attempt in self.known) and here == "timeout"
            assert there == here or ((lost or key in broke) and there == "outstanding")
        given_up = {
            key: number
            for key, kept in failures.items()
            if key not in self.complete and (number := sum(one.status != "lost" for one in kept))
        }
        assert {
            (task.year, task.ensemble_member): len(kept)
            for task, kept in restored.failures()
            if (task.year, task.ensemble_member) not in self.complete
        } == given_up
        for incarnation in PROCESSES:
            assert set(restored.held(incarnation)) == set(self.schedule.held(incarnation))


ScheduleMachine.TestCase.settings = settings(derandomize=True, deadline=None, max_examples=100, stateful_step_count=40)
TestScheduleMachine = ScheduleMachine.TestCase
