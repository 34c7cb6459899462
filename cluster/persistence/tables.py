"""The tables of the schema in SQL, made from the rows.

Beside what a row has, an element has the status of its latest iteration, which triggers keep up: the board is then read
from one index.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import NoneType
from typing import Any, get_args, get_type_hints

from stormtracks.cluster.persistence.rows import KEY_LENGTH, SCHEMA, TABLES, Element, Row

__all__ = ["BOARD", "CREATE_ALL", "INSERT", "LAST", "NAMES", "OF_STATUS", "SELECT", "SELECT_ONE", "UPDATE", "in_order"]

_SQL_TYPES = {int: "INTEGER", str: "TEXT", float: "REAL"}

_INDEXES = (
    "CREATE UNIQUE INDEX elements_by_year ON elements (task, year, member)",
    "CREATE INDEX iterations_by_element ON iterations (task, element)",
    "CREATE INDEX attempts_by_element ON attempts (task, element)",
    "CREATE INDEX board ON elements (task, year, member, status) WHERE NOT retired",
)

_TAKE_STATUS = (
    "UPDATE elements SET status = new.status WHERE task = new.task AND idx = new.element AND latest = new.idx"
)

_TRIGGERS = (
    f"CREATE TRIGGER iteration_added AFTER INSERT ON iterations WHEN new.status <> '-' BEGIN {_TAKE_STATUS}; END",
    f"CREATE TRIGGER iteration_changed AFTER UPDATE OF status ON iterations WHEN new.status <> old.status "
    f"BEGIN {_TAKE_STATUS}; END",
    "CREATE TRIGGER element_runs_again AFTER UPDATE OF latest ON elements WHEN new.latest <> old.latest BEGIN "
    "UPDATE elements SET status = (SELECT status FROM iterations WHERE task = new.task AND idx = new.latest) "
    "WHERE task = new.task AND idx = new.idx; END",
)
"""These want elements to be added before their iterations, and iterations before elements are changed."""

BOARD = """
SELECT year, group_concat(member), group_concat(status, '') FROM elements
WHERE task = ? AND NOT retired GROUP BY year ORDER BY year
"""
"""Each year of a task with its members, in any order but joined by commas, and a sign for each."""

OF_STATUS = "SELECT idx FROM elements WHERE task = ? AND NOT retired AND instr(?, status)"
"""The elements of a task that have one of some statuses, given as a text of their signs."""

NAMES: dict[type[Any], str] = {kind: name for name, kind in TABLES.items()}
"""The table of each kind of row."""


def _column_type(hint: Any) -> str:
    kinds = get_args(hint) or (hint,)
    (kind,) = (one for one in kinds if one is not NoneType)
    return _SQL_TYPES[kind] + ("" if NoneType in kinds else " NOT NULL")


def _quoted(names: tuple[str, ...], sign: str = "") -> list[str]:
    return [f'"{name}"{sign}' for name in names]


def _key(kind: type[Row], sign: str = "") -> list[str]:
    return _quoted(kind._fields[: KEY_LENGTH[kind]], sign)


def _create(kind: type[Row]) -> str:
    columns = [f'"{name}" {_column_type(hint)}' for name, hint in get_type_hints(kind).items()]
    if kind is Element:
        columns.append("status TEXT NOT NULL DEFAULT '-'")
    key = f"PRIMARY KEY ({', '.join(_key(kind))})"
    return f"CREATE TABLE {NAMES[kind]} ({', '.join([*columns, key])}) WITHOUT ROWID"


def _insert(kind: type[Row]) -> str:
    columns, marks = ", ".join(_quoted(kind._fields)), ", ".join("?" * len(kind._fields))
    return f"INSERT INTO {NAMES[kind]} ({columns}) VALUES ({marks})"


def _last(kind: type[Row]) -> str:
    *above, last = _key(kind)
    condition = " AND ".join(f"{name} = ?" for name in above) or "1"
    return f"SELECT max({last}) FROM {NAMES[kind]} WHERE {condition}"


def _update(kind: type[Row]) -> str:
    values = ", ".join(_quoted(kind._fields[KEY_LENGTH[kind] :], " = ?"))
    return f"UPDATE {NAMES[kind]} SET {values} WHERE {' AND '.join(_key(kind, ' = ?'))}"


SELECT = {kind: f"SELECT {', '.join(_quoted(kind._fields))} FROM {NAMES[kind]}" for kind in NAMES}
"""All rows of a kind, in any order."""

SELECT_ONE = {kind: f"{select} WHERE {' AND '.join(_key(kind, ' = ?'))}" for kind, select in SELECT.items()}
"""The row of a key."""

LAST = {kind: _last(kind) for kind in NAMES}
"""The last field of the key of the last row: takes the other fields of the key."""

INSERT = {kind: _insert(kind) for kind in NAMES}
"""Add a row."""

UPDATE = {kind: _update(kind) for kind in NAMES}
"""Replace the row that has the key of a row: takes its fields after the key, then the key."""

CREATE_ALL = ";\n".join(
    [
        *map(_create, NAMES),
        *_INDEXES,
        *_TRIGGERS,
        "CREATE TABLE revision (number INTEGER NOT NULL)",
        "INSERT INTO revision VALUES (0)",
        f"PRAGMA user_version = {SCHEMA}",
    ]
)
"""Make all tables, of revision 0."""


def in_order(board: Iterable[tuple[int, str, str]]) -> list[tuple[int, list[int], str]]:
    """What `BOARD` finds, with the members of each year as numbers in order, and their signs likewise."""
    rows = list(board)
    # Most years have the same members.
    orders = {members: _order(members) for members in {members for _, members, _ in rows}}
    return [(year, *_sorted(orders[members], signs)) for year, members, signs in rows]


def _order(members: str) -> tuple[list[int], list[int] | None]:
    """Numbers joined by commas, in order, and where each of them stood; None if there already."""
    numbers = [int(member) for member in members.split(",")]
    places = sorted(range(len(numbers)), key=numbers.__getitem__)
    ordered = [numbers[place] for place in places]
    return ordered, None if ordered == numbers else places


def _sorted(order: tuple[list[int], list[int] | None], signs: str) -> tuple[list[int], str]:
    members, places = order
    return members, signs if places is None else "".join([signs[place] for place in places])
