"""A worker whose tasks can have faults, as a program: NAME CAMPAIGN NAMESERVER SLOTS FUNCTION; see `tasks`.

FAULTS_PRETEND is ``numpy=0.1``, a version that it pretends to have, or ``settings=0``, what settings come to there.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from stormtracks.cluster import pyro_worker
from stormtracks.cluster.wire.transport import parse_address
from stormtracks.settings.campaign import CampaignSettings

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Serve until told to end; what becomes of managers is logged to stderr."""
    name, campaign, nameserver, slots, function = arguments
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    os.environ["FAULTS_WORKER"] = name
    pyro_worker.REGISTER_EVERY = 0.2  # type: ignore[attr-defined]
    if "FAULTS_PRETEND" in os.environ:
        _pretend(*os.environ["FAULTS_PRETEND"].split("="))
    worker = pyro_worker.PyroWorker(name, slots=int(slots), bundle_function=f"tests.faults.tasks:{function}")
    pyro_worker.run_worker(worker, campaign, parse_address(nameserver))
    return 0


def _pretend(name: str, value: str) -> None:
    """Be another installation: with another version of something, or one that reads settings in another way."""
    if name == "settings":
        CampaignSettings.settings_hash = property(lambda campaign: value)  # type: ignore[assignment]
    else:
        there = pyro_worker.versions() | {name: value}
        pyro_worker.versions = lambda: there


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
