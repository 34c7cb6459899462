"""What keeps a campaign from being done is told within a bound, with the remedy, and never waited for in silence."""

from __future__ import annotations

import re
import socket
import time

import pytest

from tests.faults.campaigns import TASKS, Trial
from tests.faults.invariant import check_nothing_left, check_published

WITHIN = 30.0
"""Seconds; far more than any of these needs, and far less than what a user would call a hang."""


def ended_with_a_reason(trial: Trial, *arguments: str, status: int) -> str:
    """Run a manager that cannot do its work; what it says for it."""
    began = time.monotonic()
    manager = trial.start_manager(*arguments)
    manager.end(status)
    assert time.monotonic() - began < WITHIN
    return manager.events("end")[-1]["problem"] if status == 3 else manager.complained


def test_f12_no_worker(trial: Trial) -> None:
    """Nobody registers."""
    trial.describe(cluster={"patience": 1.0})
    assert "no worker came within 1 s" in ended_with_a_reason(trial, status=3)
    check_published(trial, failed=TASKS)
    check_nothing_left(trial)


def test_f12_no_name_server(trial: Trial) -> None:
    """Nobody listens where the name server should be."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = f"127.0.0.1:{free.getsockname()[1]}"
    trial.describe(cluster={"patience": 1.0, "nameserver": place})
    problem = ended_with_a_reason(trial, status=3)
    assert f"name server: nobody listens on {place}" in problem
    check_nothing_left(trial)


@pytest.mark.parametrize(
    ("pretended", "both"),
    [("numpy=0.1", r"numpy 0\.1 there and \d+\.\S+ here"), ("settings=0", r"settings hash.* 0 .*[0-9a-f]{16}")],
)
def test_f12_a_worker_that_does_not_fit(trial: Trial, pretended: str, both: str) -> None:
    """Another version or other settings: it is refused, and both values are named."""
    trial.describe(cluster={"patience": 2.0})
    trial.start_workers("north", FAULTS_PRETEND=pretended)
    problem = ended_with_a_reason(trial, status=3)
    assert re.search(both, problem), problem
    check_published(trial, failed=TASKS)
    check_nothing_left(trial)


def test_f12_an_ssh_host_that_is_not_there(trial: Trial) -> None:
    """`pyro_starter` says which host cannot be reached, and does not wait for it for ever."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    hosts = f'[[cluster.hosts]]\nname = "nowhere.invalid"\n[[cluster.hosts]]\nname = "127.0.0.1"\nport = {port}\n'
    path = trial.describe(cluster={"connect_timeout": 3.0})
    path.write_text(path.read_text(encoding="utf-8") + hosts, encoding="utf-8")
    began = time.monotonic()
    starter = trial.start("starter", "stormtracks.cluster.pyro_starter", path)
    starter.end(1)
    assert time.monotonic() - began < WITHIN
    for name in ("nowhere.invalid", "127.0.0.1"):
        assert re.search(rf"^{name} +failed: .+\n +remedy: ", starter.said, re.MULTILINE), starter.said
