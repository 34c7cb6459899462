"""How long a worker may go on without its manager; free of I/O, so that it can be tried in any order of events.

The manager's calls are numbered. A call proves that the manager has had the answer to the one before it, so that a
lease runs from the moment in which *that* answer was given: a call that was long on its way renews nothing by arriving.
The manager, who counts from the moment in which the last answer came, then never ends a lease before the worker does.
"""

from __future__ import annotations

__all__ = ["Lease"]


class Lease:
    """A worker's right to go on with what it was given. Once over it stays over, and another one must be granted.

    Parameters
    ----------
    seconds : float
        How long it lasts.
    now : float
        When it was granted; seconds of a clock that no one sets and that goes on while a process or the machine sleeps.
    """

    def __init__(self, seconds: float, now: float) -> None:
        self.seconds = seconds
        self._since = now
        self._answered: tuple[int, float] = (0, now)

    def called(self, number: int, now: float) -> None:
        """Call `number` has come: the manager has had the answer to the one before."""
        answered, at = self._answered
        if number == answered + 1 and self.left(now) > 0:
            self._since = at

    def answered(self, number: int, now: float) -> None:
        """Call `number` is being answered, perhaps not for the first time."""
        if number > self._answered[0]:
            self._answered = (number, now)

    def reopened(self, seconds: float, now: float) -> None:
        """A manager goes on with what runs under this lease, and numbers its calls from 1 again.

        Nothing is renewed before its first call: until then it may not know that it has this worker. If it grants less
        than the one before it, that holds at once; if more, the worker stays on the safe side.
        """
        self.seconds = min(self.seconds, seconds)
        self._answered = (0, now)

    def left(self, now: float) -> float:
        """Seconds until it ends; none or less when it has."""
        return self._since + self.seconds - now
