"""What only the SQLite store does: journals for every disk, permissions, readers who may not write, large campaigns."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, nullcontext
from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from stormtracks.cluster.errors import StoreChangedError, StoreDamagedError, StoreError
from stormtracks.cluster.persistence import Workflow, connection, open_campaign, seal, sqlite
from stormtracks.cluster.persistence.json import JSONPersistentStore
from stormtracks.cluster.persistence.seal import SealFile, digest_of
from stormtracks.cluster.persistence.sqlite import SQLitePersistentStore
from tests.cluster.persistence.stores import add, campaign, ends, everything, stop_here, stopped
from tests.cluster.persistence.test_contract import random_step

FORK = multiprocessing.get_context("fork")


def files_of(path: Path) -> set[str]:
    return {file.name for file in path.iterdir()}


def test_it_can_carry_everything(tmp_path: Path) -> None:
    features = campaign(SQLitePersistentStore, tmp_path / "campaign").features
    assert features.jobscript_parallelism and features.EAR_parallelism and features.schedulers and features.submission


def test_on_a_local_disk_it_keeps_a_log_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "campaign"
    store = campaign(SQLitePersistentStore, path)
    assert {"store.sqlite", "store.seal", "store.sqlite-wal"} <= files_of(path)
    store.close()
    store.close()
    assert files_of(path) == {"store.sqlite", "store.seal"}


def test_on_a_shared_disk_each_commit_is_in_the_data_base_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, shared = tmp_path / "local", tmp_path / "shared"
    campaign(SQLitePersistentStore, local).close()
    shutil.copytree(local, shared)
    monkeypatch.setattr(sqlite, "is_on_network", lambda path: True)
    for path in (shared, tmp_path / "made there"):
        store = open_campaign(path) if path.exists() else campaign(SQLitePersistentStore, path)
        add(store, [2005], [1])
        store.save()
        after = everything(store)
        assert files_of(path) == {"store.sqlite", "store.seal"}
        with sqlite3.connect(path / "store.sqlite") as db:
            assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
            assert db.execute("SELECT count(*) FROM elements").fetchone() == (7,)
        with open_campaign(path) as reader:
            assert everything(reader) == after
        store.close()
        with open_campaign(path) as reader:
            assert everything(reader) == after
        whole = (path / "store.sqlite").read_bytes()
        (path / "store.sqlite").write_bytes(whole[:-1] + b"\xff")
        with pytest.raises(StoreDamagedError, match="not what was written"):
            open_campaign(path)


@pytest.mark.parametrize("state", ["sealed", "at work"])
def test_on_a_shared_disk_a_commit_that_is_killed_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setattr(sqlite, "is_on_network", lambda path: True)
    store = campaign(SQLitePersistentStore, tmp_path / "campaign")
    before = everything(store)
    if state == "sealed":
        store.close()
    with closing(sqlite3.connect(tmp_path / "campaign" / "store.sqlite", isolation_level=None)) as writer:
        writer.execute("PRAGMA cache_size = 1")  # so that pages are written before the commit
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE parameters SET data = hex(zeroblob(10000))")
        writer.execute("UPDATE revision SET number = number + 1")
        # What lies there now is what a kill would leave.
        shutil.copytree(tmp_path / "campaign", tmp_path / "killed")
    store.close()
    assert "store.sqlite-journal" in files_of(tmp_path / "killed")
    with open_campaign(tmp_path / "killed") as again:
        assert everything(again) == before
        add(again, [2005], [1])
        again.save()
    assert files_of(tmp_path / "killed") == {"store.sqlite", "store.seal"}


@pytest.mark.parametrize("mask", [0o002, 0o022, 0o077])
def test_files_are_made_as_the_umask_says(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        store = campaign(SQLitePersistentStore, tmp_path / "campaign")
        modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "campaign").iterdir()}
        store.close()
    finally:
        os.umask(before)
    assert len(modes) >= 3 and set(modes.values()) == {0o666 & ~mask}
    assert (tmp_path / "campaign").stat().st_mode & 0o777 == 0o777 & ~mask


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that other users can read."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def read_as_nobody(path: Path, told: Connection) -> None:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    with open_campaign(path) as store:
        told.send(everything(store))
        try:
            store.set_parameter(0, 1)
            store.save()
        except StoreError as error:
            told.send(str(error))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("state", ["at work", "killed", "closed"])
def test_another_user_can_read_and_is_refused_to_write(open_to_all: Path, state: str) -> None:
    path = open_to_all / "campaign"
    store = campaign(SQLitePersistentStore, path)
    before = everything(store)
    if state == "closed":
        store.close()
    if state == "killed":
        kept = open_to_all / "kept"
        shutil.copytree(path, kept)
        path = kept
    ours, theirs = FORK.Pipe(duplex=False)
    reader = FORK.Process(target=read_as_nobody, args=(path, theirs))
    reader.start()
    theirs.close()
    try:
        assert ours.poll(30) and ours.recv() == before
        assert ours.poll(30) and "remedy:" in ours.recv()
    finally:
        reader.join(30)
    store.close()
    with open_campaign(path) as again:
        assert everything(again) == before


def test_another_version_is_refused_by_number(tmp_path: Path) -> None:
    path = tmp_path / "campaign"
    campaign(SQLitePersistentStore, path).close()
    (path / "store.seal").unlink()
    with sqlite3.connect(path / "store.sqlite") as db:
        db.execute("PRAGMA user_version = 2")
    with pytest.raises(StoreError, match="version 2; this program knows version 1") as error:
        open_campaign(path)
    assert not isinstance(error.value, StoreDamagedError)


@pytest.mark.parametrize("content", [b"", b"something else", b"SQLite format 3\0" + 4080 * b"x"])
def test_what_is_no_data_base_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "store.sqlite").write_bytes(content)
    with pytest.raises(StoreDamagedError, match=r"store\.sqlite"):
        open_campaign(tmp_path)


def test_another_program_that_holds_the_data_base_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BUSY_TIMEOUT", 0.05)
    store = campaign(SQLitePersistentStore, tmp_path / "campaign")
    store.close()
    store = SQLitePersistentStore(Workflow(tmp_path / "campaign"))
    other = sqlite3.connect(tmp_path / "campaign" / "store.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    add(store, [2005], [1])
    with pytest.raises(StoreError, match="locked") as error:
        store.save()
    assert "another program" in error.value.remedy
    other.execute("ROLLBACK")
    other.close()
    store.save()
    assert len(store.get_task_elements(0, 0, slice(None))) == 7


def test_who_reads_keeps_nobody_from_committing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local, shared = tmp_path / "local", tmp_path / "shared"
    monkeypatch.setattr(connection, "BUSY_TIMEOUT", 0.05)
    campaign(SQLitePersistentStore, local).close()
    shutil.copytree(local, shared)
    # At rest there is no log on a disk of one's own either.
    for path, is_shared in ((local, False), (shared, True)):
        monkeypatch.setattr(sqlite, "is_on_network", lambda path, is_shared=is_shared: is_shared)
        with open_campaign(path) as store, open_campaign(path) as reader:
            before = everything(store)
            for year in (2005, 2006):
                with reader.cached_load():
                    assert everything(reader) == before
                    add(store, [year], [1])
                    store.save()
                    assert everything(reader) == before
                    assert reader.copy(tmp_path / f"{path.name}{year}").exists()
                assert everything(reader) == everything(store) != before
                before = everything(store)
        for year, number in ((2005, 6), (2006, 7)):
            with open_campaign(tmp_path / f"{path.name}{year}") as copy:
                assert len(copy.get_task_elements(0, 0, slice(None))) == number


def test_without_a_log_elements_are_read_piece_by_piece_from_one_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign(SQLitePersistentStore, tmp_path / "campaign").close()
    monkeypatch.setattr("stormtracks.cluster.persistence.reading.CHUNK", 1)
    copies: list[None] = []

    class Counting(sqlite3.Connection):
        def backup(self, *arguments: Any, **named: Any) -> None:
            copies.append(None)
            super().backup(*arguments, **named)

    monkeypatch.setattr(connection.sqlite3, "connect", partial(sqlite3.connect, factory=Counting))
    with open_campaign(tmp_path / "campaign") as store:
        assert len(list(store.get_task_elements_islice(0, 0, slice(None)))) == 6
    assert len(copies) == 1


def stop_while_opening(path: Path) -> None:
    def stop_and_digest(path: Path) -> str:
        sqlite.digest_of = digest_of  # type: ignore[attr-defined]
        stop_here()
        return digest_of(path)

    sqlite.digest_of = stop_and_digest  # type: ignore[attr-defined]
    with open_campaign(path) as store:
        everything(store)


def commit_a_year(path: Path) -> None:
    with open_campaign(path) as store:
        add(store, [2005], [1])
        store.save()


def test_a_reader_that_is_stopped_while_it_opens_the_store_keeps_nobody_from_committing(tmp_path: Path) -> None:
    campaign(SQLitePersistentStore, tmp_path / "campaign").close()
    with stopped(stop_while_opening, tmp_path / "campaign"):
        assert ends(commit_a_year, tmp_path / "campaign")
    with open_campaign(tmp_path / "campaign") as store:
        assert len(store.get_task_elements(0, 0, slice(None))) == 7


def test_a_store_that_is_sealed_anew_while_it_is_opened_is_not_taken_for_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "campaign"
    campaign(SQLitePersistentStore, path).close()
    committed: list[bool] = []

    def commit_and_digest(database: Path) -> str:
        monkeypatch.setattr(sqlite, "digest_of", digest_of)
        committed.append(ends(commit_a_year, path))
        return digest_of(database)

    monkeypatch.setattr(sqlite, "digest_of", commit_and_digest)
    with open_campaign(path) as store:
        assert committed == [True]
        assert len(store.get_task_elements(0, 0, slice(None))) == 7


def test_a_writer_that_is_stopped_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal, "LOCK_TIMEOUT", 0.05)
    with campaign(SQLitePersistentStore, tmp_path / "campaign") as store:
        add(store, [2005], [1])
        with SealFile(tmp_path / "campaign/store.seal").locked():
            with pytest.raises(StoreError, match=r"held .*store\.seal for more than 0\.05 s") as error:
                store.save()
            assert "then run the same command again" in error.value.remedy
        store.save()
        assert len(store.get_task_elements(0, 0, slice(None))) == 7


def test_the_log_is_moved_when_it_is_long_and_the_data_base_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOG_BYTES", 2**18)
    path = tmp_path / "campaign"
    store = campaign(SQLitePersistentStore, path)
    sizes, digests = [], set()
    for year in range(2100, 2200):
        add(store, [year], range(3))
        store.save()
        sizes.append((path / "store.sqlite-wal").stat().st_size)
        digests.add((path / "store.seal").read_bytes().split()[3])
    assert max(sizes) < 2**20
    assert len(digests) > 5
    with open_campaign(path) as reader:
        assert everything(reader) == everything(store)


def test_a_hundred_thousand_elements_are_one_commit_and_read_piece_by_piece(tmp_path: Path) -> None:
    with campaign(SQLitePersistentStore, tmp_path / "campaign") as store:
        add(store, range(1000, 2000), range(100))
        store.save()
    with open_campaign(tmp_path / "campaign") as store:
        (task,) = store.get_all_tasks_metadata()
        assert task["num_elements"] == 100_006
        assert len(task["rows"]) == 1002 and task["rows"][1500] == 100 * "-"
        pieces = store.get_task_elements_islice(0, 0, slice(99_990, None))
        assert [element["index"] for element in pieces] == list(range(99_990, 100_006))


# --- many changes at once


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is added is written ahead of its commit."""
    monkeypatch.setattr(sqlite, "MOST_PENDING", 1)


