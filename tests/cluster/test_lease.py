"""The lease of a worker: what renews it, and that the manager never counts it as over before the worker does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stormtracks.cluster.lease import Lease

DELAYS = st.floats(0.0, 20.0)


def test_it_lasts_as_long_as_it_says() -> None:
    lease = Lease(30.0, 100.0)
    assert [lease.left(now) for now in (100.0, 115.0, 130.0, 131.0)] == [30.0, 15.0, 0.0, -1.0]


def test_a_call_renews_it_from_the_answer_that_it_proves_to_have_come() -> None:
    lease = Lease(30.0, 0.0)
    lease.called(1, 1.0)
    lease.answered(1, 5.0)
    assert lease.left(5.0) == 25.0
    lease.called(2, 20.0)
    assert lease.left(20.0) == 15.0


def test_the_same_call_again_renews_nothing() -> None:
    lease = Lease(30.0, 0.0)
    lease.called(1, 1.0)
    lease.answered(1, 5.0)
    lease.called(1, 25.0)
    lease.answered(1, 25.0)
    assert lease.left(25.0) == 5.0
    # Which of the two answers has come is not known: the earlier one counts.
    lease.called(2, 26.0)
    assert lease.left(26.0) == 9.0


def test_once_over_it_stays_over() -> None:
    lease = Lease(30.0, 0.0)
    lease.called(1, 1.0)
    lease.answered(1, 29.0)
    lease.called(2, 31.0)
    assert lease.left(31.0) == -1.0


def test_a_manager_that_goes_on_with_what_runs_renews_it_with_its_first_call_only() -> None:
    lease = Lease(30.0, 0.0)
    lease.called(1, 1.0)
    lease.answered(1, 5.0)
    lease.reopened(60.0, 20.0)
    assert lease.left(20.0) == 10.0
    lease.called(1, 22.0)
    assert lease.left(22.0) == 28.0


@given(
    calls=st.lists(st.tuples(DELAYS, DELAYS, DELAYS, st.lists(DELAYS, max_size=2), DELAYS), max_size=12),
    reopen_at=st.integers(-1, 12),
    reopened_after=DELAYS,
    until=st.floats(0.0, 60.0),
)
def test_the_manager_never_ends_it_before_the_worker_does(
    calls: list[tuple[float, float, float, list[float], float]], reopen_at: int, reopened_after: float, until: float
) -> None:
    """Whatever calls and answers take on their way, and however often a call comes again."""
    lease = Lease(30.0, 0.0)
    now = heard_at = 0.0
    number = 0
    for index, (pause, out, thinking, again, back) in enumerate(calls):
        if index == reopen_at:
            now += reopened_after
            lease.reopened(30.0, now)
            number = 0
            assert lease.left(now) <= heard_at + 30.0 - now
            # The next call is made by whoever has had the answer to this.
            heard_at = now
        number += 1
        now += pause + out
        assert lease.left(now) <= heard_at + 30.0 - now
        lease.called(number, now)
        now += thinking
        lease.answered(number, now)
        for delay in again:
            now += delay
            lease.called(number, now)
            lease.answered(number, now)
            assert lease.left(now) <= heard_at + 30.0 - now
        now += back
        heard_at = now
    now += until
    assert lease.left(now) <= heard_at + 30.0 - now
