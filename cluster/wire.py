"""Attempts and outcomes as the plain values that travel between manager and worker."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from stormtracks.cluster.pyro_task import Attempt, Outcome

__all__ = ["from_attempt", "from_wire", "to_wire"]


def from_attempt(attempt: Attempt) -> list[Any]:
    """An attempt as a list of plain values."""
    return [attempt.number, attempt.year, attempt.ensemble_member, attempt.task]


def to_wire(outcome: Outcome) -> list[Any]:
    """An outcome as a list of plain values; its result as text, so that nobody on the way reads meaning into it."""
    result = json.dumps(dict(outcome.result))
    return [from_attempt(outcome.attempt), outcome.status, result, outcome.error, outcome.seconds]


def from_wire(document: Sequence[Any]) -> Outcome:
    """The outcome that `to_wire` made a list of."""
    attempt, status, result, error, seconds = document
    return Outcome(Attempt(*attempt), status, json.loads(result), error, seconds)
