"""`scripts/stress` tells of each round, ends at the first that fails, and keeps what that has left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults import stress


def test_a_round_that_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stress.main(["--rounds", "1", "--keep", str(tmp_path), "-k", "documented"]) == 0
    line, document = capsys.readouterr().out.splitlines()
    assert line.startswith("round 1 of 1: 1 passed; ")
    told = json.loads(document)
    assert told["ok"]
    assert told["rounds"][0]["seeds"] == [0, 29]
    assert list(tmp_path.iterdir()) == []


def test_a_round_that_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # No test is called like this, which pytest takes for a failure.
    assert stress.main(["--rounds", "3", "--seed", "90", "--keep", str(tmp_path), "-k", "nothing_of_this_name"]) == 1
    line, again, document = capsys.readouterr().out.splitlines()
    assert line.startswith(f"round 1 of 3: FAILED, see {tmp_path / 'round-1'}; ")
    assert "FAULTS_FIRST_SEED=90 " in again
    told = json.loads(document)
    assert (told["ok"], len(told["rounds"])) == (False, 1)
    assert "deselected" in (tmp_path / "round-1" / "pytest.log").read_text(encoding="utf-8")