@pytest.mark.usefixtures("ahead")
def test_what_is_written_ahead_is_seen_by_its_maker_alone_until_it_is_saved(tmp_path: Path) -> None:
    with (
        campaign(SQLitePersistentStore, tmp_path / "campaign") as store,
        open_campaign(tmp_path / "campaign") as reader,
    ):
        before = everything(reader)
        slots = add(store, [2003], [1, 2, 3])
        store.set_parameter(slots[0], {"tracks": 5})
        add(store, [2004], [1])
        assert store.has_pending and not store.is_modified_on_disk()
        assert everything(reader) == before
        whole = everything(store)
        assert whole["tasks"][0]["rows"] == {2001: "---", 2002: "---", 2003: "+--", 2004: "-  "}
        copied = store.copy()
        with open_campaign(copied) as copy:
            assert everything(copy) == before
        store.save()
        assert not store.has_pending
        assert everything(reader) == everything(store) == whole
    with open_campaign(tmp_path / "campaign") as again:
        assert everything(again) == whole


@pytest.mark.usefixtures("ahead")
@pytest.mark.parametrize("drop", ["clear_pending", "reject_pending", "close"])
def test_what_is_written_ahead_and_dropped_leaves_nothing(tmp_path: Path, drop: str) -> None:
    store = campaign(SQLitePersistentStore, tmp_path / "campaign")
    before = everything(store)
    with nullcontext() if drop == "close" else store.cached_load():
        add(store, [2003], [1, 2, 3])
        getattr(store, drop)()
        assert drop == "close" or everything(store) == before
    with open_campaign(tmp_path / "campaign") as again:
        assert everything(again) == before
        add(again, [2003], [1])
        again.save()
        assert len(again.get_task_elements(0, 0, slice(None))) == 7
    store.close()


