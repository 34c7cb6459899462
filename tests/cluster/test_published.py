"""Results as they lie on disk: found where they are intact and current, and why they do not count elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stormtracks.cluster.campaign import run_campaign
from stormtracks.cluster.errors import StoreError
from stormtracks.cluster.published import PublishedTracks
from stormtracks.cluster.status import describe_status, read_status
from stormtracks.grid import Grid
from stormtracks.results import StormtracksResultsManager
from stormtracks.settings.campaign import CampaignSettings
from stormtracks.synthetic import SyntheticEnsemble, write
from stormtracks.tasks import run_task
from tests.cluster.test_manager import Recorder


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A campaign over small data of which one task is complete, and what that has returned."""
    root = tmp_path_factory.mktemp("done")
    grid = Grid(np.linspace(90, -90, 31), np.arange(0, 360, 6.0))
    write(SyntheticEnsemble((2001, 12, 1), (2001, 12, 21), members=1, grid=grid), root / "data", layout="c20v3")
    settings = campaign_in(root).model_dump(mode="json")
    return root, run_task(2001, 1, "vort_track", settings=settings, first_years=[2001])


def campaign_in(root: Path) -> CampaignSettings:
    return CampaignSettings.model_validate(
        {"years": 2001, "data": {"layout": "c20v3", "root": root / "data"}, "results": {"root": root / "out"}}
    )


def published_in(root: Path) -> PublishedTracks:
    return PublishedTracks(StormtracksResultsManager(root / "out"), campaign_in(root), [2001])


@pytest.fixture
def copy(done: tuple[Path, dict[str, Any]], tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """The same to be spoilt; its data have the names, and so the content, of those of before."""
    root = tmp_path / "copy"
    shutil.copytree(done[0], root)
    return root, done[1]


def test_what_is_intact_and_current_is_found_as_it_was_returned(done: tuple[Path, dict[str, Any]]) -> None:
    root, result = done
    published = published_in(root)
    assert published.fault(2001, 1, result) == ""
    found = published.find(2001, 1)
    assert found == {key: value for key, value in result.items() if key != "path"}


def test_a_compressed_year_counts_too(copy: tuple[Path, dict[str, Any]]) -> None:
    root, result = copy
    StormtracksResultsManager(root / "out").compress_year(2001)
    assert published_in(root).fault(2001, 1, result) == ""
    assert published_in(root).find(2001, 1) is not None


def test_a_result_that_is_gone(copy: tuple[Path, dict[str, Any]]) -> None:
    root, result = copy
    StormtracksResultsManager(root / "out").delete_result(2001, 1)
    assert published_in(root).fault(2001, 1, result) == "its result is gone"
    assert published_in(root).find(2001, 1) is None


@pytest.mark.parametrize("at", [0, 100, -100])
def test_a_result_that_is_damaged(copy: tuple[Path, dict[str, Any]], at: int) -> None:
    root, result = copy
    path = root / "out" / result["path"]
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
    assert published_in(root).fault(2001, 1, result)
    path.write_bytes(data[:at])
    assert "damaged" in published_in(root).fault(2001, 1, result)
    assert published_in(root).find(2001, 1) is None


def test_a_result_that_is_another_one(copy: tuple[Path, dict[str, Any]]) -> None:
    root, result = copy
    assert "another" in published_in(root).fault(2001, 1, result | {"sha256": "0" * 64})
    assert "another" in published_in(root).fault(2001, 1, {})


def test_input_that_has_changed(copy: tuple[Path, dict[str, Any]]) -> None:
    root, result = copy
    field = next((root / "data").rglob("VGRD850*.nc"))
    field.write_bytes(field.read_bytes()[:-1] + b"!")
    assert "input has changed" in published_in(root).fault(2001, 1, result)
    assert published_in(root).find(2001, 1) is None


def test_input_that_is_gone_leaves_the_result_and_is_counted(copy: tuple[Path, dict[str, Any]]) -> None:
    root, result = copy
    published = published_in(root)
    next((root / "data").rglob("VGRD850*.nc")).unlink()
    assert published.fault(2001, 1, result) == ""
    assert published.find(2001, 1) == {key: value for key, value in result.items() if key != "path"}
    assert published.unreadable == 2
    assert "another" in published.fault(2001, 1, result | {"sha256": "0" * 64})


def test_a_campaign_whose_input_was_moved_away_keeps_its_results_and_tells(tmp_path: Path) -> None:
    grid = Grid(np.linspace(90, -90, 31), np.arange(0, 360, 6.0))
    write(SyntheticEnsemble((2001, 12, 1), (2002, 1, 10), members=2, grid=grid), tmp_path / "data", layout="c20v3")
    values = campaign_in(tmp_path).model_dump()
    values["run"] |= {"workers": 1, "backend": "local"}
    campaign = CampaignSettings.model_validate(values)
    assert run_campaign(campaign, Recorder()).ok
    assert read_status(tmp_path / "out")["unreadable"] == 0
    # Storms are followed into the next year, whose data are read for that.
    fields = sorted((tmp_path / "data").rglob("VGRD850.2002*.nc"))
    fields[0].rename(tmp_path / "moved")
    fields[1].write_bytes(fields[1].read_bytes()[:-1] + b"!")
    listener = Recorder()
    summary = run_campaign(campaign, listener)
    assert [(one.year, one.ensemble_member) for one in listener.events("again")] == [(2001, 2)]
    assert summary.unreadable == 1
    document = read_status(tmp_path / "out")
    assert (document["years"]["2001"][0], document["unreadable"]) == ("+", 1)
    assert "input not there any more: 1 result not checked" in describe_status(document)
    (tmp_path / "moved").rename(fields[0])
    assert run_campaign(campaign, Recorder()).unreadable == 0
    assert read_status(tmp_path / "out")["unreadable"] == 0


def test_a_record_without_its_results_is_not_deleted_unasked(tmp_path: Path) -> None:
    grid = Grid(np.linspace(90, -90, 31), np.arange(0, 360, 6.0))
    write(SyntheticEnsemble((2001, 12, 1), (2001, 12, 21), members=1, grid=grid), tmp_path / "data", layout="c20v3")
    values = campaign_in(tmp_path).model_dump()
    values["run"] |= {"workers": 1, "backend": "local"}
    assert run_campaign(CampaignSettings.model_validate(values), Recorder()).ok
    shutil.rmtree(tmp_path / "out" / "results")
    values |= {"season": {"start": "12-01", "end": "02-01"}}
    with pytest.raises(StoreError, match="the record of a campaign of other settings"):
        run_campaign(CampaignSettings.model_validate(values), Recorder())
    assert read_status(tmp_path / "out")["state"] == "complete"


def test_a_replacement_that_is_refused_leaves_the_results(copy: tuple[Path, dict[str, Any]]) -> None:
    root, result = copy
    values = campaign_in(root).model_dump() | {"season": {"start": "12-01", "end": "02-01"}}
    values["run"] |= {"store": "json", "workers": 2, "backend": "local"}
    with pytest.raises(StoreError, match="one task at a time"):
        run_campaign(CampaignSettings.model_validate(values), Recorder(), replace=True)
    assert published_in(root).fault(2001, 1, result) == ""
