"""Results of before: looked at one by one while the work goes on, and done again if they are not what they were."""

from __future__ import annotations

from collections import deque

from stormtracks.cluster.account import Account
from stormtracks.cluster.listener import Change
from stormtracks.cluster.pyro_task import Attempt, PyroTaskSchedule
from stormtracks.cluster.record import Published, Record

__all__ = ["EarlierResults"]


class EarlierResults:
    """The results that the record knew when it was opened, and that were not looked at yet.

    Parameters
    ----------
    schedule : PyroTaskSchedule
    record : Record
    published : Published
    account : Account
        What is found is noted there.
    """

    def __init__(self, schedule: PyroTaskSchedule, record: Record, published: Published, account: Account) -> None:
        self._schedule = schedule
        self._record = record
        self._published = published
        self._account = account
        self._unchecked = deque(record.completed())

    def __len__(self) -> int:
        return len(self._unchecked)

    def check_next(self) -> None:
        """Look at the next one."""
        year, member = self._unchecked.popleft()
        result = self._record.result(year, member)
        attempt = Attempt(self._record.attempts(year, member), year, member, self._schedule.task)
        if fault := self._published.fault(year, member, result):
            self._schedule.find(year, member).status = "outstanding"
            self._record.again(year, member, fault)
            self._account.note(Change("again", attempt, "", error=fault))
        else:
            self._account.note(Change("found", attempt, "", result=result))
        if not self._unchecked:
            self._record.unreadable(self._published.unreadable)

    def count_the_rest(self) -> None:
        """Count those that are left unchecked."""
        for year, member in self._unchecked:
            self._account.add_found(self._record.result(year, member))
