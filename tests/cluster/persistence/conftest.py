"""A folder in memory, for tests that write thousands of files and ask nothing of the disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory; where there is none, one on the disk."""
    place = Path("/dev/shm")
    root = place if os.access(place, os.W_OK) else tmp_path_factory.getbasetemp()
    with tempfile.TemporaryDirectory(dir=root) as folder:
        yield Path(folder)
