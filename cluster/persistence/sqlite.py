"""The campaign store as an SQLite data base: the default.

On a disk of this machine a commit goes to a write-ahead log, so that others read while it is written, and outlasts
the end of this process at once; a power cut may take the latest commits along, never a part of one. On a disk that
machines share, where such a log does not work, a commit goes through a rollback journal and is on the disk at its end.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from stormtracks.cluster.errors import StoreError
from stormtracks.cluster.persistence import tables
from stormtracks.cluster.persistence.base import PersistentStore, PersistentStoreFeatures, Workflow
from stormtracks.cluster.persistence.connection import connect, set_journal, store_error, using
from stormtracks.cluster.persistence.disks import is_on_network
from stormtracks.cluster.persistence.pending import Pending
from stormtracks.cluster.persistence.rows import KEY_LENGTH, Campaign, Element, Key, Row
from stormtracks.cluster.persistence.rowstore import check_schema, damaged_error
from stormtracks.cluster.persistence.seal import Seal, SealFile, digest_of
from stormtracks.cluster.process import boot_id

__all__ = ["SQLitePersistentStore"]

logger = logging.getLogger(__name__)

R = TypeVar("R", bound=Row)

DATABASE = "store.sqlite"
SEAL = "store.seal"

LOG_BYTES = 2**24
"""Length of the write-ahead log from which on it is moved into the data base; a quarter of the data base, if longer."""

ROW_BYTES = 2**13
"""How much longer a row makes the log: the page that it is on, and one of an index."""

MOST_PENDING = 2**16
"""Pending rows from which on they are written ahead of their commit."""

LOOKS = 3
"""How often a data base is compared with its seal until it is taken for damaged."""


class SQLitePersistentStore(PersistentStore):
    """A campaign's store in one SQLite data base, ``store.sqlite``, with a small seal beside it, ``store.seal``.

    Opening, reading and closing change nothing, but that a commit that was killed half-way is taken back; what is
    opened becomes able to write with its first commit.
    """

    format = "sqlite"
    _features = PersistentStoreFeatures(
        jobscript_parallelism=True, EAR_parallelism=True, schedulers=True, submission=True
    )

    def __init__(self, workflow: Workflow) -> None:
        self._store_path = workflow.path / DATABASE
        self._writes = False
        self._closed = False
        self._log_rows = 0
        self._ahead = 0
        self._aside: tuple[int, sqlite3.Connection] | None = None
        self._reads_aside = False
        super().__init__(workflow)

    @classmethod
    def path_has_store(cls, path: Path) -> bool:
        """Whether a folder holds a store of this kind."""
        return (path / DATABASE).is_file()

    @property
    def store_path(self) -> Path:
        """The data base."""
        return self._store_path

    def close(self) -> None:
        """Let go of the data base, and seal it; pending changes are dropped."""
        super().close()
        if self._closed:
            return
        self._closed = True
        if self._writes and _identity(self.store_path) == self._file:
            try:
                with self._seal_file.locked():
                    self._seal(at_rest=True)
            except (OSError, sqlite3.Error, StoreError) as error:
                logger.warning("%s cannot be sealed: %s", self.store_path, error)
        self._drop_aside()
        self._db.close()

    # --- opening

    @classmethod
    def create_in(cls, folder: Path, campaign: Campaign) -> None:
        path = folder / DATABASE
        path.touch()  # whose permissions, as the umask says, SQLite gives to the files beside it
        with using(path, "write"), closing(connect(path, "rw")) as db:
            set_journal(db, _journal_for(folder))
            db.executescript(f"BEGIN; {tables.CREATE_ALL}; COMMIT")
            db.execute(tables.INSERT[Campaign], campaign)
        SealFile(folder / SEAL).write(Seal(0, boot_id(), 0, digest_of(path)), lasting=True)

    def _open(self) -> int:
        if not self.path_has_store(self.workflow_path):
            raise self._not_found(self.workflow_path)
        self._seal_file = SealFile(self.workflow_path / SEAL)
        self._file = _identity(self.store_path)
        with self._sql("open"):
            # Before the data base, which another process may carry on meanwhile.
            seal, whole = self._read_seal()
            self._db = self._connect_to_read()
            try:
                self._check_schema()
                revision = self._read_revision()
                self._check(seal, whole, revision)
            except BaseException:
                self._db.close()
                raise
        return revision

    def _read_seal(self) -> tuple[Seal | None, bool]:
        """The seal, and whether the data base file is what it tells of.

        Without a lock, by which a reader that is stopped would keep the manager from committing. If the file is not
        what the seal tells of, another process may just have changed both: then they are looked at again.
        """
        for _ in range(LOOKS):
            self._undo_killed_commit()
            seal = self._seal_file.read()
            if seal is None or seal.digest is None:
                return seal, False
            if seal.digest == digest_of(self.store_path):
                return seal, True
        return seal, False

    def _undo_killed_commit(self) -> None:
        """Where there is no log, take back what a commit that was killed has written.

        SQLite does so by itself, but not for a connection that only reads.
        """
        if self.store_path.with_name(f"{DATABASE}-journal").exists():
            db = connect(self.store_path, "rw")
            try:
                db.execute("SELECT number FROM revision").fetchone()
            finally:
                db.close()

    def _connect_to_read(self) -> sqlite3.Connection:
        db = connect(self.store_path, "ro")
        try:
            db.execute("SELECT number FROM revision").fetchone()
        except sqlite3.OperationalError:
            db.close()
            log = self.store_path.with_name(f"{DATABASE}-wal")
            if log.exists() or os.access(self.workflow_path, os.W_OK):
                raise
            # Nobody is at work, and the files with which readers and writers get along cannot be made.
            return connect(self.store_path, "ro&immutable=1")
        return db

    def _check_schema(self) -> None:
        (schema,) = self._db.execute("PRAGMA user_version").fetchone()
        if schema == 0:
            raise damaged_error(self.store_path, "it does not tell its version")
        check_schema(schema, self.store_path)

    def _check(self, seal: Seal | None, whole: bool, revision: int) -> None:
        """See that the data base is what was written, and that no commit is missing."""
        log = self.store_path.with_name(f"{DATABASE}-wal")
        if not whole:
            moved = seal is not None and revision > seal.sealed and not (log.exists() and log.stat().st_size)
            if seal is not None and seal.digest is not None and not moved:
                raise damaged_error(self.store_path, "its content is not what was written")
            problem = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise damaged_error(self.store_path, problem)
        if seal is None:
            logger.warning("%s has no readable seal: whether its last commits are there, nobody knows", self.store_path)
        elif revision < seal.revision:
            missing = seal.revision - revision
            if missing > 1 and seal.boot == boot_id():
                raise damaged_error(log, f"the last {missing} commits are missing")
            logger.warning("%s: the last commits, %d in number, are lost", self.store_path, missing)

    def _become_writer(self) -> None:
        """Open the data base for writing, too, with the journal that works on this disk; the seal is locked."""
        if self._writes:
            return
        self._db.close()  # as another journal can only be chosen by who is alone
        try:
            self._db = connect(self.store_path, "rw")
            wanted = _journal_for(self.workflow_path)
            seal = self._seal_file.read() if self._journal != wanted else None
            if seal is not None:
                self._seal_file.write(seal._replace(digest=None), lasting=True)
            set_journal(self._db, wanted)
            if seal is not None and seal.digest is not None and wanted == "wal":
                # From now on what is written goes to the log.
                self._seal_file.write(seal._replace(digest=digest_of(self.store_path)), lasting=True)
        except BaseException:
            self._db.close()
            self._db = self._connect_to_read()
            raise
        self._has_log = wanted == "wal"
        self._writes = True

    @property
    def _journal(self) -> str:
        return cast(str, self._db.execute("PRAGMA journal_mode").fetchone()[0])

    def _copy_into(self, folder: Path) -> None:
        path = folder / DATABASE
        path.touch()
        with self._sql("copy"), self.cached_load():
            copy = connect(path, "rw")
            try:
                if self._ahead:
                    with closing(self._connect_to_read()) as committed:
                        committed.backup(copy)
                else:
                    self._source.backup(copy)
                (revision,) = copy.execute("SELECT number FROM revision").fetchone()
                set_journal(copy, _journal_for(folder))
            finally:
                copy.close()
            SealFile(folder / SEAL).write(Seal(revision, boot_id(), revision, digest_of(path)), lasting=True)

    # --- reading

    def _read_revision(self) -> int:
        if _identity(self.store_path) != self._file:
            return -1
        row = self._fetch_one("SELECT number FROM revision")
        if row is None or not isinstance(row[0], int):
            raise damaged_error(self.store_path, "it does not tell its revision")
        return row[0]

    def _fetch(self, kind: type[R], key: Key) -> R | None:
        found = self._fetch_one(tables.SELECT_ONE[kind], key)
        return None if found is None else _row(kind, found)

    def _fetch_one(self, query: str, values: Sequence[int] = ()) -> tuple[Any, ...] | None:
        try:  # as `_sql` does, but this is called for every row
            found: tuple[Any, ...] | None = self._source.execute(query, values).fetchone()
        except sqlite3.Error as error:
            raise store_error("read", self.store_path, error) from error
        return found

    def _scan(self, kind: type[R], task: int | None, elements: range | None) -> Iterable[R]:
        conditions: list[str] = []
        values: list[int] = []
        if task is not None:
            conditions.append("task = ?")
            values.append(task)
        if elements is not None:
            conditions.append(f"{'idx' if kind is Element else 'element'} BETWEEN ? AND ?")
            values += [elements.start, elements.stop - 1]
        query = f"{tables.SELECT[kind]} WHERE {' AND '.join(conditions) or 1}"
        with self._sql("read"):
            # Sorted here, as SQLite would rather walk through the whole table in this order than sort a few rows.
            return sorted(map(partial(_row, kind), self._source.execute(query, values)))

    def _count(self, kind: type[Row], parent: Key) -> int:
        found = self._fetch_one(tables.LAST[kind], parent)
        return 0 if found is None or found[0] is None else found[0] + 1

    def _years(self, task: int) -> Iterable[tuple[int, Sequence[int], str]]:
        if self.has_pending:
            return super()._years(task)
        with self._sql("read"):
            found = self._source.execute(tables.BOARD, (task,)).fetchall()
        return tables.in_order(found)

    @property
    def _source(self) -> sqlite3.Connection:
        """What is read from."""
        return self._aside[1] if self._aside is not None and self._reads_aside else self._db

    def _keys_in_years(self, task: int, years: Collection[int]) -> set[tuple[int, int]]:
        query = "SELECT year, member FROM elements WHERE task = ? AND year BETWEEN ? AND ?"
        with self._sql("read"):
            on_disk = set(self._source.execute(query, (task, min(years, default=0), max(years, default=0))))
        pending = self._pending.added.get(Element, {}).values()
        return on_disk.union((element.year, element.member) for element in pending if element.task == task)

    def _of_status(self, task: int, statuses: str) -> list[int]:
        if self.has_pending:
            return super()._of_status(task, statuses)
        with self._sql("read"):
            return sorted(index for (index,) in self._source.execute(tables.OF_STATUS, (task, statuses)))

    def _begin_reading(self) -> None:
        if self._db.in_transaction:  # begun to write ahead, which nobody else does then, or when that was dropped
            return
        with self._sql("read"):
            self._db.execute("BEGIN")
            # The state is chosen by the first thing that is read.
            (revision,) = self._db.execute("SELECT number FROM revision").fetchone()
            # Who has changes that are pending is the one who commits.
            if not (self._writes or self.has_pending) and self._journal != "wal":
                self._step_aside(revision)

    def _step_aside(self, revision: int) -> None:
        """Read from a copy in memory: without a log, nobody can commit as long as others read."""
        try:
            if self._aside is None or self._aside[0] != revision:
                self._drop_aside()
                copy = sqlite3.connect(":memory:", check_same_thread=False)
                self._db.backup(copy)
                self._aside = revision, copy
        finally:
            self._db.execute("ROLLBACK")
        self._reads_aside = True

    def _end_reading(self) -> None:
        self._reads_aside = False  # and keep the copy, for those who go on reading piece by piece
        if self._db.in_transaction and not self._ahead:
            self._db.execute("ROLLBACK")

    def _drop_aside(self) -> None:
        if self._aside is not None:
            self._aside[1].close()
            self._aside = None

    # --- writing

    @property
    def has_pending(self) -> bool:
        """Whether there are changes that are not yet committed."""
        return bool(self._ahead) or super().has_pending

    def clear_pending(self) -> None:
        """Drop the pending changes."""
        super().clear_pending()
        if self._ahead:
            self._ahead = 0
            self._roll_back()
            if self._depth:
                self._begin_reading()

    def _relieve(self) -> None:
        """Write what is pending into the transaction that the next commit ends; if that fails, all of it is dropped."""
        if len(self._pending) < MOST_PENDING:
            return
        begins = not self._ahead
        self._end_reading()
        self._ahead += len(self._pending)
        try:
            with self._sql("write"):
                if begins:
                    with self._seal_file.locked():
                        self._begin_writing(self._revision)
                self._put(self._pending)
        except BaseException:
            self.clear_pending()
            raise
        self._pending = Pending()

    def _commit(self, pending: Pending, revision: int) -> int:
        rows = self._ahead + len(pending)
        self._end_reading()
        try:
            with self._sql("write"), self._seal_file.locked():
                self._write(pending, revision)
                self._note(revision + 1, rows)
        finally:
            if self._depth:
                self._begin_reading()
        return revision + 1

    def _write(self, pending: Pending, revision: int) -> None:
        try:
            if not self._ahead:
                self._begin_writing(revision)
            self._put(pending)
            self._db.execute("UPDATE revision SET number = ?", (revision + 1,))
            self._db.execute("COMMIT")
        except BaseException:
            self._roll_back()
            if self._ahead:  # what was written ahead is gone, and what was not would be no use without it
                self.clear_pending()
            raise
        self._ahead = 0

    def _begin_writing(self, revision: int) -> None:
        """Begin a transaction that nobody else can come between; the seal is locked."""
        self._drop_aside()
        self._become_writer()
        self._db.execute("BEGIN IMMEDIATE")
        if self._read_revision() != revision:
            raise self._changed_error()

    def _put(self, pending: Pending) -> None:
        for kind in tables.NAMES:
            if added := pending.added.get(kind):
                self._db.executemany(tables.INSERT[kind], added.values())
        for kind, length in KEY_LENGTH.items():
            if changed := pending.changed.get(kind):
                self._db.executemany(tables.UPDATE[kind], (row[length:] + row[:length] for row in changed.values()))

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _note(self, revision: int, rows: int) -> None:
        """Write down that a commit was made; it stands, whatever becomes of this."""
        self._log_rows += rows
        try:
            seal = self._seal_file.read() or Seal(revision, boot_id(), 0, None)
            in_log = seal.digest is None or self._has_log
            noted = seal._replace(revision=revision, boot=boot_id(), digest=seal.digest if in_log else None)
            self._seal_file.write(noted, lasting=not in_log)
            if self._has_log and self._log_rows * ROW_BYTES > max(LOG_BYTES, self.store_path.stat().st_size // 4):
                self._seal()
        except (OSError, sqlite3.Error) as error:
            logger.warning("%s cannot be sealed: %s", self.store_path, error)

    def _seal(self, *, at_rest: bool = False) -> None:
        """Move the log into the data base, and write down the digest of that; the seal is locked.

        At rest a data base has no log, so that readers leave nothing beside it; unless there are some now.
        """
        (revision,) = self._db.execute("SELECT number FROM revision").fetchone()
        seal = Seal(revision, boot_id(), revision, None)
        self._seal_file.write(seal, lasting=True)
        if at_rest and self._has_log:
            self._db.execute("PRAGMA busy_timeout = 0")
            with suppress(sqlite3.OperationalError):
                self._db.execute("PRAGMA journal_mode = delete")
        _, length, moved = self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        # Not all of it, if somebody still reads an older state.
        if length == moved:
            self._seal_file.write(seal._replace(digest=digest_of(self.store_path)), lasting=True)
        self._log_rows = 0

    def _sql(self, action: str) -> AbstractContextManager[None]:
        return using(self.store_path, action)


def _row(kind: type[R], values: Iterable[Any]) -> R:
    return tuple.__new__(kind, values)


def _journal_for(folder: Path) -> str:
    """The journal that works on the disk of a folder."""
    return "delete" if is_on_network(folder) else "wal"


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file has this name now."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