@pytest.mark.usefixtures("ahead")
def test_a_commit_that_fails_drops_what_was_written_ahead_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: SQLitePersistentStore, pending: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with campaign(SQLitePersistentStore, tmp_path / "campaign") as store, store.cached_load():
        before = everything(store)
        add(store, [2003], [1, 2, 3])
        with monkeypatch.context() as patch:
            patch.setattr(SQLitePersistentStore, "_put", full)
            with pytest.raises(StoreError, match="disk is full"):
                store.save()
        assert not store.has_pending
        assert everything(store) == before
        add(store, [2003], [1])
        store.save()
        assert len(store.get_task_elements(0, 0, slice(None))) == 7


@pytest.mark.usefixtures("ahead")
def test_nothing_is_written_ahead_of_what_somebody_else_has_written(tmp_path: Path) -> None:
    with campaign(SQLitePersistentStore, tmp_path / "campaign") as ours, open_campaign(tmp_path / "campaign") as theirs:
        add(theirs, [2003], [1])
        theirs.save()
        with pytest.raises(StoreChangedError):
            add(ours, [2004], [1])
        assert not ours.has_pending
        ours.reject_pending()
        add(ours, [2004], [1])
        ours.save()
        assert everything(theirs) == everything(ours)
        assert ours.get_all_tasks_metadata()[0]["rows"] == {2001: "---", 2002: "---", 2003: "-  ", 2004: "-  "}


