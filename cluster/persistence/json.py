"""The campaign store as three JSON files: to read and to debug with; each commit writes a campaign's whole file anew.

``metadata.json`` names the files of the parameters and of the submissions that belong to it, so that its replacement is
the commit. Every row is on a line of its own.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from stormtracks.cluster.errors import StoreError
from stormtracks.cluster.persistence.base import PersistentStore, PersistentStoreFeatures, Workflow
from stormtracks.cluster.persistence.folders import as_store_error
from stormtracks.cluster.persistence.memory import MemoryRows
from stormtracks.cluster.persistence.pending import Pending
from stormtracks.cluster.persistence.rows import (
    SCHEMA,
    TABLES,
    Campaign,
    ElementSet,
    Key,
    Loop,
    Parameter,
    Row,
    Submission,
    Task,
    to_json,
)
from stormtracks.cluster.persistence.rowstore import check_schema, damaged_error
from stormtracks.publish import lock, publish, remove_temporaries

__all__ = ["JSONPersistentStore"]

logger = logging.getLogger(__name__)

R = TypeVar("R", bound=Row)

METADATA = "metadata.json"
NAMED = ("parameters", "submissions")
"""Tables with files of their own, which `METADATA` names."""

READS = 10
"""How often reading starts again when a commit by another process has removed what was about to be read."""

_JSON_COLUMNS: Mapping[type[Any], tuple[str, ...]] = {
    Campaign: ("template", "components", "creation_info"),
    Task: ("document",),
    ElementSet: ("document",),
    Parameter: ("data", "source"),
    Loop: ("document",),
    Submission: ("document",),
}

Stamp = tuple[int, int, int]


class JSONPersistentStore(PersistentStore):
    """A campaign's store in ``metadata.json``, ``parameters-N.json`` and ``submissions-N.json``.

    One process writes, one attempt is under way at a time; others may read. Whoever has committed something stays the
    writer until the store is closed.
    """

    format = "json"
    _features = PersistentStoreFeatures(submission=True)

    def __init__(self, workflow: Workflow) -> None:
        self._writer: int | None = None
        self._read: Stamp | None = None
        super().__init__(workflow)

    @classmethod
    def path_has_store(cls, path: Path) -> bool:
        """Whether a folder holds a store of this kind."""
        return (path / METADATA).is_file()

    @property
    def store_path(self) -> Path:
        """The file that names the others."""
        return self.workflow_path / METADATA

    def close(self) -> None:
        """Let others write; pending changes are dropped."""
        super().close()
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None

    # --- the files

    def load(self) -> dict[str, Any]:
        """All that the three files hold, by ``metadata``, ``parameters`` and ``submissions``."""
        for _ in range(READS):
            metadata = self.load_metadata()
            try:
                return {
                    "metadata": metadata,
                    "parameters": self.load_parameter_data(),
                    "submissions": self.load_submissions(),
                }
            except FileNotFoundError as error:
                missing = error
        raise damaged_error(Path(missing.filename), "it is not there") from missing

    def load_metadata(self) -> dict[str, Any]:
        """What ``metadata.json`` holds; the files that it names are those that are read from now on."""
        try:
            metadata = _read(self.store_path)
        except FileNotFoundError as error:
            raise self._not_found(self.workflow_path) from error
        check_schema(metadata.get("schema"), self.store_path)
        names = metadata.get("files")
        if not isinstance(names, dict) or any(not isinstance(names.get(table), str) for table in NAMED):
            raise damaged_error(self.store_path, "it does not name the files that belong to it")
        self._names = dict(names)
        return metadata

    def load_parameter_data(self) -> dict[str, Any]:
        """What the file of the parameters holds that the metadata named when they were read last.

        Raises
        ------
        FileNotFoundError
            If commits by another process have removed it since.
        """
        return _read(self.workflow_path / self._names["parameters"])

    def load_submissions(self) -> dict[str, Any]:
        """What the file of the submissions holds that the metadata named when they were read last.

        Raises
        ------
        FileNotFoundError
            If commits by another process have removed it since.
        """
        return _read(self.workflow_path / self._names["submissions"])

    def _begin_reading(self) -> None:
        self._refresh()

    def _refresh(self) -> None:
        """Read the files, if they have changed since they were read."""
        if self._depth or (stamp := _stamp(self.store_path)) == self._read is not None:
            return
        documents = self.load()
        metadata = documents["metadata"]
        try:
            self._store_id, self._on_disk = str(metadata["store"]), int(metadata["revision"])
            self._memory = MemoryRows(self._rows_of(metadata, set(TABLES) - set(NAMED), self.store_path))
            for table in NAMED:
                for row in self._rows_of(documents[table], {table}, self.workflow_path / self._names[table]):
                    self._memory.put(row)
        except (KeyError, TypeError, ValueError) as error:
            raise damaged_error(self.store_path, repr(error)) from error
        # Of before the reading: what was changed meanwhile will be read again.
        self._read = stamp

    @staticmethod
    def _rows_of(document: Mapping[str, Any], tables: Iterable[str], path: Path) -> Iterator[Row]:
        try:
            for table in sorted(tables):
                yield from (_row(TABLES[table], entry) for entry in document[table])
        except (KeyError, TypeError, AttributeError) as error:
            raise damaged_error(path, f"a row is not as it should be: {error!r}") from error

    # --- rows

    def _open(self) -> int:
        if not self.path_has_store(self.workflow_path):
            raise self._not_found(self.workflow_path)
        self._refresh()
        self._opened_id = self._store_id
        return self._on_disk

    def _read_revision(self) -> int:
        if not self.exists():
            return -1
        self._refresh()
        return self._on_disk if self._store_id == self._opened_id else -1

    def _fetch(self, kind: type[R], key: Key) -> R | None:
        self._refresh()
        return self._memory.get(kind, key)

    def _scan(self, kind: type[R], task: int | None, elements: range | None) -> Iterable[R]:
        self._refresh()
        return self._memory.scan(kind, task, elements)

    def _count(self, kind: type[Row], parent: Key) -> int:
        self._refresh()
        return self._memory.count(kind, parent)

    # --- writing

    @classmethod
    def create_in(cls, folder: Path, campaign: Campaign) -> None:
        files = {table: f"{table}-0.json" for table in NAMED}
        _write(folder, MemoryRows([campaign]), files, NAMED, {"store": str(uuid.uuid4()), "revision": 0})

    def _commit(self, pending: Pending, revision: int) -> int:
        self._become_writer()
        depth, self._depth = self._depth, 0
        try:
            if self._read_revision() != revision:
                raise self._changed_error()
            rows = self._memory.copy()
            for row in pending:
                rows.put(row)
            anew = [table for table in NAMED if TABLES[table] in pending.added or TABLES[table] in pending.changed]
            before = self._names
            names = before | {table: f"{table}-{revision + 1}.json" for table in anew}
            with as_store_error():
                _write(self.workflow_path, rows, names, anew, {"store": self._store_id, "revision": revision + 1})
            self._memory, self._names, self._on_disk = rows, names, revision + 1
            self._read = _stamp(self.store_path)
            self._remove_old({*before.values(), *names.values()})
        finally:
            self._depth = depth
        return revision + 1

    def _become_writer(self) -> None:
        """Be the only one to write; kept by the kernel until the store is closed or this process ends."""
        if self._writer is not None:
            return
        descriptor = os.open(self.workflow_path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise StoreError(
                f"another process writes to the campaign in {self.workflow_path}: a json store takes one writer",
                remedy="wait until that has ended, or convert the store to sqlite",
            ) from error
        except OSError:
            os.close(descriptor)
            raise
        self._writer = descriptor
        remove_temporaries(self.workflow_path, older_than=3600.0)

    def _remove_old(self, names: set[str]) -> None:
        """Remove files that neither this generation names nor the one before, which somebody may be reading."""
        for table in NAMED:
            for path in self.workflow_path.glob(f"{table}-*.json"):
                if path.name not in names:
                    try:
                        path.unlink(missing_ok=True)
                    except OSError as error:  # the commit stands
                        logger.warning("%s is left behind: %s", path, error)

    def _copy_into(self, folder: Path) -> None:
        with self.cached_load():
            head = {"store": str(uuid.uuid4()), "revision": self._on_disk}
            _write(folder, self._memory, self._names, NAMED, head)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise damaged_error(path, str(error)) from error
    except FileNotFoundError:
        raise  # which may be the doing of a commit
    except OSError as error:
        raise StoreError(
            f"cannot read {path}: {error.strerror}", remedy="ask the file's owner for permission"
        ) from error
    if not isinstance(document, dict):
        raise damaged_error(path, "it holds no JSON object")
    return document


def _write(
    folder: Path, rows: MemoryRows, names: Mapping[str, str], anew: Iterable[str], head: Mapping[str, Any]
) -> None:
    """Write the files of some tables, and then the metadata, which make them count."""
    for table in anew:
        publish(folder / names[table], _text({}, {table: rows.scan(TABLES[table])}))
    tables = {table: rows.scan(kind) for table, kind in TABLES.items() if table not in NAMED}
    publish(folder / METADATA, _text({"schema": SCHEMA, **head, "files": names}, tables))


def _text(head: Mapping[str, Any], tables: Mapping[str, Iterable[Row]]) -> bytes:
    """A JSON object with a line for each row."""
    parts = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
    for name, rows in tables.items():
        lines = ",\n".join(f"  {json.dumps(_document(row), ensure_ascii=False)}" for row in rows)
        parts.append(f" {json.dumps(name)}: [\n{lines}\n ]" if lines else f" {json.dumps(name)}: []")
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode("utf-8", "backslashreplace")


def _document(row: Row) -> dict[str, Any]:
    """A row by the names of its fields, with what is JSON text opened up."""
    columns = _JSON_COLUMNS.get(type(row), ())
    return {name: json.loads(value) if name in columns else value for name, value in row._asdict().items()}


def _row(kind: type[Any], document: Mapping[str, Any]) -> Row:
    """The row of such a document."""
    columns = _JSON_COLUMNS.get(kind, ())
    values = {name: to_json(value, name) if name in columns else value for name, value in document.items()}
    return cast(Row, kind(**values))


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
