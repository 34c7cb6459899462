"""measure_imports.py RUNS: where the imports of each kind of process spend their time; prints JSON, in milliseconds.

Python tells how long each module took, those apart that it imports in turn. Of so many runs the shortest counts for
each module, as others only add to it. Packages that a package brings along are listed under their own names where they
take long, else under `other packages`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict

PROCESSES = {
    "manager": (
        "stormtracks.settings.load",
        "stormtracks.cluster.board",
        "stormtracks.cluster.campaign",
        "stormtracks.cluster.embedded",
    ),
    "worker": ("stormtracks.cluster.pyro_worker",),
    "child of a slot": ("stormtracks.cluster.backends.child", "stormtracks.tasks", "stormtracks.reanalysis.cf", "h5py"),
}
SHOWN = ("Pyro5", "h5py", "netCDF4", "numpy", "pydantic", "scipy", "stormtracks")


def main() -> None:
    """Measure each kind."""
    found: dict[str, float] = {}
    for process, modules in PROCESSES.items():
        runs = [milliseconds(modules) for _ in range(int(sys.argv[1]))]
        shortest = {name: min(run.get(name, taken) for run in runs) for name, taken in runs[0].items()}
        groups: defaultdict[str, float] = defaultdict(float)
        for module, taken in shortest.items():
            groups[group_of(module)] += taken
        found |= {f"{process}: {name}": taken for name, taken in sorted(groups.items())}
        found[f"{process}: all"] = sum(groups.values())
    print(json.dumps(found))


def milliseconds(modules: tuple[str, ...]) -> dict[str, float]:
    """What each module took that these bring in, those apart that it brings in itself."""
    command = [sys.executable, "-X", "importtime", "-c", f"import {', '.join(modules)}"]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr
    lines = [line.removeprefix("import time:").split("|") for line in told.splitlines() if line.count("|") == 2]
    return {name.strip(): float(own) / 1e3 for own, _, name in lines if own.strip().isdigit()}


def group_of(module: str) -> str:
    """What a module is shown as."""
    package = module.partition(".")[0]
    if package in sys.stdlib_module_names or package.startswith("_"):
        return "standard library"
    if package.startswith("pydantic"):
        return "pydantic"
    return package if package in SHOWN else "other packages"


if __name__ == "__main__":
    main()
