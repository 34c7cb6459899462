"""Nothing that a campaign file says leads out of the folders that it names."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stormtracks.errors import InputError, ResultsError
from stormtracks.reanalysis import open_archive
from stormtracks.reanalysis.cf import CFArchive
from stormtracks.results import StormtracksResultsManager
from stormtracks.settings.campaign import CampaignSettings, DataSettings, HostSettings

PARTS = st.sampled_from(
    ["..", ".", "/", "*", "**", "a", "x.nc", "~", "\\", "?", "[.]", "[.][.]", "{a,b}", "$HOME", "\0"]
)
PATHS = st.lists(PARTS, max_size=6).map("".join) | st.lists(PARTS, max_size=6).map("/".join)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with files outside it."""
    outside = tmp_path_factory.mktemp("outside")
    for name in ("x.nc", "data/x.nc", "data/a/x.nc", "data/a/a/x.nc"):
        (outside / name).parent.mkdir(parents=True, exist_ok=True)
        (outside / name).touch()
    return outside / "data"


@given(pattern=PATHS)
def test_no_pattern_leads_out_of_the_data_root(root: Path, pattern: str) -> None:
    try:
        archive = open_archive(DataSettings(layout="cf", root=root, pattern=pattern))
    except InputError as error:
        assert error.permanent and error.remedy
        return
    assert isinstance(archive, CFArchive)
    assert archive.files
    assert all(path.resolve().is_relative_to(root) for path in archive.files)


@pytest.mark.parametrize("pattern", ["../x.nc", "a/../../x.nc", "/etc/*", "a/.."])
def test_one_that_would_is_refused_by_its_name(root: Path, pattern: str) -> None:
    with pytest.raises(InputError, match="leads out of") as caught:
        open_archive(DataSettings(layout="cf", root=root, pattern=pattern))
    assert repr(pattern) in caught.value.what


@given(task=PATHS | st.text(max_size=20))
def test_no_task_leads_out_of_the_results_root(task: str) -> None:
    try:
        folder = StormtracksResultsManager("/nowhere/out", task).folder
    except ResultsError:
        return
    assert folder.parent == Path("/nowhere/out/results")
    assert folder.name == task and task.isascii() and task.isidentifier()


@given(name=PATHS | st.text(max_size=20))
def test_names_of_campaigns_and_hosts_are_no_paths(name: str) -> None:
    for make in (lambda: CampaignSettings(name=name), lambda: HostSettings(name=name)):
        try:
            make()
        except ValidationError:
            continue
        assert name.isascii() and not set(name) & set("/\\\0\n $~*") and name[0].isalnum()
        assert Path("/nowhere", name).parent == Path("/nowhere")


def test_digits_of_other_scripts_are_no_years(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "vort_track"
    (folder / "２００１").mkdir(parents=True)
    (folder / "２００２.nc").touch()
    (folder / "２００１" / "m００１.nc").touch()
    results = StormtracksResultsManager(tmp_path)
    assert results.list_years() == []
    assert results.clean() == []
