"""How much a schedule puts up with: how often tasks may fail or be lost, and how long workers may be silent.

The rules, with the numbers of `Rules`:

- *Leases.* A worker holds what it was given until its lease is over: so long after it was last heard. What it held then
  shows a timeout and goes out again, before all others. It does so at once if the worker has surely ended. Until it has
  gone out again, the attempt that was lost may still say that it has completed, and is believed: it held its lease when
  it published, and nobody has been given the task since.
- *Failures* count against the task and the worker. The task shows its failure, rests a while, longer each time, and
  goes out again after all fresh ones; to another worker as long as another one can be used. It is given up after
  `max_attempts` failures, or at once if any attempt would fail.
- *Losses* with a worker never count as failures. A task that is lost `max_losses` times is given up, as a failure.
  Tasks that were lost twice are not given to the same worker, so that one that breaks its workers does not drag others
  along. What is cancelled, or what a worker that lives has let go, counts nothing.
- *Bundles.* As many outstanding tasks of one year as a bundle may hold go out together, or that were lost; fewer of
  them while slots would have nothing to do. What has failed, or is suspected of breaking workers, goes alone; what came
  back without an answer again and again goes with half as many each time.
- *Quarantine.* A worker that fails `worker_strikes` different tasks without completing one gets no more work once there
  is another one to use. What it failed in that row is forgiven, and what it fails from then on; tasks that were given
  up for it come back. Another incarnation of it starts afresh. The failures of one bundle count as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from stormtracks.cluster.errors import ClusterError

__all__ = ["Rules"]

LONGEST_DELAY = 300.0
"""Seconds before a failed task is tried again, at most."""
_MOST_DOUBLINGS = 60


@dataclass(frozen=True, slots=True)
class Rules:
    """What a schedule puts up with.

    Parameters
    ----------
    max_attempts : int
        How often a task may fail or time out before it is given up.
    max_losses : int
        How often a task may be lost with its worker before it is given up.
    worker_strikes : int
        How many different tasks a worker may fail in a row before it gets no more, if there is another worker.
    retry_delay : float
        Seconds before a task that has failed once is tried again, on average; doubles each time, up to
        `LONGEST_DELAY`. Drawn from half to one and a half of that, so that what failed together is spread out.
    lease : float
        Seconds after the last word of a worker until what it holds goes out again.
    seed : int
        Of the random numbers.

    Raises
    ------
    ClusterError
        If one of them is too low.
    """

    max_attempts: int = 2
    max_losses: int = 5
    worker_strikes: int = 3
    retry_delay: float = 0.0
    lease: float = inf
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("max_attempts", 1), ("max_losses", 1), ("worker_strikes", 1), ("retry_delay", 0.0)):
            if not getattr(self, name) >= least:
                raise ClusterError(f"{name} is {getattr(self, name)}", remedy=f"let it be at least {least}")
        if not self.lease > 0:
            raise ClusterError(f"lease is {self.lease} s", remedy="let it be above 0")

    def delay(self, failures: int, jitter: float) -> float:
        """Seconds before a task that has failed so often is tried again; `jitter` is between 0 and 1."""
        doubled = self.retry_delay * 2.0 ** min(failures - 1, _MOST_DOUBLINGS)
        return min(doubled * (0.5 + jitter), LONGEST_DELAY)
