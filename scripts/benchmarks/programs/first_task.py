"""first_task.py: the task of `measure_start.py`, which tells when it began; it needs all that a real one needs."""

from __future__ import annotations

import time
from typing import Any

import stormtracks.tasks  # noqa: F401


def run_task(year: int, ensemble_member: int, task: str, **arguments: Any) -> dict[str, float]:
    """Tell the time."""
    return {"now": time.monotonic()}
