"""Who may give a worker orders: one manager at a time, for as long as its lease lasts, and never an overtaken one.

A session is the hold of one manager on the worker: the slots that it gives orders to, the count of its calls, and the
lease that they renew. When the lease is over, what runs is ended; before that, the same campaign's manager, started
again, takes it over as it is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from threading import Event, Lock, Thread
from typing import Any

from stormtracks.cluster.backends.child_process import GRACE
from stormtracks.cluster.errors import BackendError, SessionError, WorkerRefusedError
from stormtracks.cluster.lease import Lease
from stormtracks.cluster.pyro_task import Attempt, Outcome
from stormtracks.cluster.slots import SharedSlots
from stormtracks.cluster.wire.calls import Call, Order, to_wire
from stormtracks.settings.campaign import CampaignSettings

__all__ = ["Session", "Sessions", "SlotMaker"]

logger = logging.getLogger(__name__)

SlotMaker = Callable[
    [CampaignSettings, Mapping[str, Any], Sequence[int], Callable[[Attempt], bool]],
    SharedSlots,
]
"""Makes slots for a campaign, its settings as plain values, its first years, and whom to ask who may publish."""

_LONGEST_WAIT = 60.0
_STEP = 1.0
"""Seconds between looks at a lease, as the clock of a wait stands still while the machine sleeps."""
_WAIT_PART = 0.25
"""Part of a lease that a call waits at most."""
_GRACE_PART = 0.1
"""Part of a lease that children get to end by themselves when it is over; well within the manager's own grace."""


class Session:
    """The hold of one manager on a worker, from `open` until its lease is over or another manager comes.

    Parameters
    ----------
    order : Order
        What the manager has opened it with.
    campaign : CampaignSettings
        Its settings.
    slots : SharedSlots
        What it drives from now on.
    draining : Event
        Set when the worker takes no more work.
    lease : Lease, optional
        The one under which goes on what runs; a new one if not given.
    """

    def __init__(
        self,
        order: Order,
        campaign: CampaignSettings,
        slots: SharedSlots,
        draining: Event,
        lease: Lease | None = None,
    ) -> None:
        self.id = order.session
        self.owner = order.owner
        self.campaign_id = order.campaign_id
        self.epoch = order.epoch
        self.slots = slots
        self.over = Event()
        self.running: tuple[Attempt, ...] = slots.hand_over(self)
        self._work = _work(order, campaign)
        self._draining = draining
        self._lease = lease or Lease(order.lease, _now())
        self._one_call = Lock()
        self._answer: tuple[int, dict[str, Any]] = (0, {})

    @property
    def left(self) -> float:
        """Seconds until its lease is over; none or less when it is."""
        return self._lease.left(_now())

    @property
    def grace(self) -> float:
        """Seconds that what runs gets to end by itself when the lease is over."""
        return _GRACE_PART * self._lease.seconds

    def goes_on_with(self, order: Order, campaign: CampaignSettings) -> bool:
        """Whether another manager, who was started again, may go on with what this one has begun."""
        same = self.campaign_id == order.campaign_id and self._work == _work(order, campaign)
        return same and self.left > 0 and self.slots.work

    def reopened(self, seconds: float) -> Lease:
        """The lease for whoever goes on with what runs; a call that is still being answered here cannot touch it."""
        lease = copy(self._lease)
        lease.reopened(seconds, _now())
        return lease

    def exchange(self, call: Call) -> dict[str, Any]:
        """Answer a call, once: the same number again gets the same answer again.

        Raises
        ------
        BackendError
            If the number is neither that of the call before nor the next.
        SessionError
            If another session has taken over what runs.
        WorkerEndedError
            If the slots cannot work, or have been closed.
        """
        with self._one_call:
            number, answer = self._answer
            if call.number == number:
                return answer
            if call.number != number + 1:
                raise BackendError(f"call {call.number} came after call {number}: it was long on its way, and is void")
            self._lease.called(call.number, _now())
            answer = self._begin_nothing(call) if self._draining.is_set() and call.begin else self._exchange(call)
            self._lease.answered(call.number, _now())
            self._answer = (call.number, answer)
            return answer

    def _exchange(self, call: Call) -> dict[str, Any]:
        # Its lease is renewed by the next call.
        wait = min(call.wait, _LONGEST_WAIT, _WAIT_PART * self._lease.seconds)
        outcomes = self.slots.exchange(self, call.assignments, call.to_cancel, wait)
        return {"outcomes": [to_wire(outcome) for outcome in outcomes], "draining": self._draining.is_set()}

    def _begin_nothing(self, call: Call) -> dict[str, Any]:
        refused = [attempt for assignment in call.assignments for attempt in assignment]
        outcomes = [Outcome(attempt, "lost", error="the worker is being stopped") for attempt in refused]
        outcomes += self.slots.exchange(self, [], call.to_cancel, 0.0)
        return {"outcomes": [to_wire(outcome) for outcome in outcomes], "draining": True}


