"""Further rounds of tasks in a campaign's store."""

from __future__ import annotations

from collections.abc import Sequence

from stormtracks.cluster.persistence import PersistentStore

__all__ = ["add_rounds"]


def add_rounds(
    store: PersistentStore,
    task: tuple[int, int],
    elements: Sequence[int],
    first: int,
    *,
    reason: str,
    loop: int | None = None,
) -> list[int]:
    """Begin another round of some elements; pending.

    Parameters
    ----------
    store : PersistentStore
    task : tuple of int
        The place of the task among all, and its insert ID.
    elements : sequence of int
        Their indices.
    first : int
        Index of the first of the new iterations: how many the task has.
    reason : str
        Why, for the source of the results.
    loop : int, optional
        Index of the loop that the rounds belong to.

    Returns
    -------
    list of int
        The parameters that take the results.
    """
    slots = [store.add_unset_parameter_data({"type": "result", "reason": reason}) for _ in elements]
    store.add_element_iterations(
        *task,
        [{"parameter": slot, "loop": loop} for slot in slots],
        {element: [first + at] for at, element in enumerate(elements)},
    )
    return slots
