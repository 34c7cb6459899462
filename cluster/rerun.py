"""Has tasks of a campaign done once more, although they are complete or given up; all that was before is kept."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from stormtracks.cluster.campaign_store import find_store, task_and_start
from stormtracks.cluster.errors import NotScheduledError, StoreError
from stormtracks.cluster.ledger import RERUN
from stormtracks.cluster.manager_lock import hold_campaign
from stormtracks.cluster.persistence import PersistentStore
from stormtracks.cluster.rounds import add_rounds

__all__ = ["rerun"]


def rerun(
    root: Path,
    *,
    failed: bool = False,
    years: Collection[int] = (),
    members: Collection[int] = (),
    everything: bool = False,
) -> str:
    """Mark tasks of a campaign, so that its next start does them once more.

    Tasks that are to be done anyway, or were under way when the manager ended, stay as they are.

    Parameters
    ----------
    root : Path
        Results root.
    failed : bool
        Only those that failed or timed out last.
    years, members : collection of int
        Only those of these years, and of these members; all if none are given.
    everything : bool
        All of them.

    Returns
    -------
    str
        What was marked, and how to go on.

    Raises
    ------
    CampaignHeldError
        If a manager is at work on the campaign.
    WorkflowNotFoundError
        If there is none, or it was not yet begun.
    NotScheduledError
        If it has no such year or member.
    StoreError
        If nothing is asked for, or the store cannot be used.
    """
    if not (failed or years or members or everything):
        raise StoreError("rerun: no task is asked for", remedy="give failed, years, members or everything")
    # Looked at first: a folder without a campaign is not to get a lock.
    find_store(root).close()
    with hold_campaign(root), find_store(root) as store:
        task, start = task_and_start(store, root)
        _check_known(root, task, years, members)
        chosen = [
            element["index"]
            for element in store.get_task_elements_of_status(
                task["index"], task["insert_ID"], "FT" if failed else "+FT"
            )
            if (not years or element["year"] in years) and (not members or element["member"] in members)
        ]
        if chosen:
            _mark(store, (task["index"], task["insert_ID"]), chosen)
            store.save()
    if not chosen:
        return f"nothing to mark: no such task {'has failed' if failed else 'is complete or has failed'}"
    command = start["command"] or shlex.join(["stormtracks", "run", "..."])
    tasks = "1 task" if len(chosen) == 1 else f"{len(chosen)} tasks"
    return f"{tasks} will be done once more\nto go on: {command}"


def _check_known(root: Path, task: Mapping[str, Any], years: Collection[int], members: Collection[int]) -> None:
    """Refuse years and members that the campaign does not have."""
    for what, given, known in (("year", years, task["rows"]), ("member", members, task["members"])):
        if absent := sorted(set(given) - set(known)):
            raise NotScheduledError(
                f"the campaign in {root} has no {what} {', '.join(map(str, absent))}",
                remedy=f"use some of its {len(known)} {what}s, {min(known)} to {max(known)}",
            )


def _mark(store: PersistentStore, task: tuple[int, int], elements: Sequence[int]) -> None:
    """Add a round of the loop of reruns to each of these elements."""
    loop = next(loop for loop in store.get_loops() if loop["name"] == RERUN)
    done = loop["num_added_iterations"]
    first = sum(len(element["iterations"]) for element in store.get_task_elements_islice(*task, slice(None)))
    add_rounds(store, task, elements, first, reason="asked for", loop=loop["index"])
    store.update_loop_num_added_iters(loop["index"], done + len(elements))
