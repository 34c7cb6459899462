"""The lean schema: what a campaign's store holds, table by table, whatever it is written with.

A row is a named tuple of numbers and texts; what has a free shape is JSON text, made once and kept as it is. The first
fields of a row are its key. In every table the last field of the key counts from 0 without a gap, among the rows that
share those before it.

=============  =====================================================================================================
`Campaign`     the one row of the frozen template, of the template components and of how the campaign was created
`Task`         a kind of task, such as ``vort_track``; its key is the number of tasks ever added before
`ElementSet`   the years and members that were added at once
`Element`      one year of one member
`Iteration`    a round of an element: the first, or a rerun
`Attempt`      one try at a round (an element action run, EAR)
`Parameter`    a slot that is written once: the result of a round, or settings
`Loop`         the rounds of a rerun
`Submission`   one start of a manager
=============  =====================================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

from stormtracks.cluster.errors import StoreError

__all__ = [
    "KEY_LENGTH",
    "SCHEMA",
    "TABLES",
    "TS_FMT",
    "Attempt",
    "Campaign",
    "Element",
    "ElementSet",
    "Iteration",
    "Key",
    "Loop",
    "Parameter",
    "Row",
    "Submission",
    "Task",
    "iteration_status",
    "key_of",
    "to_json",
    "to_text",
    "to_time",
]

SCHEMA = 1
"""Version of these tables; a store says which one it was written with."""

TS_FMT = "%Y-%m-%dT%H:%M:%S.%f%z"
"""How times are stored: always UTC."""

Key = tuple[int, ...]


class Campaign(NamedTuple):
    """The campaign itself.

    Parameters
    ----------
    idx : int
        Always 0.
    template, components, creation_info : str
        JSON objects.
    replaced : str
        Folder of the campaign that this one shall replace, until it has; else empty.
    """

    idx: int
    template: str
    components: str
    creation_info: str
    replaced: str


class Task(NamedTuple):
    """A kind of task: its number among all ever added, its place among those there are, and a JSON object."""

    insert_ID: int
    place: int
    document: str


class ElementSet(NamedTuple):
    """Years and members that were added at once, as a JSON object."""

    task: int
    idx: int
    document: str


class Element(NamedTuple):
    """One year of one member: since which element set, whether retired (1) or not (0), and its latest iteration."""

    task: int
    idx: int
    year: int
    member: int
    element_set: int
    retired: int
    latest: int


class Iteration(NamedTuple):
    """A round of an element: the parameter that takes its result, the loop that added it, and its status.

    The status is what `iteration_status` makes of the parameter and the last attempt. A store that lets many processes
    write need not keep it: it can be made again on reading.
    """

    task: int
    idx: int
    element: int
    parameter: int
    loop: int | None
    status: str


class Attempt(NamedTuple):
    """One try at an iteration: who, where and with what, of which submission, from when to when, and how it ended."""

    task: int
    iteration: int
    run: int
    element: int
    number: int
    worker: str
    incarnation: str
    host: str
    pid: int | None
    code: str
    submission: int | None
    start: str | None
    end: str | None
    status: str | None
    error: str
    exit_code: int | None
    seconds: float


class Parameter(NamedTuple):
    """A slot that is written once: whether it is set (1) or not (0), its value and source, and the iteration it is for.

    `data` and `source` are JSON; `data` is ``null`` until it is set. `task` and `iteration` are None for what is no
    iteration's result.
    """

    idx: int
    is_set: int
    data: str
    source: str
    task: int | None
    iteration: int | None


class Loop(NamedTuple):
    """Rounds of reruns, as a JSON object, and how many iterations were added for it."""

    idx: int
    document: str
    added: int


class Submission(NamedTuple):
    """One start of a manager, as a JSON object with its jobscripts."""

    idx: int
    document: str


Row = Campaign | Task | ElementSet | Element | Iteration | Attempt | Parameter | Loop | Submission

TABLES: Mapping[str, type[Row]] = {
    "campaign": Campaign,
    "tasks": Task,
    "element_sets": ElementSet,
    "elements": Element,
    "iterations": Iteration,
    "attempts": Attempt,
    "parameters": Parameter,
    "loops": Loop,
    "submissions": Submission,
}
"""Every table by its name."""

KEY_LENGTH: Mapping[type[Row], int] = {
    Campaign: 1,
    Task: 1,
    ElementSet: 2,
    Element: 2,
    Iteration: 2,
    Attempt: 3,
    Parameter: 1,
    Loop: 1,
    Submission: 1,
}
"""How many of a row's first fields are its key."""

_encode = json.JSONEncoder(separators=(",", ":")).encode

_STATUS_OF_ENDED = {"complete": "-", "failure": "F", "timeout": "T", "lost": "-", "forgiven": "-"}


def key_of(row: Row) -> Key:
    """The key of a row."""
    return cast(Key, row[: KEY_LENGTH[type(row)]])


def iteration_status(is_set: bool | int, last: Attempt | None) -> str:
    """The glyph of an iteration.

    Parameters
    ----------
    is_set : bool
        Whether the parameter that takes its result is set: only then is the iteration complete.
    last : Attempt or None
        Its last attempt.
    """
    if is_set:
        return "+"
    if last is None:
        return "-"
    return "W" if last.status is None else _STATUS_OF_ENDED[last.status]


def to_json(value: Any, what: str) -> str:
    """A value as JSON text; numbers that are not finite are written as Python's json reads them.

    Raises
    ------
    StoreError
        If the value is none that JSON can hold.
    """
    try:
        return _encode(value)
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"{what} cannot be stored: {error}",
            remedy="give plain values only: numbers, texts, booleans, None, and lists and dictionaries of these",
        ) from error


def to_text(at: datetime | None) -> str:
    """A time as it is stored; None is now.

    Raises
    ------
    StoreError
        If the time does not say in which zone it is.
    """
    if at is None:
        at = datetime.now(UTC)
    elif at.tzinfo is None:
        raise StoreError(f"the time {at} has no zone", remedy="give an aware time, such as datetime.now(UTC)")
    return at.astimezone(UTC).strftime(TS_FMT)


def to_time(text: str | None) -> datetime | None:
    """A stored time, or None if there is none."""
    return None if text is None else datetime.fromisoformat(text)
