"""Stores that were cut short or have lost their end: opened as they were, or one commit before, or refused by name."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stormtracks.cluster.errors import StoreDamagedError
from stormtracks.cluster.persistence import PersistentStore, Workflow
from stormtracks.cluster.persistence.json import JSONPersistentStore
from stormtracks.cluster.persistence.sqlite import SQLitePersistentStore
from tests.cluster.persistence.stores import CREATION, TEMPLATE, WORKER, add, campaign, everything

PAGE = 512
"""Bytes of a page of these data bases; ordinary ones have more, which would take long to go through one by one."""

FRAME = PAGE + 24
LOG, DATABASE = "store.sqlite-wal", "store.sqlite"


def worked_on(cls: type[PersistentStore], path: Path) -> tuple[PersistentStore, list[dict[str, Any]]]:
    """A campaign with some commits, still open, and what it held after each of them."""
    cls.write_empty_workflow(TEMPLATE, {}, path, None, CREATION)
    if cls is SQLitePersistentStore:
        use_small_pages(path)
        with cls(Workflow(path)) as store:  # and let it be sealed
            store.add_template_components({"page": PAGE})
            store.save()
    store = cls(Workflow(path))
    add(store, [2001, 2002], [1, 2, 3])
    store.save()
    states = [everything(store)]
    for iteration in range(3):
        store.add_EARs(0, 0, iteration, WORKER, {})
        store.set_EAR_start(0, iteration, 0, 0)
        store.save()
        states.append(everything(store))
        store.set_EAR_end(0, iteration, 0, 0, status="complete", seconds=1.25)
        store.set_parameter(iteration, {"tracks": iteration, "sha256": 16 * "cafe"})
        store.save()
        states.append(everything(store))
    return store, states


def use_small_pages(path: Path) -> None:
    db = sqlite3.connect(path / DATABASE, isolation_level=None)
    for statement in ("journal_mode = DELETE", f"page_size = {PAGE}", "journal_mode = WAL"):
        db.execute(f"PRAGMA {statement}")
        db.execute("VACUUM")
    assert db.execute("PRAGMA page_size").fetchone() == (PAGE,)
    db.close()
    (path / "store.seal").unlink()


class Damage:
    """A store's folder of which one file is damaged, again and again, and the others are as they were."""

    def __init__(self, cls: type[PersistentStore], original: Path, states: list[dict[str, Any]], place: Path) -> None:
        self.cls, self.original, self.place = cls, original, place
        self.states = states
        self.files = {file.name: file.read_bytes() for file in original.iterdir() if not file.name.endswith("-shm")}

    def outcome(self, name: str, content: bytes) -> str:
        """What comes of opening the store with this content of a file; it is one of those that may be."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        for other, whole in self.files.items():
            (self.place / other).write_bytes(content if other == name else whole)
        try:
            with self.cls(Workflow(self.place)) as store:
                found = everything(store)
        except StoreDamagedError as error:
            assert str(self.place) in error.what and error.remedy
            return "refused"
        if found == self.states[-1]:
            return "whole"
        assert found == self.states[-2]
        return "one commit less"

    def outcomes(self, name: str, offsets: Iterator[int] | range) -> set[str]:
        """The same for a file that is cut off, or zero, from each of these offsets on."""
        whole = self.files[name]
        found = set()
        for offset in offsets:
            found.add(self.outcome(name, whole[:offset]))
            zeroed = whole[:offset].ljust(len(whole), b"\0")
            if zeroed != whole:
                found.add(self.outcome(name, zeroed))
        return found


def sampled(size: int, tail: int, number: int) -> range:
    """Offsets before the tail of a file."""
    return range(0, max(size - tail, 1), max((size - tail) // number, 1))


@pytest.fixture
def logged(tmp_path: Path, memory: Path) -> Iterator[Damage]:
    """A data base whose latest commits are in its log."""
    store, states = worked_on(SQLitePersistentStore, tmp_path / "logged")
    yield Damage(SQLitePersistentStore, tmp_path / "logged", states, memory / "campaign")
    store.close()


@pytest.fixture
def closed(tmp_path: Path, memory: Path) -> Damage:
    """A data base without a log."""
    store, states = worked_on(SQLitePersistentStore, tmp_path / "closed")
    store.close()
    damage = Damage(SQLitePersistentStore, tmp_path / "closed", states, memory / "campaign")
    assert set(damage.files) == {"store.sqlite", "store.seal"}
    return damage


def test_nothing_is_wrong_with_what_is_whole(logged: Damage, closed: Damage) -> None:
    assert logged.outcome("", b"") == closed.outcome("", b"") == "whole"


def test_the_log_with_every_length_of_its_last_two_frames(logged: Damage) -> None:
    size = len(logged.files[LOG])
    assert logged.outcomes(LOG, range(size - 2 * FRAME, size)) == {"one commit less"}


def test_the_log_without_more_than_that(logged: Damage) -> None:
    assert "refused" in logged.outcomes(LOG, sampled(len(logged.files[LOG]), 2 * FRAME, 60))
    del logged.files[LOG]
    assert logged.outcome("", b"") == "refused"


def test_the_data_base_with_every_length_of_its_last_two_pages(closed: Damage) -> None:
    size = len(closed.files[DATABASE])
    assert closed.outcomes(DATABASE, range(size - 2 * PAGE, size)) == {"refused"}


def test_the_data_base_under_its_log_with_other_lengths(logged: Damage, closed: Damage) -> None:
    for damage in (logged, closed):
        size = len(damage.files[DATABASE])
        assert damage.outcomes(DATABASE, sampled(size, 0, 40)) == {"refused"}


@pytest.mark.parametrize("content", [b"", b"\0" * 127, b"0" * 127])
def test_without_a_seal_a_whole_store_opens(closed: Damage, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert closed.outcome("store.seal", content) == "whole"
    assert "seal" in caplog.text


def test_a_lost_commit_is_told_and_work_goes_on(logged: Damage, caplog: pytest.LogCaptureFixture) -> None:
    assert logged.outcome(LOG, logged.files[LOG][:-1]) == "one commit less"
    assert "lost" in caplog.text
    with SQLitePersistentStore(Workflow(logged.place)) as store:
        add(store, [2005], [1])
        store.save()
        after = everything(store)
    with SQLitePersistentStore(Workflow(logged.place)) as store:
        assert everything(store) == after


def test_a_power_cut_may_take_several_commits_which_is_told(
    logged: Damage, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    seal = logged.files["store.seal"].split()
    seal[1] = b"00000000-0000-0000-0000-000000000000"
    logged.files["store.seal"] = b" ".join(seal) + b"\n"
    del logged.files[LOG]
    logged.states.append(logged.states[-1])
    shutil.rmtree(logged.place, ignore_errors=True)
    logged.place.mkdir()
    for name, content in logged.files.items():
        (logged.place / name).write_bytes(content)
    with SQLitePersistentStore(Workflow(logged.place)) as store:
        assert store.get_all_tasks_metadata() == []
        assert store.get_template_components() == {"page": PAGE}
    assert "7 in number, are lost" in caplog.text


def test_another_program_may_tidy_up_after_a_kill(logged: Damage) -> None:
    assert logged.outcome("", b"") == "whole"
    sqlite3.connect(logged.place / DATABASE).execute("SELECT * FROM revision").connection.close()
    db = sqlite3.connect(logged.place / DATABASE)
    assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    db.close()
    assert not (logged.place / LOG).exists()
    with SQLitePersistentStore(Workflow(logged.place)) as store:
        assert everything(store) == logged.states[-1]


def test_json_files_of_every_length(tmp_path: Path, memory: Path) -> None:
    store, states = worked_on(JSONPersistentStore, tmp_path / "campaign")
    store.close()
    damage = Damage(JSONPersistentStore, tmp_path / "campaign", states, memory / "campaign")
    for name, content in damage.files.items():
        tail = min(512, len(content) - 1)
        found = damage.outcomes(name, range(len(content) - tail, len(content) - 1))
        found |= damage.outcomes(name, sampled(len(content), tail, 40))
        assert found <= {"refused", "whole"}, "no file but those of the last commit is read"
        assert found == {"refused"} or name not in store.load_metadata()["files"].values()
        assert damage.outcome(name, content[:-1]) == "whole", "a line break at the end means nothing"


def test_a_json_file_that_is_missing_is_named(tmp_path: Path) -> None:
    campaign(JSONPersistentStore, tmp_path / "campaign").close()
    (tmp_path / "campaign" / "parameters-1.json").unlink()
    with pytest.raises(StoreDamagedError, match=r"parameters-1\.json: it is not there"):
        JSONPersistentStore(Workflow(tmp_path / "campaign"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"elements": [', b'"elementz": ['),
        (b'"year": 2001', b'"yeah": 2001'),
        (b'"files": {', b'"piles": {'),
        (b'"revision": 1', b'"revision": "x"'),
    ],
)
def test_json_that_says_something_else_is_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    campaign(JSONPersistentStore, tmp_path / "campaign").close()
    path = tmp_path / "campaign" / "metadata.json"
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(StoreDamagedError, match=r"metadata\.json"):
        JSONPersistentStore(Workflow(tmp_path / "campaign"))
