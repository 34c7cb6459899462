"""The task of `measure_overhead.py`: none."""

from __future__ import annotations

from typing import Any


def run_task(year: int, ensemble_member: int, task: str, **arguments: Any) -> dict[str, int]:
    """Do nothing, for a slot."""
    return {"tracks": 1}


def do_nothing(number: int) -> int:
    """Do nothing, for the executors."""
    return number
