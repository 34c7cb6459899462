"""What becomes of the attempts of a bundle, without any process: who is to blame fails, and each comes back once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormtracks.cluster.backends.bundle import Bundle
from stormtracks.cluster.backends.timesheet import Times
from stormtracks.cluster.pyro_task import Attempt, Outcome

LIMIT = 10.0
SIZE = 5
ATTEMPTS = tuple(Attempt(1, 2000, member, "vort_track") for member in range(SIZE))


@dataclass
class Work:
    """A bundle, the timesheet of a child that makes it, and a clock."""

    now: float = 100.0
    size: int = SIZE
    times: Times = field(init=False)
    bundle: Bundle = field(init=False)

    def __post_init__(self) -> None:
        self.times = Times(None, self.now, 0.0, (0.0,) * self.size)
        self.bundle = Bundle(ATTEMPTS[: self.size], LIMIT, lambda: self.times, lambda: self.now)

    def go_on(self, seconds: float, then_at: int | None = None) -> None:
        """The child works, and then turns to an attempt, or to all."""
        self.now += seconds
        self.times = self.times.turned(then_at, self.now)

    def crash(self) -> dict[int, str]:
        return fates(self.bundle.end_all(self.bundle.under_way(), status="failure", error="SIGSEGV", exit_code=-11))


def fates(outcomes: Collection[Outcome]) -> dict[int, str]:
    found = {outcome.attempt.ensemble_member: outcome.status for outcome in outcomes}
    assert len(found) == len(outcomes)
    return found


def test_a_crash_at_one_is_its_failure_and_the_others_are_lost() -> None:
    work = Work()
    assert work.bundle.end(1, status="complete", result={"tracks": 3}).result == {"tracks": 3}
    work.go_on(1.0, 3)
    outcomes = work.bundle.end_all(work.bundle.under_way(), status="failure", error="SIGSEGV", exit_code=-11)
    assert fates(outcomes) == {0: "lost", 2: "lost", 3: "failure", 4: "lost"}
    assert {(one.error, one.exit_code) for one in outcomes} == {
        ("SIGSEGV", -11),
        ("its bundle ended with another task: year 2000, member 3", None),
    }
    assert not work.bundle.left


def test_a_crash_while_at_all_is_a_failure_of_each_that_is_not_done() -> None:
    work = Work()
    work.bundle.end(1, status="complete")
    assert work.crash() == dict.fromkeys((0, 2, 3, 4), "failure")


def test_a_crash_at_one_that_is_done_is_nobodys_alone() -> None:
    work = Work()
    work.go_on(1.0, 1)
    work.bundle.end(1, status="complete")
    assert work.crash() == dict.fromkeys((0, 2, 3, 4), "failure")


def test_who_exceeds_the_time_limit_is_the_timeout() -> None:
    work = Work()
    work.go_on(2.5, 1)
    work.go_on(LIMIT - 0.5 - 0.1, 1)
    assert work.bundle.overdue() == set()
    work.go_on(0.11, 2)
    # 9.5 s alone, and a fifth of 2.5 s with the others.
    assert work.bundle.overdue() == {1}
    assert fates(work.bundle.end_all({1}, status="timeout", error="late")) == {
        0: "lost",
        1: "timeout",
        2: "lost",
        3: "lost",
        4: "lost",
    }


def test_many_may_take_longer_together_than_one_may() -> None:
    work = Work()
    for index in range(SIZE):
        work.go_on(LIMIT / 2, index)
        work.go_on(LIMIT / 4, None)
        assert work.bundle.overdue() == set()
        work.bundle.end(index, status="complete")


def test_work_for_all_that_hangs_is_a_timeout_of_all_that_are_left() -> None:
    work = Work()
    work.go_on(1.0, None)
    work.bundle.end(0, status="complete")
    work.go_on(LIMIT - 0.1, None)
    work.now += LIMIT - 0.1
    assert work.bundle.overdue() == set()
    work.now += 0.1
    assert work.bundle.overdue() == {1, 2, 3, 4}


def test_an_attempt_alone_has_all_the_seconds_for_itself() -> None:
    work = Work(size=1)
    work.go_on(LIMIT / 2, 0)
    work.go_on(LIMIT / 4, None)
    work.now += LIMIT / 8
    assert work.bundle.seconds() == [(ATTEMPTS[0], LIMIT * 7 / 8)]
    work.now += LIMIT / 8
    assert work.bundle.overdue() == {0}


def test_what_is_cancelled_is_not_wanted_and_comes_back_as_lost() -> None:
    work = Work()
    work.bundle.cancel({ATTEMPTS[1], ATTEMPTS[2], ATTEMPTS[4]})
    assert [work.bundle.wanted(index) for index in range(SIZE)] == [ATTEMPTS[0], None, None, ATTEMPTS[3], None]
    refused = work.bundle.end(1, status="lost", error="nothing was published")
    assert (refused.status, refused.error) == ("lost", "cancelled")
    # Was done before it was heard that it is not wanted.
    assert work.bundle.end(2, status="complete").status == "complete"
    assert not work.bundle.is_cancelled
    work.bundle.end(0, status="complete")
    work.bundle.end(3, status="failure", error="no")
    assert work.bundle.is_cancelled
    (last,) = work.bundle.end_all(())
    assert (last.attempt, last.status, last.error) == (ATTEMPTS[4], "lost", "cancelled")


def test_a_cancelled_culprit_is_not_blamed() -> None:
    work = Work()
    work.go_on(1.0, 3)
    work.bundle.cancel({ATTEMPTS[3]})
    assert set(work.crash().values()) == {"lost"}


events = st.lists(
    st.tuples(
        st.floats(0.0, LIMIT / 3),
        st.none() | st.integers(0, SIZE - 1),
        st.sampled_from(("go on", "end", "cancel")),
        st.integers(0, SIZE - 1),
    )
)


@given(events=events, size=st.integers(1, SIZE), crash=st.booleans())
def test_each_comes_back_once_and_nobody_has_had_more_time_than_there_was(
    events: list[tuple[float, int | None, str, int]], size: int, crash: bool
) -> None:
    work = Work(size=size)
    outcomes: list[Outcome] = []
    began = work.now
    for seconds, at, act, index in events:
        if not work.bundle.left:
            break
        work.go_on(seconds, None if at is None or at >= size else at)
        if work.bundle.overdue():
            break
        assert work.bundle.next_look() > 0
        if act == "end" and index in work.bundle.left:
            outcomes.append(work.bundle.end(index, status="complete"))
        elif act == "cancel":
            work.bundle.cancel({ATTEMPTS[index]})
    guilty = work.bundle.under_way() if crash else work.bundle.overdue()
    outcomes += work.bundle.end_all(guilty, status="failure")
    assert sorted(outcome.attempt.ensemble_member for outcome in outcomes) == list(range(size))
    assert sum(outcome.seconds for outcome in outcomes) <= (work.now - began) * (1 + 1e-9) + 1e-9
    assert {outcome.status for outcome in outcomes} <= {"complete", "failure", "lost"}


@given(events=events, size=st.integers(1, SIZE))
def test_the_next_look_comes_before_anything_is_long_overdue(
    events: list[tuple[float, int | None, str, int]], size: int
) -> None:
    """Whatever the child does until then, and without being told of it."""
    work = Work(size=size)
    for seconds, at, _, _ in events:
        look_at = work.now + work.bundle.next_look()
        before = dict(work.bundle.seconds())
        work.go_on(min(seconds, look_at - work.now), None if at is None or at >= size else at)
        late = {attempt: seconds for attempt, seconds in work.bundle.seconds() if seconds > LIMIT + 0.1 + 1e-6}
        assert not late or any(before[attempt] >= LIMIT for attempt in late)
        if work.bundle.overdue():
            break


@pytest.mark.parametrize("at", [None, 2])
def test_the_next_look_is_when_the_limit_is_over(at: int | None) -> None:
    work = Work()
    work.go_on(0.0, at)
    assert work.bundle.next_look() == pytest.approx(LIMIT)
    work.now += work.bundle.next_look()
    assert work.bundle.overdue() == (set(range(SIZE)) if at is None else {at})
