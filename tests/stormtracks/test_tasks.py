"""Tasks as a worker runs them: published once and whole whenever they are killed or stopped; and what is current."""

from __future__ import annotations

import copy
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from stormtracks import follow
from stormtracks.assemble import assemble
from stormtracks.errors import InputError, StormtracksError
from stormtracks.grid import Grid
from stormtracks.publish import is_temporary
from stormtracks.reanalysis import open_archive
from stormtracks.results import StormtracksResultsManager
from stormtracks.settings.campaign import CampaignSettings
from stormtracks.synthetic import SyntheticEnsemble, write
from stormtracks.tasks import SCIENCE_VERSION, is_current, run_task, vort_track
from stormtracks.tracks import Tracks
from tests.stormtracks.system_faults import in_child, kill_after_rename

Layout = Literal["c20", "c20v3", "cf"]
LAYOUTS: tuple[Layout, ...] = ("c20", "c20v3", "cf")
RESULT = "results/vort_track/2001/m001.nc"


def make_input(root: Path, layout: Layout) -> None:
    """A fortnight over new year, of the age of files that nobody writes any more."""
    grid = Grid(np.linspace(90, -90, 37), np.arange(0, 360, 5.0))
    for path in write(SyntheticEnsemble((2001, 12, 25), (2002, 1, 7), members=1, grid=grid), root, layout=layout):
        os.utime(path, (1e9, 1e9))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    for layout in LAYOUTS:
        make_input(root / layout, layout)
    return root


def campaign_of(data: Path, out: Path, layout: Layout = "c20") -> CampaignSettings:
    return CampaignSettings.model_validate(
        {
            "data": {"root": data, "layout": layout},
            "detection": {"threshold": 2e-5},
            "tracking": {"min_points": 3},
            "results": {"root": out},
        }
    )


def run(campaign: CampaignSettings, *, confirm: Callable[[], None] | None = None) -> None:
    settings = campaign.model_dump(mode="json")
    run_task(2001, 1, "vort_track", settings=settings, first_years=[2001], confirm=confirm)


@pytest.fixture
def campaign(inputs: Path, tmp_path: Path) -> CampaignSettings:
    return campaign_of(inputs / "c20", tmp_path / "out")


