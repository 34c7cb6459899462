"""What all tests share: fixed random cases, no display, the real data, and no skips where none is due."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import settings

os.environ["MPLBACKEND"] = "Agg"

settings.register_profile("fixed", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("fixed")

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

_SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a test that is skipped has failed")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real input beside the checkout."""
    if not _SHARED_DATA.is_dir():
        pytest.skip(f"no real input at {_SHARED_DATA}")
    return _SHARED_DATA


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _without_skip((yield), item.config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _without_skip((yield), collector.config)


def _without_skip(report: Report, config: pytest.Config) -> Report:
    expected = hasattr(report, "wasxfail")
    if report.skipped and not expected and config.getoption("--no-skips"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"not run, and --no-skips allows none: {reason}"
    return report