class Sessions:
    """The sessions of one worker, one after the other, and the slots that they share.

    Parameters
    ----------
    make_slots : SlotMaker
    draining : Event
        Set when the worker takes no more work.
    """

    def __init__(self, make_slots: SlotMaker, draining: Event) -> None:
        self.current: Session | None = None
        self.slots: SharedSlots | None = None
        self._make_slots = make_slots
        self._draining = draining
        self._latest: dict[str, tuple[int, int]] = {}
        # Whoever holds it may be seconds about ending what runs.
        self._lock = Lock()

    def admit(self, order: Order) -> None:
        """Refuse a manager that has been overtaken; an epoch that was seen counts, whatever becomes of its order.

        Raises
        ------
        WorkerRefusedError
            If it has been, or the worker is being stopped.
        """
        with self._lock:
            self._admit(order)

    def begin(self, order: Order, campaign: CampaignSettings) -> Session:
        """Begin a session; what runs goes on if it may, or else is ended first.

        Raises
        ------
        WorkerRefusedError
            As `admit` does.
        """
        with self._lock:
            self._admit(order)
            before, lease = self.current, None
            if before is not None and before.goes_on_with(order, campaign):
                before.over.set()
                slots, lease = before.slots, before.reopened(order.lease)
            else:
                self._end(GRACE)
                slots = self.slots = self._make_slots(campaign, order.settings, order.first_years, self._may_publish)
            session = self.current = Session(order, campaign, slots, self._draining, lease)
        Thread(target=self._watch, args=(session,), name="stormtracks-lease", daemon=True).start()
        return session

    def find(self, id: str) -> Session:
        """The session of this id.

        Raises
        ------
        SessionError
            If it is over: what was begun in it has ended, or goes on for a later manager.
        """
        with self._lock:
            if self.current is not None and self.current.id == id:
                self._end_if_over(self.current)
            if self.current is None or self.current.id != id:
                raise SessionError(f"it works for {self.current.owner if self.current else 'nobody'} now")
            if self._is_overtaken(self.current):
                raise SessionError("a later manager of this campaign has come")
            return self.current

    def end(self, id: str) -> None:
        """End a session and what runs for it, unless it is over already."""
        with self._lock:
            if self.current is not None and self.current.id == id:
                self._end(GRACE)

    def slots_without(self, make_slots: Callable[[], SharedSlots | None]) -> SharedSlots | None:
        """The slots as they are, or else those made now, for work without a session."""
        with self._lock:
            if self.slots is None:
                self.slots = make_slots()
            return self.slots

    def close(self) -> None:
        """End all that runs."""
        with self._lock:
            self._end(GRACE)

    def _admit(self, order: Order) -> None:
        epoch, opening = self._latest.get(order.campaign_id, (0, 0))
        if order.epoch < epoch:
            raise WorkerRefusedError(
                f"epoch {order.epoch} of the campaign is over: its manager of epoch {epoch} has come",
                remedy="if that manager works, end this one; if the campaign's record was put back from an older copy, "
                "start the workers again",
            )
        if order.epoch == epoch and order.opening < opening:
            raise WorkerRefusedError(
                f"session {order.opening} of this manager comes after its session {opening}: it was long on its way",
                remedy="none is needed: the manager goes on in the later one",
            )
        if self._draining.is_set():
            raise WorkerRefusedError("it is being stopped", remedy="start it again")
        self._latest[order.campaign_id] = (order.epoch, order.opening)

    def _is_overtaken(self, session: Session) -> bool:
        return session.epoch < self._latest[session.campaign_id][0]

    def _may_publish(self, attempt: Attempt) -> bool:
        """Whether an attempt that a slot is at may move its result into place; takes no lock, as slots wait for it."""
        session = self.current
        if session is None:
            return False
        holds = session.left > 0 and not self._is_overtaken(session)
        if not holds:
            logger.warning("%s may not publish: the lease of %s is over", attempt, session.owner)
        return holds

    def _watch(self, session: Session) -> None:
        while (left := session.left) > 0:
            if session.over.wait(min(left, _STEP)):
                return
        with self._lock:
            self._end_if_over(session)

    def _end_if_over(self, session: Session) -> None:
        if session is self.current and session.left <= 0:
            running = session.slots.at_work
            logger.warning(
                "no word from %s: its lease is over, and what runs for it is ended (%d)", session.owner, running
            )
            self._end(min(session.grace, GRACE))

    def _end(self, grace: float) -> None:
        session, self.current = self.current, None
        slots, self.slots = self.slots, None
        if session is not None:
            session.over.set()
        if slots is not None:
            slots.close(grace)


def _work(order: Order, campaign: CampaignSettings) -> Mapping[str, Any]:
    """What children are started with, and what bounds them; attempts go on only where it is the same."""
    settings = campaign.model_dump(mode="json", exclude={"years", "members", "cluster"})
    return {"hash": order.settings_hash, "first_years": order.first_years, "settings": settings}


def _now() -> float:
    """Seconds of a clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