@pytest.fixture(scope="module")
def expected(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The result of a run in which nothing goes wrong."""
    out = tmp_path_factory.mktemp("expected")
    run(campaign_of(inputs / "c20", out))
    return (out / RESULT).read_bytes()


def results_in(root: Path) -> dict[str, bytes]:
    """All files but kept digests, by their path in the results root."""
    found = (path for path in root.rglob("*") if path.is_file() and not path.is_relative_to(root / "inputs"))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def refuse() -> None:
    raise StormtracksError("handed out again", remedy="none is needed")


class TestPublication:
    def test_it_is_confirmed_once_when_all_is_written_and_nothing_shows(
        self, campaign: CampaignSettings, expected: bytes
    ) -> None:
        seen: list[dict[str, bytes]] = []
        run(campaign, confirm=lambda: seen.append(results_in(campaign.results.root)))
        (there,) = seen
        ((name, data),) = there.items()
        assert is_temporary(Path(name).name) and data == expected
        assert results_in(campaign.results.root) == {RESULT: expected}

    @pytest.mark.parametrize("older", [False, True])
    def test_refused_it_leaves_everything_as_it_was(self, campaign: CampaignSettings, older: bool) -> None:
        if older:
            run(campaign.model_copy(update={"tracking": campaign.tracking.model_copy(update={"min_points": 5})}))
        before = results_in(campaign.results.root)
        with pytest.raises(StormtracksError, match="handed out again"):
            run(campaign, confirm=refuse)
        assert results_in(campaign.results.root) == before
        assert len(before) == older

    def test_nothing_is_published_once_the_folder_is_another_campaigns(self, campaign: CampaignSettings) -> None:
        results = StormtracksResultsManager(campaign.results.root, "vort_track")
        results.claim(campaign.science, campaign.settings_hash)
        run(campaign)
        other = campaign.model_copy(update={"tracking": campaign.tracking.model_copy(update={"min_points": 5})})

        def replace() -> None:
            results.claim(other.science, other.settings_hash, replace=True)

        with pytest.raises(StormtracksError, match=f"of settings {other.settings_hash} now") as error:
            run(campaign, confirm=replace)
        assert error.value.permanent
        assert results.list_results() == []
        run(other)
        assert results.list_results() == [(2001, 1)]

    def test_killed_before_the_move_nothing_shows_and_the_next_attempt_publishes(
        self, campaign: CampaignSettings, expected: bytes
    ) -> None:
        status = in_child(lambda: run(campaign, confirm=lambda: os.kill(os.getpid(), signal.SIGKILL)))
        assert os.WTERMSIG(status) == signal.SIGKILL
        results = StormtracksResultsManager(campaign.results.root)
        assert results.list_results() == []
        (left,) = results_in(campaign.results.root)
        assert [path.relative_to(campaign.results.root).as_posix() for path in results.clean()] == [left]
        run(campaign)
        assert results_in(campaign.results.root) == {RESULT: expected}

    def test_killed_after_the_move_the_result_stands_and_doing_it_again_changes_no_byte(
        self, campaign: CampaignSettings, expected: bytes
    ) -> None:
        folder = campaign.results.root / "results"
        status = in_child(lambda: run(campaign, confirm=lambda: kill_after_rename(folder)))
        assert os.WTERMSIG(status) == signal.SIGKILL
        results = StormtracksResultsManager(campaign.results.root)
        assert results_in(campaign.results.root) == {RESULT: expected} and results.is_intact(2001, 1)
        assert is_current(results.get_result(2001, 1), campaign, open_archive(campaign.data), 1)
        run(campaign)
        assert results_in(campaign.results.root) == {RESULT: expected}

    def test_what_the_task_returns_is_what_is_read_back(self, campaign: CampaignSettings) -> None:
        run(campaign)
        made, read = vort_track(campaign, 2001, 1), StormtracksResultsManager(campaign.results.root).get_result(2001, 1)
        assert len(made) > 3
        for name in (field.name for field in fields(Tracks)):
            np.testing.assert_array_equal(getattr(made, name), getattr(read, name), err_msg=name, strict=True)

    @pytest.mark.parametrize("umask", [0o002, 0o027, 0o077])
    def test_files_and_folders_have_the_modes_that_the_umask_says(self, campaign: CampaignSettings, umask: int) -> None:
        def publish_all() -> None:
            results = StormtracksResultsManager(campaign.results.root)
            results.claim(campaign.science, campaign.settings_hash)
            run(campaign)
            none = campaign.model_copy(update={"tracking": campaign.tracking.model_copy(update={"min_points": 100})})
            results.add_result(2002, 1, vort_track(none, 2002, 1))  # in another format
            results.compress_year(2001)

        assert in_child(publish_all, prepare=lambda: os.umask(umask) and None) == 0
        paths = [campaign.results.root, *campaign.results.root.rglob("*")]
        assert {"2001.nc", "m001.nc", "settings.json", "inputs"} < {path.name for path in paths}
        for path in paths:
            assert stat.S_IMODE(path.stat().st_mode) == (0o777 if path.is_dir() else 0o666) & ~umask, path


class TestCurrent:
    def current(self, campaign: CampaignSettings) -> bool:
        tracks = StormtracksResultsManager(campaign.results.root).get_result(2001, 1)
        return is_current(tracks, campaign, open_archive(campaign.data), 1)

    @pytest.fixture
    def own(self, inputs: Path, tmp_path: Path) -> CampaignSettings:
        """A campaign whose input may be changed, that has run."""
        shutil.copytree(inputs / "c20", tmp_path / "data")
        campaign = campaign_of(tmp_path / "data", tmp_path / "out")
        run(campaign)
        assert self.current(campaign)
        return campaign

    def test_a_result_tells_the_digest_of_all_that_was_read(self, own: CampaignSettings) -> None:
        attributes = StormtracksResultsManager(own.results.root).get_result(2001, 1).attributes
        assert attributes["science_version"] == SCIENCE_VERSION == 2
        names = str(attributes["inputs"]).split(", ")
        assert names == ["2001/u850_2001.nc", "2001/v850_2001.nc", "2002/u850_2002.nc", "2002/v850_2002.nc"]
        assert len(str(attributes["input_digest"])) == 64
        assert len(list((own.results.root / "inputs").rglob("*.json"))) == 4

    @pytest.mark.parametrize("name", ["2001/u850_2001.nc", "2002/v850_2002.nc"])
    def test_any_changed_byte_of_any_file_is_noticed(self, own: CampaignSettings, name: str) -> None:
        path = own.data.root / name
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 1
        path.write_bytes(content)
        assert not self.current(own)

    def test_a_new_time_alone_is_no_change(self, own: CampaignSettings) -> None:
        os.utime(own.data.root / "2001/u850_2001.nc")
        assert self.current(own)

    def test_nobody_can_tell_when_a_file_is_gone(self, own: CampaignSettings) -> None:
        (own.data.root / "2002/u850_2002.nc").unlink()
        with pytest.raises(InputError, match="there is no file"):
            self.current(own)

    def test_known_files_are_not_read_again(self, own: CampaignSettings) -> None:
        """So that what is changed in place and given its old size and time again is not noticed, as documented."""
        path = own.data.root / "2001/u850_2001.nc"
        path.write_bytes(b"x" * path.stat().st_size)
        os.utime(path, (1e9, 1e9))
        assert self.current(own)

    def test_without_the_kept_digests_it_is_as_current(self, own: CampaignSettings) -> None:
        shutil.rmtree(own.results.root / "inputs")
        assert self.current(own)


@pytest.mark.parametrize("layout", LAYOUTS)
class TestBadInput:
    def spoil(self, inputs: Path, tmp_path: Path, layout: Layout, damage: Callable[[bytes], bytes]) -> Path:
        shutil.copytree(inputs / layout, tmp_path / "data")
        path = sorted((tmp_path / "data").rglob("*2001*.nc"))[0]
        path.write_bytes(damage(path.read_bytes()))
        return path

    @pytest.mark.parametrize(
        "damage",
        [
            lambda data: b"",
            lambda data: data[:100],
            lambda data: data[: len(data) // 2],
            lambda data: data[:-1],
            lambda data: bytes(len(data)),
            lambda data: data[: len(data) // 2] + bytes(2000) + data[len(data) // 2 + 2000 :],
            lambda data: data[:40] + bytes(400) + data[440:],
        ],
        ids=["empty", "the first bytes", "half", "all but a byte", "zeros", "zeros in the data", "zeros in the header"],
    )
    def test_damage_is_permanent_and_names_the_file(
        self, inputs: Path, tmp_path: Path, layout: Layout, damage: Callable[[bytes], bytes]
    ) -> None:
        path = self.spoil(inputs, tmp_path, layout, damage)
        with pytest.raises(InputError) as caught:
            run(campaign_of(tmp_path / "data", tmp_path / "out", layout))
        error = copy.copy(caught.value)
        assert error.permanent and error.remedy
        assert str(path) in error.what
        assert results_in(tmp_path / "out") == {}

    def test_a_file_that_is_written_meanwhile_is_told_so_and_may_be_tried_again(
        self, inputs: Path, tmp_path: Path, layout: Layout
    ) -> None:
        path = self.spoil(inputs, tmp_path, layout, lambda data: data)
        series = open_archive(campaign_of(tmp_path / "data", tmp_path, layout).data).open_year(2001, [1])
        try:
            series.read(0, 4)
            with path.open("ab") as file:
                file.write(b"more")
            with pytest.raises(InputError, match="has changed while it was read") as caught:
                series.read(4, 8)
        finally:
            series.close()
        assert str(path) in caught.value.what and "run again" in caught.value.remedy
        assert not copy.copy(caught.value).permanent


@pytest.mark.parametrize("layout", ["c20", "c20v3"])
@pytest.mark.parametrize("comes", [True, False])
def test_a_year_that_comes_or_goes_meanwhile_is_told_and_may_be_tried_again(
    inputs: Path, tmp_path: Path, layout: Layout, comes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else storms would be cut at the new year, and nobody would know."""
    shutil.copytree(inputs / layout, tmp_path / "data")
    there, away = tmp_path / "data" / "2002", tmp_path / "2002"
    if comes:
        there.rename(away)

    def assemble_while_files_move(*arguments: Any, **named: Any) -> Any:
        _ = away.rename(there) if comes else there.rename(away)
        return assemble(*arguments, **named)

    monkeypatch.setattr(follow, "assemble", assemble_while_files_move)
    with pytest.raises(InputError, match="the data of 2002, member 1, have come or gone") as caught:
        vort_track(campaign_of(tmp_path / "data", tmp_path / "out", layout), 2001, 1)
    assert not caught.value.permanent


def test_processors_of_another_kind_give_the_same_bytes(campaign: CampaignSettings, expected: bytes) -> None:
    """Numpy is told to do without the instructions that this processor has and an older one lacks."""
    dispatched = (
        "from importlib import import_module; import numpy; core = '_core' if hasattr(numpy, '_core') else 'core'"
        "; print(*import_module(f'numpy.{core}._multiarray_umath').__cpu_dispatch__)"
    )
    script = (
        "import sys; from stormtracks.tasks import run_task; from stormtracks.settings.campaign import CampaignSettings"
        "; settings = CampaignSettings.model_validate_json(sys.argv[1]).model_dump(mode='json')"
        "; run_task(2001, 1, 'vort_track', settings=settings, first_years=[2001])"
    )
    features = subprocess.run([sys.executable, "-c", dispatched], capture_output=True, text=True, check=True).stdout
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": features.strip(), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script, campaign.model_dump_json()], env=environment, check=True)
    assert results_in(campaign.results.root) == {RESULT: expected}
