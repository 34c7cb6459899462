"""What travels between manager and worker: plain JSON values, each checked for type and bounds by whoever receives it.

Nobody's word is trusted to be well formed: what is not is refused by name, before anything is done with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from stormtracks.cluster.backends.base import Running
from stormtracks.cluster.errors import ClusterError
from stormtracks.cluster.process import Process
from stormtracks.cluster.pyro_task import TASKS, Attempt, Outcome

__all__ = [
    "Answer",
    "Call",
    "Greeting",
    "Opened",
    "Order",
    "ProcessThere",
    "Work",
    "check",
    "check_running",
    "from_attempt",
    "to_process",
    "to_running",
    "to_wire",
]

_LONGEST_RESULT = 40_000
"""Characters; a child's answer is shorter."""
_LONGEST_REASON = 20_000
_MOST = 100_000
"""Attempts in one message."""

_Kind = TypeVar("_Kind", bound=BaseModel)

_Count = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
_Number = Annotated[int, Field(strict=True, gt=0, lt=2**31)]
_Year = Annotated[int, Field(strict=True, ge=0, lt=10**6)]
_Member = Annotated[int, Field(strict=True, ge=0, lt=10**6)]
_Seconds = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
_Text = Annotated[str, Field(strict=True, max_length=1_000)]
_Id = Annotated[str, Field(strict=True, pattern=r"^[0-9A-Za-z-]{1,64}$")]
_Task = Annotated[str, Field(strict=True, pattern=f"^({'|'.join(TASKS)})$")]
_Attempt = tuple[_Number, _Year, _Member, _Task]
_Attempts = Annotated[list[_Attempt], Field(max_length=_MOST)]
_Outcome = tuple[
    _Attempt,
    Literal["complete", "failure", "timeout", "lost"],
    Annotated[str, Field(strict=True, max_length=_LONGEST_RESULT)],
    Annotated[str, Field(strict=True, max_length=_LONGEST_REASON)],
    _Seconds,
    Annotated[bool, Field(strict=True)],
    Annotated[int, Field(strict=True, ge=-256, le=256)] | None,
]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProcessThere(_Message):
    """A process on another machine, perhaps."""

    pid: _Number
    started: _Count
    boot: _Text

    @property
    def process(self) -> Process:
        """That process."""
        return Process(self.pid, self.started, self.boot)


class Greeting(_Message):
    """A worker's answer to `hello`: who it is, what it computes with, and whom it works for."""

    name: _Text
    host: _Text
    pid: _Number
    slots: Annotated[int, Field(strict=True, ge=1, le=1024)]
    incarnation: _Id
    versions: dict[_Text, _Text]
    facts: dict[_Text, _Text]
    process: ProcessThere
    draining: Annotated[bool, Field(strict=True)]
    owner: _Text
    campaign_id: Annotated[str, Field(strict=True, max_length=64)]
    epoch: _Count


class Order(_Message):
    """What a manager opens a session with; `opening` counts its sessions, so that one that comes late is known."""

    session: _Id
    owner: _Text
    campaign_id: _Id
    epoch: Annotated[int, Field(strict=True, ge=1, lt=2**31)]
    opening: Annotated[int, Field(strict=True, ge=1, lt=2**53)]
    settings: dict[str, Any]
    settings_hash: Annotated[str, Field(strict=True, pattern="^[0-9a-f]{16}$")]
    first_years: Annotated[list[_Year], Field(max_length=10_000)]
    proof: Annotated[str, Field(strict=True, pattern=r"^\.stormtracks-proof-[0-9a-f]{16}$")]
    fingerprint: _Text
    lease: Annotated[float, Field(gt=0, le=1e7, allow_inf_nan=False)]


class Opened(_Message):
    """A worker's answer to an order: the attempts that it is at already."""

    running: _Attempts

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Those attempts."""
        return tuple(Attempt(*attempt) for attempt in self.running)


class Call(_Message):
    """The arguments of `exchange`."""

    session: _Id
    number: _Number
    begin: Annotated[list[_Attempts], Field(max_length=_MOST)]
    cancel: _Attempts
    wait: _Seconds

    @property
    def assignments(self) -> list[tuple[Attempt, ...]]:
        """What is to be begun."""
        return [tuple(Attempt(*attempt) for attempt in assignment) for assignment in self.begin]

    @property
    def to_cancel(self) -> list[Attempt]:
        """What is to be ended."""
        return [Attempt(*attempt) for attempt in self.cancel]


class Work(_Message):
    """The arguments of `do_work`."""

    year: _Year
    ensemble_member: _Member
    task: _Text


class Answer(_Message):
    """A worker's answer to `exchange`."""

    outcomes: Annotated[list[_Outcome], Field(max_length=_MOST)]
    draining: Annotated[bool, Field(strict=True)]

    @property
    def ended(self) -> list[Outcome]:
        """What has ended.

        Raises
        ------
        ClusterError
            If a result is no JSON object.
        """
        return [_outcome(*one) for one in self.outcomes]


class _Under(_Message):
    attempt: tuple[Annotated[int, Field(strict=True)], _Year, _Member, _Task]
    slot: _Number
    seconds: _Seconds


_RUNNING = TypeAdapter(Annotated[list[_Under], Field(max_length=_MOST)])


def check(kind: type[_Kind], document: object, what: str) -> _Kind:
    """What a message says, if it is well formed.

    Raises
    ------
    ClusterError
        If it is not: `what` it is, the first place that is wrong, and why.
    """
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise _malformed(what, error) from error


def _malformed(what: str, error: ValidationError) -> ClusterError:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))[:200] or "all of it"
    return ClusterError(
        f"malformed {what}: {place}: {first['msg'][:200]}",
        remedy="install the same stormtracks on both sides, and see who else can reach this address",
    )


def from_attempt(attempt: Attempt) -> list[Any]:
    """An attempt as a list of plain values."""
    return [attempt.number, attempt.year, attempt.ensemble_member, attempt.task]


def to_wire(outcome: Outcome) -> list[Any]:
    """An outcome as a list of plain values; its result as text, so that nobody on the way reads meaning into it."""
    return [
        from_attempt(outcome.attempt),
        outcome.status,
        json.dumps(dict(outcome.result)),
        outcome.error,
        outcome.seconds,
        outcome.permanent,
        outcome.exit_code,
    ]


def _outcome(attempt: Sequence[Any], status: str, result: str, *rest: Any) -> Outcome:
    try:
        found = json.loads(result)
    except (ValueError, RecursionError) as error:
        raise ClusterError(f"malformed outcome: its result is no JSON: {type(error).__name__}") from error
    if not isinstance(found, dict):
        raise ClusterError("malformed outcome: its result is no JSON object")
    return Outcome(Attempt(*attempt), status, found, *rest)


def to_running(running: Sequence[Running]) -> list[dict[str, Any]]:
    """Attempts under way as plain values."""
    return [{"attempt": from_attempt(one.attempt), "slot": one.slot, "seconds": one.seconds} for one in running]


def check_running(document: object) -> tuple[Running, ...]:
    """The attempts under way that `to_running` told.

    Raises
    ------
    ClusterError
        If they are malformed.
    """
    try:
        found = _RUNNING.validate_python(document)
    except ValidationError as error:
        raise _malformed("list of what runs", error) from error
    return tuple(Running(Attempt(*one.attempt), one.slot, one.seconds) for one in found)


def to_process(process: Process) -> Mapping[str, Any]:
    """A process as plain values."""
    return {"pid": process.pid, "started": process.started, "boot": process.boot}