@pytest.mark.usefixtures("ahead")
def test_while_much_is_written_ahead_nobody_else_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with campaign(SQLitePersistentStore, tmp_path / "campaign") as ours, open_campaign(tmp_path / "campaign") as theirs:
        add(ours, [2003], [1])
        with monkeypatch.context() as patch:
            patch.setattr(connection, "BUSY_TIMEOUT", 0.05)
            with pytest.raises(StoreError, match="locked"):
                add(theirs, [2004], [1])
        assert not theirs.has_pending
        ours.save()
    with open_campaign(tmp_path / "campaign") as again:
        assert again.get_all_tasks_metadata()[0]["rows"] == {2001: "---", 2002: "---", 2003: "-  "}


@pytest.mark.usefixtures("ahead")
@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_calls_gives_the_same_written_ahead_or_not(tmp_path: Path, seed: int) -> None:
    ours, model = campaign(SQLitePersistentStore, tmp_path / "ours"), campaign(JSONPersistentStore, tmp_path / "model")
    for store in (ours, model):
        store.add_loop([0], {"name": "rerun"}, {})
    chances = random.Random(seed), random.Random(seed)
    for step in range(60):
        for store, chance in zip((ours, model), chances, strict=True):
            random_step(store, chance, datetime(2001, 1, 1, step % 24, tzinfo=UTC))
        if step % 20 == 0:
            assert everything(ours) == everything(model)
    ours.save()
    with open_campaign(tmp_path / "ours") as again:
        assert everything(again) == everything(model)
