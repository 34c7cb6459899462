"""A worker whose tasks are toys, as a program: NAME CAMPAIGN NAMESERVER SLOTS, and its surroundings in the environment.

``TOY`` names a function of `toy_tasks`, or is ``unloadable``; ``TOY_ARGUMENTS`` are its arguments as JSON, and
``TOY_VERSIONS`` and ``TOY_FACTS`` what the worker pretends to compute with. ``TOY_PARENT`` is the process to end with.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from stormtracks.cluster import pyro_worker
from stormtracks.cluster.wire.transport import parse_address
from tests.cluster import toy_bundles, toy_tasks

if __name__ != "__main__" and os.environ.get("TOY") == "unloadable":
    raise ImportError("no library")


def work(
    year: int, ensemble_member: int, task: str, *, settings: Any, first_years: Any, confirm: Callable[[], None]
) -> dict[str, Any]:
    function = getattr(toy_tasks, os.environ["TOY"])
    arguments = json.loads(os.environ.get("TOY_ARGUMENTS", "{}"))
    result: dict[str, Any] = function(year, ensemble_member, task, **arguments, confirm=confirm)
    return result


def work_on_all(attempts: toy_bundles.Attempts, *, settings: Any, first_years: Any, **how: Any) -> toy_bundles.Found:
    yield from toy_bundles.chosen(attempts, **how, **json.loads(os.environ.get("TOY_ARGUMENTS", "{}")))


def main() -> None:
    name, campaign, nameserver, slots = sys.argv[1:]
    logging.basicConfig(level=logging.INFO)
    versions = pyro_worker.versions() | json.loads(os.environ.get("TOY_VERSIONS", "{}"))
    facts = pyro_worker.facts() | json.loads(os.environ.get("TOY_FACTS", "{}"))
    pyro_worker.versions = lambda: versions
    pyro_worker.facts = lambda: facts
    pyro_worker.REGISTER_EVERY = 0.1
    worker = pyro_worker.PyroWorker(name, slots=int(slots), task_function="tests.cluster.toy_worker:work")
    parent = json.loads(os.environ.get("TOY_PARENT", "null"))
    pyro_worker.run_worker(worker, campaign, parse_address(nameserver), parent=parent)


if __name__ == "__main__":
    main()
