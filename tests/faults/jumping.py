"""Any program, with a wall clock that jumps an hour forth and back: MODULE and its arguments.

The machine's own clock is left alone. What jumps is what Python tells of it, `time.time` and `datetime.now`, from
before the program is imported: whatever asks for the date is told a wrong one, five times a second another.
"""

from __future__ import annotations

import datetime
import sys
import time
from importlib import import_module

__all__ = ["main"]

_REAL = time.time
_JUMPS = (0.0, 3600.0, -3600.0)


def wrong_time() -> float:
    """Seconds since 1970, give or take an hour."""
    return _REAL() + _JUMPS[int(time.monotonic() * 5) % len(_JUMPS)]


class WrongDatetime(datetime.datetime):
    """A date and time whose `now` goes by the wrong clock."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> WrongDatetime:
        return cls.fromtimestamp(wrong_time(), tz)


def main() -> int:
    """Run the program."""
    time.time = wrong_time
    time.time_ns = lambda: int(wrong_time() * 1e9)
    datetime.datetime = WrongDatetime  # type: ignore[misc]
    status: int = import_module(sys.argv[1]).main(sys.argv[2:])
    return status


if __name__ == "__main__":
    sys.exit(main())
