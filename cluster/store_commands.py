"""What `stormtracks store` does: tells of a campaign's store, converts, copies and deletes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from stormtracks.cluster.campaign_store import find_store, store_folder
from stormtracks.cluster.errors import StoreDamagedError
from stormtracks.cluster.manager_lock import hold_campaign
from stormtracks.cluster.persistence import PersistentStore, recover_replaced, store_cls_from_path
from stormtracks.cluster.persistence.convert import convert_store
from stormtracks.cluster.persistence.folders import discard_dir, replaced_path
from stormtracks.cluster.pyro_task import GLYPHS

__all__ = ["convert_campaign", "copy_campaign", "delete_campaign", "describe_store", "read_store"]


def read_store(root: Path) -> dict[str, Any]:
    """What the store of the campaign in a results root is and holds, as plain JSON values.

    Returns
    -------
    dict
        ``path``, ``format``, ``bytes``, ``features``, ``created`` (how), ``starts`` of a manager, ``workers``, and
        ``tasks``: of each kind of task ``name``, ``years``, ``members``, ``elements``, ``retired``, ``rounds``,
        ``results`` of these, ``attempts``, ``latest`` (when one of them last began or ended; None if there is none)
        and ``counts`` by status.

    Raises
    ------
    WorkflowNotFoundError
        If there is no campaign.
    StoreError
        If its store cannot be read.
    """
    with find_store(root) as store, store.cached_load():
        submissions = store.get_submissions()
        results = {index for index, (is_set, _) in store.get_all_parameter_data().items() if is_set}
        return {
            "path": str(store.store_path),
            "format": store.store_name,
            "bytes": sum(path.stat().st_size for path in store.workflow_path.rglob("*") if path.is_file()),
            "features": asdict(store.features),
            "created": store.get_creation_info(),
            "tasks": [_task(store, task, results) for task in store.get_all_tasks_metadata()],
            "starts": len(submissions),
            "workers": sum(len(submission["jobscripts"]) for submission in submissions),
        }


def _task(store: PersistentStore, task: Mapping[str, Any], set_slots: Collection[int]) -> dict[str, Any]:
    glyphs = Counter("".join(task["rows"].values()))
    rounds = results = attempts = retired = 0
    latest: datetime | None = None
    for element in store.get_task_elements_islice(task["index"], task["insert_ID"], slice(None)):
        retired += element["retired"]
        rounds += len(element["iterations"])
        results += sum(iteration["parameter"] in set_slots for iteration in element["iterations"])
        tries = [attempt for iteration in element["iterations"] for attempt in iteration["EARs"]]
        attempts += len(tries)
        times = (at for attempt in tries for at in (attempt["start"], attempt["end"], latest) if at is not None)
        latest = max(times, default=latest)
    return {
        "name": task["name"],
        "years": list(task["rows"]),
        "members": task["members"],
        "elements": task["num_elements"],
        "retired": retired,
        "rounds": rounds,
        "results": results,
        "attempts": attempts,
        "latest": None if latest is None else latest.strftime(store.ts_fmt),
        "counts": {status: glyphs[glyph] for status, glyph in GLYPHS.items()},
    }


def describe_store(document: Mapping[str, Any]) -> list[str]:
    """What `read_store` gives, for people."""
    created = document["created"]
    lines = [
        f"{document['format']} store {document['path']}, {document['bytes'] / 1e3:.0f} kB",
        f"campaign {created.get('campaign_id', 'unknown')}, created {created.get('created', 'at an unknown time')} "
        f"with stormtracks {created.get('stormtracks', 'unknown')}",
    ]
    for task in document["tasks"]:
        counts = ", ".join(f"{count} {status}" for status, count in task["counts"].items() if count)
        retired = f", {task['retired']} retired" if task["retired"] else ""
        lines.append(f"{task['name']}: {_counted(task['elements'], 'task')}{retired}: {counts or 'none'}")
        lines.append(f"  {_counted(task['attempts'], 'attempt')} in {_counted(task['rounds'], 'round')}")
        latest = f", the latest change {_to_the_second(task['latest'])}" if task["latest"] else ""
        lines.append(f"  results: {task['results']} of {task['rounds']}{latest}")
    lines.append(f"{_counted(document['starts'], 'start')} of a manager, {_counted(document['workers'], 'worker')}")
    if not document["features"]["EAR_parallelism"]:
        lines.append("this kind of store keeps the record of one task at a time")
    return lines


def _to_the_second(time: str) -> str:
    return datetime.fromisoformat(time).isoformat(timespec="seconds")


def _counted(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


def convert_campaign(root: Path, store_format: str) -> str:
    """Keep the record of the campaign in a results root in a store of another kind; what was done, as a sentence.

    Raises
    ------
    CampaignHeldError
        If a manager is at work on the campaign.
    WorkflowNotFoundError
        If there is no campaign.
    StoreError
        If its store cannot be read, or the new one not be written. The store then is as it was.
    """
    with _held(root) as folder:
        with find_store(root) as store:
            before = store.store_name
        if before == store_format:
            return f"{folder} holds a {store_format} store already"
        convert_store(folder, store_format)
    return f"{folder} holds a {store_format} store now, with all that was in the {before} store"


def copy_campaign(root: Path, to: Path | None = None) -> str:
    """Copy the store of the campaign in a results root, also while a manager is at work; where to, as a sentence.

    Parameters
    ----------
    root : Path
    to : Path, optional
        Folder that shall be made; ``campaign.copy`` beside the store.

    Raises
    ------
    WorkflowNotFoundError
        If there is no campaign.
    StoreError
        If there is something at `to`, or the store cannot be read.
    """
    with find_store(root) as store:
        return f"the {store.store_name} store in {store.workflow_path} was copied to {store.copy(to)}"


def delete_campaign(root: Path, *, confirm: Callable[[str], str]) -> str:
    """Delete the store of the campaign in a results root, and leave the results; what was done, as a sentence.

    Parameters
    ----------
    root : Path
    confirm : callable
        Puts the question and gives the answer.

    Raises
    ------
    CampaignHeldError
        If a manager is at work on the campaign.
    WorkflowNotFoundError
        If there is no campaign.
    """
    with _held(root) as folder:
        try:
            with find_store(root) as store:
                store.delete(confirm=confirm)
        except StoreDamagedError as error:
            # To delete it is what is left to do.
            if confirm(f"{error.what}. Delete it for good? [y/N] ").strip().lower() in ("y", "yes"):
                discard_dir(folder)
        if folder.exists():
            return f"{folder} was not deleted"
    return f"{folder} was deleted; the results in {root} are untouched"


@contextmanager
def _held(root: Path) -> Iterator[Path]:
    """Hold a campaign, and put right what was killed while its store was replaced; gives the store's folder."""
    folder = store_folder(root)
    if not replaced_path(folder).exists():
        # Looked at first: a folder without a campaign is not to get a lock.
        store_cls_from_path(folder)
    with hold_campaign(root):
        recover_replaced(folder)
        yield folder
