"""The tests that inject faults, again and again: what ``scripts/stress`` runs."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.faults.campaigns import ROOT
from tests.faults.test_soak import SEEDS

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run rounds until one fails or all have passed; 0 if all have."""
    parser = argparse.ArgumentParser(
        prog="scripts/stress",
        description="Run the tests that inject faults several times in a row. Each round has random faults of its own. "
        "The first round that fails ends it; its folder is kept. The last line is JSON.",
        epilog="What else is given goes to pytest: scripts/stress --rounds 5 -k f15",
    )
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="first of the random faults; default: 0")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where the folder of a failed round goes")
    arguments, for_pytest = parser.parse_known_args(argv)
    keep = arguments.keep or Path(tempfile.mkdtemp(prefix="stormtracks-stress-"))
    rounds: list[dict[str, Any]] = []
    for number in range(arguments.rounds):
        rounds.append(_run_round(number, arguments.seed + number * SEEDS, keep.absolute(), for_pytest))
        done = rounds[-1]
        words = f"{done['passed']} passed" if done["ok"] else f"FAILED, see {done['folder']}"
        first, last = done["seeds"]
        took = f"{done['seconds']:.0f} s, seeds {first}-{last}"
        print(f"round {number + 1} of {arguments.rounds}: {words}; {took}", flush=True)
        if not done["ok"]:
            print(f"  once more: {done['again']}")
            break
    ok = len(rounds) == arguments.rounds and all(done["ok"] for done in rounds)
    print(json.dumps({"ok": ok, "rounds": rounds}))
    return 0 if ok else 1


def _run_round(number: int, seed: int, keep: Path, for_pytest: Sequence[str]) -> dict[str, Any]:
    """Run all tests once; its folder is removed if they pass."""
    folder = keep / f"round-{number + 1}"
    folder.mkdir(parents=True)
    command = ["-m", "pytest", "tests/faults", "-q", "--basetemp", str(folder / "tests"), *for_pytest]
    began = time.monotonic()
    with (folder / "pytest.log").open("w+", encoding="utf-8") as log:
        environment = os.environ | {"FAULTS_FIRST_SEED": str(seed)}
        status = subprocess.call([sys.executable, *command], cwd=ROOT, env=environment, stdout=log, stderr=log)
        log.seek(0)
        passed = re.findall(r"(\d+) passed", log.read())
    done: dict[str, Any] = {
        "ok": status == 0,
        "passed": int(passed[-1]) if passed else 0,
        "seconds": round(time.monotonic() - began, 1),
        "seeds": [seed, seed + SEEDS - 1],
    }
    if status == 0:
        shutil.rmtree(folder)
    else:
        again = f"FAULTS_FIRST_SEED={seed} scripts/venv test python {' '.join(command)}"
        done |= {"folder": str(folder), "again": again}
    return done


if __name__ == "__main__":
    sys.exit(main())
