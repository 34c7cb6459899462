"""What can go wrong in the science room: one base, and errors that say what, where, given, needed and the remedy."""

from __future__ import annotations

import errno

__all__ = ["InputError", "ResultNotFoundError", "ResultsError", "StormtracksError", "will_stay"]

_STAYING = (
    *(errno.EACCES, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EPERM),
    errno.EROFS,
)
"""What the system says of a path that nobody mends by waiting."""


class StormtracksError(Exception):
    """Base of every error that stormtracks raises on purpose.

    Parameters
    ----------
    what : str
        What went wrong, naming the thing: ``"variable 'u850' is not in data/u850_2001.nc"``.
    remedy : str
        What the user can do about it; shown on a line of its own.
    permanent : bool, optional
        Whether to try again would be in vain as long as nobody does that; by default what the class says.
    """

    permanent: bool = False

    def __init__(self, what: str, *, remedy: str = "", permanent: bool | None = None) -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy
        if permanent is not None:
            self.permanent = permanent

    def __str__(self) -> str:
        return f"{self.what}\n  remedy: {self.remedy}" if self.remedy else self.what

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword arguments are lost by the default, and errors travel between processes.
        return _rebuild, (type(self), self.what, self.remedy, self.permanent)


def _rebuild(kind: type[StormtracksError], what: str, remedy: str, permanent: bool) -> StormtracksError:
    return kind(what, remedy=remedy, permanent=permanent)


def will_stay(error: OSError) -> bool:
    """Whether the system will say the same again, such as of a read-only disk; a full or faulty one may be mended."""
    return error.errno in _STAYING


class InputError(StormtracksError):
    """The input data cannot be used as they are; permanent, unless the disk or the network was at fault."""

    permanent = True


class ResultsError(StormtracksError):
    """A result cannot be written, read or replaced."""


class ResultNotFoundError(ResultsError, LookupError):
    """There is no such result."""
