"""One campaign in the place of another: at every step, and whatever ends it, the one or the other is there."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stormtracks.cluster.errors import StoreError, WorkflowNotFoundError
from stormtracks.cluster.persistence import (
    PersistentStore,
    Workflow,
    open_campaign,
    recover_replaced,
    store_cls_from_path,
    temporary_workflow_rename,
)
from stormtracks.errors import StormtracksError
from tests.cluster.persistence.stores import STORES, add, campaign, everything

Store = type[PersistentStore]

each_store = pytest.mark.parametrize("cls", STORES, ids=lambda cls: cls.format)

FORK = multiprocessing.get_context("fork")
STEPS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "os.listdir", "sqlite3.connect")
"""What Python tells of before it does it."""

DONE, FAILED, GONE_ON = 0, 3, 5
"""How a process ended that has replaced a campaign: without, because of, or in spite of a failure."""


@pytest.fixture
def tmp_path(memory: Path) -> Path:
    """In memory: hundreds of stores are made here, and nothing is asked of the disk."""
    return memory


def steps() -> Iterator[int]:
    """The first ones each, and of many more only some."""
    yield from range(1, 40)
    yield from range(40, 5000, 9)


def replace(cls: Store, path: Path) -> None:
    """Create a campaign in the place of another one, if there is one."""
    recover_replaced(path)
    replaced = temporary_workflow_rename(path)
    cls.write_empty_workflow({"name": "new"}, {}, path, replaced, {})
    with cls(Workflow(path)) as store:
        add(store, [2010], [1, 2])
        store.remove_replaced_dir()


def replace_until(cls: Store, path: Path, last: int, end: Callable[[], Any]) -> None:
    """Do so in this process, which at its step number `last` that touches these folders meets its end."""
    count = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in STEPS and arguments and str(path.parent) in str(arguments[0]):
            count += 1
            if count == last:
                end()

    sys.addaudithook(watch)
    try:
        replace(cls, path)
    except (OSError, StormtracksError):
        os._exit(FAILED)
    os._exit(DONE if count < last else GONE_ON)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def failed() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def run_until(cls: Store, path: Path, last: int, end: Callable[[], Any]) -> int | None:
    process = FORK.Process(target=replace_until, args=(cls, path, last, end))
    process.start()
    process.join(60)
    return process.exitcode


@each_store
@pytest.mark.parametrize("end", [killed, failed])
def test_whatever_step_is_the_last_one_campaign_is_there(cls: Store, tmp_path: Path, end: Callable[[], Any]) -> None:
    path = tmp_path / "root" / "campaign"
    with campaign(cls, path) as store:
        store.set_parameter(0, "old")
        store.save()
        old = everything(store)
    for step in steps():
        code = run_until(cls, path, step, end)
        if code == DONE:
            break
        assert code in ((-signal.SIGKILL,) if end is killed else (FAILED, GONE_ON)), step
        recover_replaced(path)
        assert [entry.name for entry in path.parent.iterdir()] == ["campaign"], step
        with open_campaign(path) as store:
            if everything(store) == old:
                assert code != GONE_ON
                continue
            # Only after the last commit, at which the new one is finished.
            assert store.get_template() == {"name": "new"} and store.replaced_dir is None
            assert store.get_all_tasks_metadata()[0]["rows"] == {2010: "--"}
            store.delete_no_confirm()
        with campaign(cls, path) as store:
            store.set_parameter(0, "old")
            store.save()
            old = everything(store)
    assert code == DONE and step > 10
    with open_campaign(path) as store:
        assert store.get_template() == {"name": "new"}


@each_store
def test_a_first_campaign_that_is_killed_leaves_nothing_in_the_way(cls: Store, tmp_path: Path) -> None:
    path = tmp_path / "root" / "campaign"
    path.parent.mkdir()
    for step in steps():
        if run_until(cls, path, step, killed) == DONE:
            break
        recover_replaced(path)
        if path.exists():
            with open_campaign(path) as store:
                store.delete_no_confirm()
        assert list(path.parent.iterdir()) == []
    assert step > 10


@each_store
def test_what_is_unfinished_is_taken_back(cls: Store, tmp_path: Path) -> None:
    path = tmp_path / "campaign"
    with campaign(cls, path) as store:
        old = everything(store)
    replaced = temporary_workflow_rename(path)
    assert replaced == tmp_path / "campaign.replaced"
    with pytest.raises(WorkflowNotFoundError, match="run its command again"):
        store_cls_from_path(path)
    cls.write_empty_workflow({"name": "new"}, {}, path, replaced, {})
    with pytest.raises(StoreError, match="was not finished"):
        temporary_workflow_rename(path)
    with cls(Workflow(path)) as store:
        assert store.replaced_dir == replaced
        add(store, [2010], [1])
        store.save()
        store.reinstate_replaced_dir()
    assert [entry.name for entry in tmp_path.iterdir()] == ["campaign"]
    with open_campaign(path) as store:
        assert everything(store) == old
    assert temporary_workflow_rename(tmp_path / "none") is None


@each_store
def test_finishing_commits_what_is_pending_and_is_done_once(cls: Store, tmp_path: Path) -> None:
    path = tmp_path / "campaign"
    campaign(cls, path).close()
    cls.write_empty_workflow({"name": "new"}, {}, path, temporary_workflow_rename(path), {})
    with cls(Workflow(path)) as store:
        add(store, [2010], [1])
        store.remove_replaced_dir()
        assert not store.has_pending
        add(store, [2011], [1])
        store.remove_replaced_dir()
    assert [entry.name for entry in tmp_path.iterdir()] == ["campaign"]
    with open_campaign(path) as store:
        assert list(store.get_all_tasks_metadata()[0]["rows"]) == [2010, 2011]


@each_store
def test_a_new_campaign_that_cannot_be_read_is_not_thrown_away(cls: Store, tmp_path: Path) -> None:
    path = tmp_path / "campaign"
    campaign(cls, path).close()
    cls.write_empty_workflow({"name": "new"}, {}, path, temporary_workflow_rename(path), {})
    with cls(Workflow(path)) as store:
        add(store, [2010], [1])
        store.save()
        whole = store.store_path
    damaged = [file for file in ([whole] if whole.is_file() else sorted(whole.rglob("*"))) if file.is_file()]
    for file in damaged:
        os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(StoreError):
        recover_replaced(path)
    assert {entry.name for entry in tmp_path.iterdir()} == {"campaign", "campaign.replaced"}
