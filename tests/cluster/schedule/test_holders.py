"""The ends of leases, which are looked up without looking at all workers, are what looking at all of them gives."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from stormtracks.cluster.schedule.holders import Holder, Holders

LEASE = 10.0
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["meet", "heard", "give", "take", "leave", "wait"]), st.integers(0, 4), st.integers(1, 8)
    ),
    max_size=60,
)


def ends_of(holders: Holders) -> dict[str, float]:
    """When the lease of each one ends that holds something: the definition."""
    return {holder.incarnation: holder.heard + LEASE for holder in holders if holder.held}


@given(steps=STEPS)
def test_the_first_end_and_all_that_are_over_are_found(steps: list[tuple[str, int, int]]) -> None:
    holders, now, task = Holders(LEASE), 0.0, 0
    for what, number, amount in steps:
        incarnation = f"w{number}"
        holder = holders.get(incarnation)
        if what == "meet":
            holders.meet("w", incarnation, now).usable = True
        elif what == "wait":
            now += amount
        elif holder is not None:
            task = change(holders, holder, what, now, task)
        ends = ends_of(holders)
        assert holders.next_end() == min(ends.values(), default=inf)
        assert {one.incarnation for one in holders.over(now)} == {name for name, end in ends.items() if end <= now}
        assert holders.next_end() == min(ends.values(), default=inf)


def change(holders: Holders, holder: Holder, what: str, now: float, task: int) -> int:
    """Let something happen to a worker; gives the task that is next."""
    if what == "heard":
        holder.heard = now
    elif what == "give":
        holders.give(holder, task)
    elif what == "take" and holder.held:
        holder.held.popitem()
    elif what == "leave":
        holder.usable = False
    holders.forget(holder)
    return task + (what == "give")


def test_without_a_lease_nothing_ever_ends() -> None:
    holders = Holders(inf)
    holders.give(holders.meet("w", "w1", 0.0), 1)
    assert holders.next_end() == inf
    assert holders.over(1e9) == ()
