"""Where a campaign's store lies, and how it comes to be there: found, created, or put in the place of another one."""

from __future__ import annotations

import getpass
import logging
import socket
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stormtracks import __version__
from stormtracks.cluster.errors import StoreDamagedError, StoreError, WorkflowNotFoundError
from stormtracks.cluster.persistence import (
    PersistentStore,
    PersistentStoreFeatures,
    Workflow,
    open_campaign,
    recover_replaced,
    store_cls_from_path,
    store_cls_from_str,
    temporary_workflow_rename,
)
from stormtracks.cluster.persistence.folders import as_store_error
from stormtracks.publish import storing
from stormtracks.settings.campaign import CampaignSettings

__all__ = ["check_capacity", "find_store", "open_store", "store_folder", "task_and_start"]

logger = logging.getLogger(__name__)


def store_folder(root: Path) -> Path:
    """The folder of a campaign's store in its results root."""
    return root / "campaign"


def find_store(root: Path) -> PersistentStore:
    """The store of the campaign in a results root, for reading or for one who holds the campaign.

    Raises
    ------
    WorkflowNotFoundError
        If there is no campaign.
    StoreError
        If its store cannot be used.
    """
    try:
        return open_campaign(store_folder(root))
    except WorkflowNotFoundError as error:
        raise WorkflowNotFoundError(f"no campaign in {root}: {error.what}", remedy=error.remedy) from error


def task_and_start(store: PersistentStore, root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The kind of task of a campaign, and the latest start of a manager.

    Raises
    ------
    WorkflowNotFoundError
        If no manager has come so far as to begin it.
    """
    tasks, starts = store.get_all_tasks_metadata(), store.get_submissions()
    if not tasks or not starts:
        raise WorkflowNotFoundError(
            f"no campaign in {root}: it was not yet begun", remedy="wait, or run its command again"
        )
    return tasks[0], starts[-1]


def open_store(campaign: CampaignSettings, *, replace: bool) -> PersistentStore:
    """The store of a campaign, made if there is none; whoever calls holds the campaign.

    An existing store is used whatever its kind. That of other settings is replaced, if it may be or nothing was begun
    under them, and put back unless the first `remove_replaced_dir` is reached.

    Parameters
    ----------
    campaign : CampaignSettings
    replace : bool
        Whether a store of other settings may be replaced.

    Raises
    ------
    StoreError
        If there is one of other settings that may not be replaced; or if the store cannot be read or made.
    """
    folder = store_folder(campaign.results.root)
    recover_replaced(folder)
    try:
        kind = store_cls_from_path(folder)
    except WorkflowNotFoundError:
        _check_free(folder)
        return _create(campaign, folder)
    store = kind(Workflow(folder))
    held = store.get_template()["settings_hash"]
    if held == campaign.settings_hash:
        if store.store_name != campaign.run.store:
            logger.info("the campaign is kept in a store of the kind %s", store.store_name)
        return store
    try:
        replace = replace or not _was_begun(store)
    finally:
        store.close()
    if not replace:
        raise StoreError(
            f"{folder} holds the record of a campaign of other settings: {held}, not {campaign.settings_hash}",
            remedy="choose another folder, or pass --replace (replace=True) to delete that campaign",
        )
    logger.warning("replacing the campaign of settings %s in %s", held, folder)
    return _create(campaign, folder)


def _was_begun(store: PersistentStore) -> bool:
    """Whether a campaign has a history: an attempt was made, or a result found."""
    if store.get_num_added_tasks() == 0:
        return False
    (task,) = store.get_all_tasks_metadata()
    elements = store.get_task_elements_islice(task["index"], task["insert_ID"], slice(None))
    return any(one["EARs"] or one["status"] == "+" for element in elements for one in element["iterations"])


def _check_free(folder: Path) -> None:
    """See that a folder without a store holds nothing that a new one would take along, such as a store set aside."""
    with as_store_error(), storing("look into", folder):
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return
    raise StoreDamagedError(
        f"{folder} holds something, but no campaign store",
        remedy="put the store back; or move the folder away and run the same command again, which finds the results "
        "that are finished and computes the rest",
    )


def check_capacity(store: PersistentStore, campaign: CampaignSettings) -> None:
    """See that a store can keep the record of as many workers as the campaign may have.

    Raises
    ------
    StoreError
        If it cannot.
    """
    if not store.features.submission:
        raise StoreError(
            f"the store in {store.store_path} is an archive: no manager can work on it",
            remedy="make a store of another kind of it with `stormtracks store convert`",
        )
    _check_parallelism(
        store.store_name,
        store.features,
        campaign,
        remedy="make a sqlite store of it with `stormtracks store convert --to sqlite`",
    )


def _check_parallelism(
    kind: str, features: PersistentStoreFeatures, campaign: CampaignSettings, *, remedy: str
) -> None:
    run, hosts = campaign.run, campaign.cluster.hosts
    if run.backend == "pyro" and (hosts or campaign.cluster.nameserver):
        # Of workers that nobody has named, the manager uses as many at a time as the store can do with.
        workers, slots = max(len(hosts), 1), max(sum(host.slots for host in hosts), 1)
    else:
        workers, slots = 1, run.workers
    if (slots > 1 and not features.EAR_parallelism) or (workers > 1 and not features.jobscript_parallelism):
        raise StoreError(
            f"a {kind} store keeps the record of one task at a time, and the campaign has {workers} "
            f"{'worker' if workers == 1 else 'workers'} with {slots} tasks at a time",
            remedy=f"set run.workers to 1 (--workers 1) and name no more than one host of one slot, or {remedy}",
        )


def _create(campaign: CampaignSettings, folder: Path) -> PersistentStore:
    """A store without tasks; that of another campaign makes way, until this one is finished."""
    kind = store_cls_from_str(campaign.run.store)
    # A store that could not be worked on would stay in the way of one that can.
    _check_parallelism(kind.format, kind._features, campaign, remedy="set run.store to sqlite")
    replaced = temporary_workflow_rename(folder)
    template: dict[str, Any] = {
        "name": campaign.name,
        "task": campaign.task,
        "settings_hash": campaign.settings_hash,
        "settings": campaign.model_dump(mode="json"),
    }
    creation = {
        "campaign_id": uuid.uuid4().hex,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "user": _user(),
        "stormtracks": __version__,
    }
    kind.write_empty_workflow(template, {}, folder, replaced, creation)
    return kind(Workflow(folder))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a process in a container may have a number only
        return ""
