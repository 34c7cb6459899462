"""Toy functions that make bundles: each member as it is chosen, and work for all before and after."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.cluster import toy_tasks

Attempts = Sequence[tuple[int, int, str]]
At = Callable[[int | None], None]
Confirm = Callable[[int], None]
Found = Iterator[tuple[int, Any]]


def chosen(
    attempts: Attempts,
    *,
    confirm: Confirm,
    at: At,
    cores: int,
    by_member: Mapping[str, str] | None = None,
    for_all: str = "",
    raises: bool = False,
    folder: str = "",
) -> Found:
    """Does for each member what is chosen by the name of a toy task, else `double`; `for_all` when half are done.

    It does the odd members before the even ones. What a toy raises is yielded, unless it `raises` itself.
    """
    places = sorted(range(len(attempts)), key=lambda place: (attempts[place][1] % 2 == 0, place))
    for number, place in enumerate(places):
        year, member, task = attempts[place]
        named = {"confirm": partial(confirm, place), **({"folder": folder} if folder else {})}
        if for_all and number == len(places) // 2:
            at(None)
            getattr(toy_tasks, for_all)(year, member, task, **named)
        at(place)
        try:
            found = getattr(toy_tasks, (by_member or {}).get(str(member), "double"))(year, member, task, **named)
        except Exception as error:
            if raises:
                raise
            found = error
        yield place, found


def surroundings(attempts: Attempts, *, cores: int, **_: Any) -> Found:
    for place, attempt in enumerate(attempts):
        yield place, {"cores": cores, "attempt": list(attempt)}


def naps(attempts: Attempts, *, at: At, nap: float, **_: Any) -> Found:
    """Sleeps for all, and then for each."""
    at(None)
    time.sleep(nap)
    for place in range(len(attempts)):
        at(place)
        time.sleep(nap)
        yield place, {}


def forgetful(attempts: Attempts, **_: Any) -> Found:
    """Answers nothing of the last one."""
    for place in range(len(attempts) - 1):
        yield place, {}


def twice(attempts: Attempts, **_: Any) -> Found:
    """Answers twice of the first one."""
    yield from [(0, {"tracks": 1}), (0, {"tracks": 2})]


def fails_in_the_end(attempts: Attempts, **_: Any) -> Found:
    for place in range(len(attempts)):
        yield place, {}
    raise ValueError("a file does not close")


def stands_for_all(attempts: Attempts, *, folder: str, at: At, **_: Any) -> Found:
    """Waits, at work for all, until there is a file `go`."""
    at(None)
    (Path(folder) / "there").touch()
    while not (Path(folder) / "go").exists():
        time.sleep(0.01)
    for place in range(len(attempts)):
        yield place, {}


def none_at_all(attempts: Attempts, **_: Any) -> None:
    """Yields nothing, and is no generator."""


def out_of_place(attempts: Attempts, *, at: At, **_: Any) -> Found:
    at(len(attempts))
    yield 0, {}


def too_little_memory_for_all(attempts: Attempts, *, at: At, **_: Any) -> Found:
    """Says of each what has befallen all."""
    error = MemoryError("no more")
    at(None)
    for place in range(len(attempts)):
        yield place, error
