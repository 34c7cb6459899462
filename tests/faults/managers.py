"""Managers to which something happens inside, as a program: CAMPAIGN.toml and options, as `pyro_manager` takes them.

FAULTS_KILL is ``before:3``: the manager kills itself just before its third commit; or ``after:3``, just after it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from itertools import count

from stormtracks.cluster import pyro_manager
from stormtracks.cluster.ledger import Ledger

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Manage a campaign."""
    if "FAULTS_KILL" in os.environ:
        when, _, number = os.environ["FAULTS_KILL"].partition(":")
        _die_at(when, int(number))
    return pyro_manager.main(arguments)


def _die_at(when: str, number: int) -> None:
    """Have this process killed at one of the commits that it makes."""
    save, commits = Ledger._save, count(1)

    def save_or_die(ledger: Ledger) -> None:
        here = next(commits) == number
        if here and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        save(ledger)
        if here and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)

    Ledger._save = save_or_die  # type: ignore[assignment,method-assign]


if __name__ == "__main__":
    sys.exit(main())
