"""What can go wrong in the science room: one base, and errors that say what, where, given, needed and the remedy."""

from __future__ import annotations

__all__ = ["InputError", "ResultNotFoundError", "ResultsError", "StormtracksError"]


class StormtracksError(Exception):
    """Base of every error that stormtracks raises on purpose.

    Parameters
    ----------
    what : str
        What went wrong, naming the thing: ``"variable 'u850' is not in data/u850_2001.nc"``.
    remedy : str
        What the user can do about it; shown on a line of its own.
    """

    def __init__(self, what: str, *, remedy: str = "") -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what}\n  remedy: {self.remedy}" if self.remedy else self.what

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword arguments are lost by the default, and errors travel between processes.
        return _rebuild, (type(self), self.what, self.remedy)


def _rebuild(kind: type[StormtracksError], what: str, remedy: str) -> StormtracksError:
    return kind(what, remedy=remedy)


class InputError(StormtracksError):
    """The input data cannot be used as they are."""


class ResultsError(StormtracksError):
    """A result cannot be written, read or replaced."""


class ResultNotFoundError(ResultsError, LookupError):
    """There is no such result."""
