"""A serial run to compare with, and a folder for each campaign that is disturbed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.faults.campaigns", "tests.faults.invariant")

from tests.cluster.conftest import namespaced  # noqa: E402  (hosts that can be cut off)
from tests.faults.campaigns import Serial, Trial, serial_run  # noqa: E402  (to be rewritten first)
from tests.faults.nursery import Nursery  # noqa: E402

__all__ = ["namespaced"]


@pytest.fixture(scope="session")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Serial:
    """What must come out; made once."""
    return serial_run(tmp_path_factory.mktemp("serial"))


@pytest.fixture(scope="session")
def nursery() -> Nursery:
    """Where programs are forked that need not be started anew."""
    return Nursery()


@pytest.fixture
def trial(tmp_path: Path, serial: Serial, nursery: Nursery) -> Iterator[Trial]:
    """A campaign on loopback whose name server is in this process."""
    with Trial(tmp_path, serial, nursery) as trial:
        trial.listen()
        yield trial
