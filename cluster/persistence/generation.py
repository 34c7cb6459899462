"""What of a campaign lies in the document of a zarr store, and what in cells; free of files.

The document, a *generation*, has all rows but what many processes may say at once: the value of a parameter, the start
and the end of an attempt. These are texts of their own, said once. What is said again later, such as that a failed
attempt is forgiven, stands in the document and is the stronger.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from stormtracks.cluster.persistence.memory import MemoryRows
from stormtracks.cluster.persistence.rows import SCHEMA, TABLES, Attempt, Iteration, Parameter, Row

__all__ = [
    "ENDS",
    "PARAMETERS",
    "STARTS",
    "CellKey",
    "State",
    "divided",
    "parse_document",
    "parse_pointer",
    "rows_of",
    "with_cells",
]

PARAMETERS, STARTS, ENDS = "parameters", "starts", "ends"
"""The arrays that cells are in."""

CellKey = tuple[str, int]
"""Array and place of a cell: the index of a parameter, or the number of attempts added before one."""

_ENDS = ("end", "status", "error", "exit_code", "seconds")
_GOES_ON = "goes on"
"""Status in the document of an attempt that seemed lost; from then on all of it is kept there."""


@dataclass(frozen=True)
class State:
    """What counts in a store after a commit.

    Parameters
    ----------
    store : str
        Name of the store, unlike any other's.
    revision : int
        Number of commits so far, without those of one cell alone.
    generation : int
        Which document counts.
    cells : dict
        Texts of the cells that belong to the last commit.
    rows : MemoryRows
        What the document holds.
    """

    store: str
    revision: int
    generation: int
    cells: Mapping[CellKey, str] = field(default_factory=dict)
    rows: MemoryRows = field(default_factory=MemoryRows)

    @property
    def pointer(self) -> str:
        """As text: all but the rows."""
        cells = [[*key, text] for key, text in self.cells.items()]
        return _dumps([self.store, self.revision, self.generation, cells])

    @property
    def document(self) -> str:
        """As text: the rows, and which generation they are."""
        names = {kind: name for name, kind in TABLES.items()}
        tables: dict[str, list[Row]] = {name: [] for name in TABLES}
        for row in self.rows:
            tables[names[type(row)]].append(row)
        return _dumps([SCHEMA, self.store, self.generation, tables])


def parse_pointer(text: str) -> State:
    """A state without its rows; raises ValueError or TypeError if the text is none."""
    store, revision, generation, cells = json.loads(text)
    return State(store, revision, generation, {(name, number): text for name, number, text in cells})


def parse_document(text: str) -> dict[str, Any]:
    """``schema``, ``store``, ``generation`` and ``tables``, by their names, of rows that are lists.

    Raises
    ------
    ValueError, TypeError
        If the text is no document.
    """
    return dict(zip(("schema", "store", "generation", "tables"), json.loads(text), strict=True))


def rows_of(document: Mapping[str, Any], state: State) -> MemoryRows | None:
    """The rows of a state; None if the document is of another.

    Raises
    ------
    ValueError, TypeError, KeyError
        If it is no document.
    """
    if (document["store"], document["generation"]) != (state.store, state.generation):
        return None
    return MemoryRows(kind._make(row) for name, kind in TABLES.items() for row in document["tables"][name])


def divided(row: Row, kept: Row | None, whole: Row | None) -> tuple[Row, dict[str, str]]:
    """A row as the document shall hold it, and the texts of its new cells by their arrays.

    Parameters
    ----------
    row : Row
        As it shall be.
    kept, whole : Row or None
        As it was in the document, and with its cells, when it was changed; None if it is new.
    """
    if isinstance(row, Iteration):
        return row._replace(status=""), {}
    if isinstance(row, Parameter):
        is_set = whole is not None and cast(Parameter, whole).is_set
        return row._replace(is_set=0, data="null"), {PARAMETERS: row.data} if row.is_set and not is_set else {}
    if isinstance(row, Attempt):
        return _divided_attempt(row, cast("Attempt | None", kept), cast("Attempt | None", whole))
    return row, {}


def _divided_attempt(row: Attempt, kept: Attempt | None, whole: Attempt | None) -> tuple[Attempt, dict[str, str]]:
    start, status = (kept.start, kept.status) if kept is not None else (None, None)
    if status == _GOES_ON or (kept is not None and kept.end is not None) or _is_found_again(row, whole):
        # Its end is in a cell, that can be written once, and was none.
        return row._replace(status=row.status or _GOES_ON), {}
    cells = {}
    if whole is None or whole.start is None:
        if row.start is not None:
            cells[STARTS] = _dumps(row.start)
    elif row.start != whole.start:
        start = row.start
    if whole is None or whole.status is None:
        if row.status is not None:
            cells[ENDS] = _dumps([getattr(row, name) for name in _ENDS])
    elif row.status != whole.status:
        status = row.status
    return row._replace(start=start, end=None, status=status, error="", exit_code=None, seconds=0.0), cells


def _is_found_again(row: Attempt, whole: Attempt | None) -> bool:
    return whole is not None and whole.status is not None and row.status is None


def with_cells(row: Attempt, start: str | None, end: str | None) -> Attempt:
    """An attempt of the document with the texts of its cells, if they are written.

    Raises
    ------
    ValueError, TypeError
        If they are no such texts.
    """
    if row.status == _GOES_ON:
        return row._replace(status=None)
    if row.end is not None:
        return row
    said: dict[str, Any] = {}
    if start is not None:
        said["start"] = json.loads(start)
    if end is not None:
        said |= dict(zip(_ENDS, json.loads(end), strict=True))
    later = {name: value for name in ("start", "status") if (value := getattr(row, name)) is not None}
    return row._replace(**said | later)


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
