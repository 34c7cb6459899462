"""What each process imports before its work begins, and what it does without; scripts/bench tells how long it takes."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from stormtracks.synthetic import SyntheticEnsemble, write

CLUSTER = {"Pyro5", "cryptography", "fabric", "paramiko", "rich", "sqlite3"}
"""What only the parts of a cluster need, or not even those on one machine."""
PICTURES = {"cartopy", "matplotlib"}
SCIENCE = {"h5py", "netCDF4", "scipy", "stormtracks.tasks", "xarray"}
"""What only tracking needs."""


def imported_by(program: str, *arguments: str | Path) -> set[str]:
    """The modules that a program has imported when it ends; what it prints does not matter."""
    program += "\nimport sys\nprint(sorted(sys.modules))"
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return set(ast.literal_eval(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["track", "--help"], ["store", "--help"]])
def test_help_needs_nothing_that_is_not_pythons(arguments: list[str]) -> None:
    ask = f"from stormtracks.cli import main\ntry:\n    main({arguments!r})\nexcept SystemExit:\n    pass"
    loaded = imported_by(ask)
    assert "stormtracks.cli" in loaded
    foreign = {name.partition(".")[0] for name in loaded - imported_by("")} - sys.stdlib_module_names
    assert foreign == {"stormtracks"}
    assert not loaded & {"asyncio", "concurrent.futures", "multiprocessing", "sqlite3", "ssl", "subprocess"}


def test_a_worker_begins_without_science_and_without_certificates() -> None:
    loaded = imported_by("import stormtracks.cluster.pyro_worker")
    assert "Pyro5" in loaded
    assert not loaded & ((CLUSTER - {"Pyro5"}) | PICTURES | SCIENCE)


def test_the_child_of_a_slot_brings_the_science_and_nothing_of_the_cluster() -> None:
    child = "from stormtracks.cluster.backends import child\n"
    assert not imported_by(child) & (CLUSTER | PICTURES | SCIENCE | {"numpy", "pydantic"})
    loaded = imported_by(child + "child._load('stormtracks.tasks:run_task')")
    assert {"netCDF4", "numpy", "pydantic", "stormtracks.tasks"} <= loaded
    assert not loaded & (CLUSTER | PICTURES | {"xarray"})


def test_a_manager_leaves_tracking_and_certificates_to_those_who_need_them(tmp_path: Path) -> None:
    write(SyntheticEnsemble(end=(2001, 12, 5), members=1), tmp_path / "data", layout="c20")
    campaign = tmp_path / "campaign.toml"
    campaign.write_text(f"years = 2001\n[data]\nroot = {str(tmp_path / 'data')!r}\n", encoding="utf-8")
    run = (
        "import sys\nfrom stormtracks.cli import main\n"
        "assert main(['run', sys.argv[1], '--out', sys.argv[2], '--workers', '1', '--quiet']) == 0"
    )
    loaded = imported_by(run, campaign, tmp_path / "out")
    assert {"Pyro5", "stormtracks.cluster.manager"} <= loaded
    assert not loaded & ({"cryptography", "fabric", "h5py", "paramiko", "scipy", "xarray"} | PICTURES)
