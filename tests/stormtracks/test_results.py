"""The results manager: what it publishes, finds, compresses and survives."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import json
import multiprocessing
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import huracanpy
import netCDF4
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stormtracks import results
from stormtracks.compressed_year import Part, verify_year
from stormtracks.errors import ResultNotFoundError, ResultsError
from stormtracks.publish import publish, remove_temporaries
from stormtracks.reanalysis.archive import Quantity
from stormtracks.results import StormtracksResultsManager
from stormtracks.tracks import Tracks, digest, read_tracks
from tests.stormtracks.system_faults import in_child

SCIENCE = {"task": "vort_track", "tracking": {"method": "nearest", "max_speed": 40.0}, "season": {"start": "01-01"}}


def some_tracks(year: int = 2001, member: int = 0, *, n_tracks: int = 3, seed: int = 0) -> Tracks:
    """Tracks of one year and member, of 1 to 20 points, other ones for each seed."""
    random = np.random.default_rng([year, member, seed])
    row_size = random.integers(1, 21, size=n_tracks)
    n_records = int(row_size.sum())
    return Tracks(
        row_size=row_size,
        track_id=np.arange(1, n_tracks + 1),
        year=np.full(n_tracks, year),
        member=np.full(n_tracks, member),
        starts_cut=random.random(n_tracks) < 0.2,
        ends_cut=random.random(n_tracks) < 0.2,
        time=np.arange(n_records) * 21600 + (year - 1970) * 31_556_952,
        lon=random.integers(0, 3_600_000, size=n_records) / 1e4,
        lat=random.integers(-900_000, 900_001, size=n_records) / 1e4,
        value=random.random(n_records, dtype=np.float32).astype(np.float64),
        quantity=Quantity("vorticity", "atmosphere_relative_vorticity", "s-1"),
        attributes={"settings_hash": "0123456789abcdef", "candidates": int(seed), "member_file": f"mem{member}.nc"},
    )


def files_below(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by their path in it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def manager_of(root: Path, members: dict[int, Tracks], year: int = 2001) -> StormtracksResultsManager:
    """A manager that holds these members of a year."""
    manager = StormtracksResultsManager(root)
    for member, tracks in members.items():
        manager.add_result(year, member, tracks)
    return manager


def kills(root: Path, start: Callable[[], Any], action: Callable[[], None]) -> Iterator[Any]:
    """Yield what `start` gave after each of these: `action` killed at its first touch of a file below `root`, at its
    second ..., and in the end not killed."""
    touches = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir"}
    for fatal in itertools.count():
        started = start()
        touched = itertools.count()

        def hook(event: str, arguments: tuple[Any, ...], fatal: int = fatal, touched: Any = touched) -> None:
            if event in touches and str(arguments[0]).startswith(str(root)) and next(touched) == fatal:
                os.kill(os.getpid(), signal.SIGKILL)

        status = in_child(action, prepare=lambda hook=hook: sys.addaudithook(hook))
        yield started
        if not os.WIFSIGNALED(status):
            assert status == 0
            assert fatal > 2, "the action was never killed"
            return


class TestResults:
    def test_what_is_added_is_found_again(self, tmp_path: Path) -> None:
        manager = StormtracksResultsManager(tmp_path)
        published = manager.add_result(2001, 7, some_tracks(2001, 7))
        assert published.path == "results/vort_track/2001/m007.nc"
        data = (tmp_path / published.path).read_bytes()
        assert (published.sha256, published.size) == (hashlib.sha256(data).hexdigest(), len(data))
        assert (published.tracks, published.points) == (3, len(some_tracks(2001, 7).time))
        assert digest(manager.get_result(2001, 7)) == digest(some_tracks(2001, 7))
        assert manager.has_result(2001, 7) and not manager.has_result(2001, 8)
        assert manager.is_intact(2001, 7) and manager.is_intact(2001, 7, sha256=published.sha256)
        assert not manager.is_intact(2001, 7, sha256="0" * 64) and not manager.is_intact(2001, 8)

    def test_lists(self, tmp_path: Path) -> None:
        manager = StormtracksResultsManager(tmp_path)
        assert manager.list_years() == manager.list_results() == manager.list_members(2001) == []
        for year, member in ((2002, 10), (1999, 3), (2002, 9)):
            manager.add_result(year, member, some_tracks(year, member))
        assert manager.list_years() == [1999, 2002]
        assert manager.list_members(2002) == [9, 10]
        assert manager.list_results() == [(1999, 3), (2002, 9), (2002, 10)]

    def test_tasks_do_not_mix(self, tmp_path: Path) -> None:
        StormtracksResultsManager(tmp_path).add_result(2001, 0, some_tracks())
        assert StormtracksResultsManager(tmp_path, "match").list_years() == []

    def test_adding_again_replaces(self, tmp_path: Path) -> None:
        manager = manager_of(tmp_path, {0: some_tracks()})
        manager.add_result(2001, 0, some_tracks(seed=1))
        assert digest(manager.get_result(2001, 0)) == digest(some_tracks(seed=1))
        assert len(files_below(tmp_path)) == 1

    def test_deleting(self, tmp_path: Path) -> None:
        manager = manager_of(tmp_path, {0: some_tracks(), 1: some_tracks(member=1)})
        manager.delete_result(2001, 0)
        assert manager.list_results() == [(2001, 1)]
        manager.delete_year(2001)
        assert manager.list_results() == []
        assert not (tmp_path / "results/vort_track/2001").exists()

    def test_what_is_not_there_is_said_with_what_is(self, tmp_path: Path) -> None:
        manager = StormtracksResultsManager(tmp_path)
        with pytest.raises(ResultNotFoundError, match=r"year 2001, member 4 .*: there is none at all"):
            manager.get_result(2001, 4)
        for member in (0, 1, 2, 7):
            manager.add_result(2001, member, some_tracks(2001, member))
        for action in (manager.get_result, manager.delete_result):
            with pytest.raises(ResultNotFoundError, match="there are members 0-2, 7 of 2001"):
                action(2001, 4)
        for yearly in (manager.compress_year, manager.decompress_year, manager.delete_year):
            with pytest.raises(ResultNotFoundError, match=r"no result of year 2003 .*: there are years 2001"):
                yearly(2003)

    @pytest.mark.parametrize("year", [-1, 10000, "2001", 2001.0, True, None])
    def test_impossible_years_are_refused(self, tmp_path: Path, year: Any) -> None:
        manager = StormtracksResultsManager(tmp_path)
        with pytest.raises(ResultsError, match=r"year .* is not a whole number from 0 to 9999"):
            manager.add_result(year, 0, some_tracks())
        with pytest.raises(ResultsError, match="year"):
            manager.compress_year(year)
        assert not manager.is_intact(year, 0)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("member", [-1, 1000, "../m", 1.0, False])
    def test_impossible_members_are_refused(self, tmp_path: Path, member: Any) -> None:
        with pytest.raises(ResultsError, match=r"member .* is not a whole number from 0 to 999"):
            StormtracksResultsManager(tmp_path).add_result(2001, member, some_tracks())

    @pytest.mark.parametrize("task", ["", "..", "a/b", "a b", "1st", "tracks\n", ".hidden", "tâche"])
    def test_impossible_tasks_are_refused(self, tmp_path: Path, task: str) -> None:
        with pytest.raises(ResultsError, match="task name"):
            StormtracksResultsManager(tmp_path, task)

    def test_tracks_in_another_place_than_their_own_are_refused(self, tmp_path: Path) -> None:
        manager = manager_of(tmp_path, {0: some_tracks()})
        with pytest.raises(ResultsError, match="is the place of year 2001, member 1"):
            manager.add_result(2001, 1, some_tracks())
        folder = tmp_path / "results/vort_track/2001"
        (folder / "m001.nc").write_bytes((folder / "m000.nc").read_bytes())
        with pytest.raises(ResultsError, match="is the place of year 2001, member 1"):
            manager.get_result(2001, 1)
        assert not manager.is_intact(2001, 1)

    def test_a_damaged_result_is_not_intact(self, tmp_path: Path) -> None:
        manager = manager_of(tmp_path, {0: some_tracks()})
        path = tmp_path / "results/vort_track/2001/m000.nc"
        path.write_bytes(path.read_bytes()[:-1000])
        assert manager.has_result(2001, 0) and not manager.is_intact(2001, 0)
        with pytest.raises(ResultsError, match=r"m000\.nc is truncated"):
            manager.get_result(2001, 0)


class TestCompression:
    @given(
        sizes=st.dictionaries(st.integers(0, 999), st.integers(0, 4), min_size=1, max_size=5), seed=st.integers(0, 9)
    )
    @settings(max_examples=15)
    def test_the_way_there_and_back_changes_no_byte(
        self, sizes: dict[int, int], seed: int, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        root = tmp_path_factory.mktemp("results")
        members = {it: some_tracks(member=it, n_tracks=n, seed=seed) for it, n in sizes.items()}
        manager = manager_of(root, members)
        before = files_below(root)
        manager.compress_year(2001)
        assert set(files_below(root)) == {"results/vort_track/2001.nc"}
        assert manager.list_results() == [(2001, member) for member in sorted(members)]
        for member, tracks in members.items():
            assert digest(manager.get_result(2001, member)) == digest(tracks)
            own = before[f"results/vort_track/2001/m{member:03d}.nc"]
            assert manager.is_intact(2001, member, sha256=hashlib.sha256(own).hexdigest())
        manager.decompress_year(2001)
        assert files_below(root) == before

    def test_other_tools_read_it_as_one_set_of_tracks(self, tmp_path: Path) -> None:
        members = {member: some_tracks(member=member, n_tracks=member) for member in range(4)}
        manager_of(tmp_path, members).compress_year(2001)
        path = tmp_path / "results/vort_track/2001.nc"
        lon = np.concatenate([tracks.lon for tracks in members.values()])
        with xr.open_dataset(path) as dataset:
            np.testing.assert_array_equal(dataset["realization"], [0, 1, 2, 3])
            np.testing.assert_array_equal(dataset["track_count"], [0, 1, 2, 3])
            np.testing.assert_array_equal(dataset["member"], [1, 2, 2, 3, 3, 3])
            np.testing.assert_array_equal(dataset["lon"], lon)
            assert dataset.attrs["settings_hash"] == "0123456789abcdef" and "member_file" not in dataset.attrs
            identifiers = np.repeat(np.arange(1, 7), dataset["row_size"])
        loaded = huracanpy.load(str(path))
        np.testing.assert_array_equal(loaded["track_id"], identifiers)
        np.testing.assert_array_equal(loaded["lon"], lon)
        np.testing.assert_array_equal(read_tracks(path).track_id, [1, 1, 2, 1, 2, 3])

    def test_it_saves_room_and_shows_no_time(self, tmp_path: Path) -> None:
        members = {member: some_tracks(member=member, n_tracks=100) for member in range(20)}
        manager = manager_of(tmp_path, members)
        own = sum(len(data) for data in files_below(tmp_path).values())
        manager.compress_year(2001)
        first = files_below(tmp_path)
        assert len(first["results/vort_track/2001.nc"]) < 0.8 * own
        manager.decompress_year(2001)
        manager.compress_year(2001)
        assert files_below(tmp_path) == first

    def test_again_is_no_change(self, tmp_path: Path) -> None:
        manager = manager_of(tmp_path, {0: some_tracks()})
        manager.decompress_year(2001)
        manager.compress_year(2001)
        before = files_below(tmp_path)
        manager.compress_year(2001)
        assert files_below(tmp_path) == before

    def test_what_was_published_since_counts_and_is_taken_up(self, tmp_path: Path) -> None:
        manager = manager_of(tmp_path, {0: some_tracks(), 1: some_tracks(member=1)})
        manager.compress_year(2001)
        newer = some_tracks(member=1, seed=5)
        manager.add_result(2001, 1, newer)
        manager.add_result(2001, 2, some_tracks(member=2))
        assert manager.list_members(2001) == [0, 1, 2]
        assert digest(manager.get_result(2001, 1)) == digest(newer)
        manager.compress_year(2001)
        assert set(files_below(tmp_path)) == {"results/vort_track/2001.nc"}
        assert manager.list_members(2001) == [0, 1, 2]
        assert digest(manager.get_result(2001, 1)) == digest(newer)
        assert digest(manager.get_result(2001, 0)) == digest(some_tracks())

    @pytest.mark.parametrize("name", ["track_count", "realization", "151", "drück"])
    def test_a_quantity_of_any_name(self, tmp_path: Path, name: str) -> None:
        members = {
            member: replace(some_tracks(member=member), quantity=Quantity(name, "", "Pa")) for member in range(2)
        }
        manager = manager_of(tmp_path, members)
        before = files_below(tmp_path)
        manager.compress_year(2001)
        assert manager.get_result(2001, 1).quantity == Quantity(name, "", "Pa")
        manager.decompress_year(2001)
        assert files_below(tmp_path) == before

    def test_own_files_stay_on_decompressing(self, tmp_path: Path) -> None:
        manager = manager_of(tmp_path, {0: some_tracks(), 1: some_tracks(member=1)})
        manager.compress_year(2001)
        newer = some_tracks(member=1, seed=5)
        manager.add_result(2001, 1, newer)
        manager.decompress_year(2001)
        assert digest(manager.get_result(2001, 1)) == digest(newer)
        assert manager.list_members(2001) == [0, 1]

    def test_deleting_one_leaves_the_others(self, tmp_path: Path) -> None:
        manager = manager_of(tmp_path, {member: some_tracks(member=member) for member in range(3)})
        manager.compress_year(2001)
        manager.add_result(2001, 1, some_tracks(member=1, seed=5))
        manager.delete_result(2001, 1)
        assert manager.list_members(2001) == [0, 2]
        manager.delete_result(2001, 0)
        manager.delete_result(2001, 2)
        assert files_below(tmp_path) == {}

    def test_deleting_the_year(self, tmp_path: Path) -> None:
        manager = manager_of(tmp_path, {0: some_tracks(), 1: some_tracks(member=1)})
        manager.compress_year(2001)
        manager.add_result(2001, 1, some_tracks(member=1))
        manager.delete_year(2001)
        assert manager.list_years() == [] and files_below(tmp_path) == {}

    def test_a_damaged_member_stops_it_and_nothing_is_deleted(self, tmp_path: Path) -> None:
        manager = manager_of(tmp_path, {0: some_tracks(), 1: some_tracks(member=1)})
        path = tmp_path / "results/vort_track/2001/m001.nc"
        path.write_bytes(path.read_bytes()[:-1] + b" ")
        before = files_below(tmp_path)
        with pytest.raises(ResultsError, match=r"m001\.nc has changed"):
            manager.compress_year(2001)
        assert files_below(tmp_path) == before

    def test_members_of_different_kinds_stop_it(self, tmp_path: Path) -> None:
        manager = manager_of(tmp_path, {0: some_tracks(), 1: replace(some_tracks(member=1), calendar="noleap")})
        before = files_below(tmp_path)
        with pytest.raises(ResultsError, match="noleap"):
            manager.compress_year(2001)
        assert files_below(tmp_path) == before

    def test_damage_never_gives_other_tracks(self, tmp_path: Path) -> None:
        members = {member: some_tracks(member=member, n_tracks=6) for member in range(3)}
        manager = manager_of(tmp_path, members)
        manager.compress_year(2001)
        path = tmp_path / "results/vort_track/2001.nc"
        data = path.read_bytes()
        refused = 0
        for offset in range(0, len(data), 509):
            changed = bytearray(data)
            changed[offset] ^= 0x55
            path.write_bytes(changed)
            with pytest.raises(ResultsError):
                read_tracks(path)
            for member, tracks in members.items():
                try:
                    assert digest(manager.get_result(2001, member)) == digest(tracks)
                except ResultsError:
                    refused += 1
        assert refused > 0
        path.write_bytes(data[: len(data) // 2])
        assert not manager.is_intact(2001, 0)
        with pytest.raises(ResultsError, match=r"2001\.nc is truncated"):
            manager.list_members(2001)

    def test_an_edited_value_is_found_in_its_member(self, tmp_path: Path) -> None:
        manager = manager_of(tmp_path, {member: some_tracks(member=member) for member in range(3)})
        manager.compress_year(2001)
        with netCDF4.Dataset(tmp_path / "results/vort_track/2001.nc", "a") as dataset:
            dataset["lat"][len(some_tracks().lat)] = 0.5
        assert [manager.is_intact(2001, member) for member in range(3)] == [True, False, True]
        with pytest.raises(ResultsError, match="member 1 does not hold the tracks"):
            manager.get_result(2001, 1)

    def test_a_file_of_another_layout_is_not_compressed(self, tmp_path: Path) -> None:
        manager = manager_of(tmp_path, {0: some_tracks(), 1: some_tracks(member=1)})
        path = tmp_path / "results/vort_track/2001/m001.nc"
        body = path.read_bytes()[:-85].replace(b"Tracks of storms", b"Paths of cyclone")
        path.write_bytes(body + b"\nstormtracks sha256 " + hashlib.sha256(body).hexdigest().encode() + b"\n")
        before = files_below(tmp_path)
        assert manager.is_intact(2001, 1)
        with pytest.raises(ResultsError, match=r"member 1 .* cannot be made again byte for byte"):
            manager.compress_year(2001)
        assert files_below(tmp_path) == before

    def test_what_is_published_in_the_meantime_stays(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        manager = manager_of(tmp_path, {0: some_tracks(), 1: some_tracks(member=1)})
        newer = some_tracks(member=1, seed=5)

        def verify_and_publish(path: Path, parts: list[Part]) -> None:
            verify_year(path, parts)
            manager.add_result(2001, 1, newer)
            manager.add_result(2001, 2, some_tracks(member=2))

        monkeypatch.setattr(results, "verify_year", verify_and_publish)
        manager.compress_year(2001)
        assert manager.list_members(2001) == [0, 1, 2]
        assert digest(manager.get_result(2001, 1)) == digest(newer)

    def test_another_file_in_its_place_is_refused(self, tmp_path: Path) -> None:
        manager = manager_of(tmp_path, {0: some_tracks()})
        folder = tmp_path / "results/vort_track"
        (folder / "2001/m000.nc").rename(folder / "2001.nc")
        with pytest.raises(ResultsError, match="it has no member axis"):
            manager.get_result(2001, 0)


class TestClaim:
    def test_the_first_one_writes_the_settings(self, tmp_path: Path) -> None:
        manager = StormtracksResultsManager(tmp_path)
        manager.claim(SCIENCE, "aaaa")
        stored = json.loads((tmp_path / "results/vort_track/settings.json").read_text())
        assert stored == {"settings_hash": "aaaa", "science": SCIENCE}
        before = files_below(tmp_path)
        manager.claim(SCIENCE, "aaaa")
        assert files_below(tmp_path) == before

    def test_other_settings_are_refused_with_the_difference(self, tmp_path: Path) -> None:
        manager = manager_of(tmp_path / "new", {})
        manager.claim(SCIENCE, "aaaa")
        manager.add_result(2001, 0, some_tracks())
        before = files_below(tmp_path)
        asked = {**SCIENCE, "tracking": {"method": "nearest", "max_speed": 30.0, "max_gap": 1}}
        del asked["season"]
        with pytest.raises(ResultsError) as caught:
            manager.claim(asked, "bbbb")
        lines = str(caught.value).splitlines()
        assert lines[1:-1] == [
            '  season.start: "01-01" -> (absent)',
            "  tracking.max_gap: (absent) -> 1",
            "  tracking.max_speed: 40.0 -> 30.0",
        ]
        assert "--replace" in lines[-1]
        assert files_below(tmp_path) == before

    def test_replacing_deletes_the_results_of_that_task_only(self, tmp_path: Path) -> None:
        manager, other = StormtracksResultsManager(tmp_path), StormtracksResultsManager(tmp_path, "match")
        for one in (manager, other):
            one.claim(SCIENCE, "aaaa")
            one.add_result(2001, 0, some_tracks())
            one.add_result(2002, 0, some_tracks(2002))
            one.compress_year(2002)
        manager.claim({"task": "x"}, "bbbb", replace=True)
        assert manager.list_results() == [] and len(other.list_results()) == 2
        assert json.loads((tmp_path / "results/vort_track/settings.json").read_text())["settings_hash"] == "bbbb"

    def test_replacing_by_the_same_keeps_the_results(self, tmp_path: Path) -> None:
        manager = StormtracksResultsManager(tmp_path)
        manager.claim(SCIENCE, "aaaa")
        manager.add_result(2001, 0, some_tracks())
        manager.claim(SCIENCE, "aaaa", replace=True)
        assert manager.list_results() == [(2001, 0)]

    @pytest.mark.parametrize("content", [None, b"", b"[]", b"{}", b"\xff"])
    def test_results_of_unknown_settings_are_refused(self, tmp_path: Path, content: bytes | None) -> None:
        manager = manager_of(tmp_path, {0: some_tracks()})
        if content is not None:
            (manager.folder / "settings.json").write_bytes(content)
        with pytest.raises(ResultsError, match=r"settings unknown.*settings\.json"):
            manager.claim(SCIENCE, "aaaa")
        manager.claim(SCIENCE, "aaaa", replace=True)
        manager.claim(SCIENCE, "aaaa")
        assert manager.list_results() == []


class TestKilled:
    """Killed at each touch of a file, one after the other."""

    @pytest.mark.parametrize("older", [True, False])
    def test_publishing(self, tmp_path: Path, older: bool) -> None:
        wanted = {digest(some_tracks(seed=1))} | ({digest(some_tracks())} if older else set())

        def start() -> StormtracksResultsManager:
            return manager_of(tmp_path / str(next(number)), {0: some_tracks()} if older else {})

        number = itertools.count()
        current = tmp_path / "0"

        def action() -> None:
            StormtracksResultsManager(current).add_result(2001, 0, some_tracks(seed=1))

        for manager in kills(tmp_path, start, action):
            if older or manager.has_result(2001, 0):
                assert digest(manager.get_result(2001, 0)) in wanted
            else:
                assert manager.list_results() == []
            current = manager.root
            action()
            manager.clean(older_than=0)
            assert list(files_below(manager.root)) == ["results/vort_track/2001/m000.nc"]
            assert digest(manager.get_result(2001, 0)) == digest(some_tracks(seed=1))
            current = tmp_path / str(int(manager.root.name) + 1)

    def test_in_the_middle_of_writing(self, tmp_path: Path) -> None:
        manager = manager_of(tmp_path, {0: some_tracks()})
        before = files_below(tmp_path)

        def small_files_or_death() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

        def action() -> None:
            manager.add_result(2001, 0, some_tracks(seed=1))

        status = in_child(action, prepare=small_files_or_death)
        assert os.WTERMSIG(status) == signal.SIGXFSZ
        left = {name: len(data) for name, data in files_below(tmp_path).items() if name not in before}
        assert list(left.values()) == [3000]
        assert manager.list_results() == [(2001, 0)] and digest(manager.get_result(2001, 0)) == digest(some_tracks())
        # At once: the system has taken its lock from the dead.
        assert [path.relative_to(tmp_path).as_posix() for path in manager.clean()] == list(left)
        assert files_below(tmp_path) == before

    @pytest.mark.parametrize("half_done", [True, False])
    def test_compressing_and_decompressing(self, tmp_path: Path, half_done: bool) -> None:
        members = {member: some_tracks(member=member, n_tracks=member) for member in range(3)}
        reference = manager_of(tmp_path / "reference", members)
        own = files_below(reference.root)
        reference.compress_year(2001)
        compressed = files_below(reference.root)
        root = tmp_path / "results"
        steps = (StormtracksResultsManager.compress_year, own, compressed)
        back = (StormtracksResultsManager.decompress_year, compressed, own)
        for step, before, after in (steps, back):

            def start(before: dict[str, bytes] = before) -> StormtracksResultsManager:
                for name in files_below(root):
                    (root / name).unlink()
                for name, data in (own | compressed if half_done else before).items():
                    (root / name).parent.mkdir(parents=True, exist_ok=True)
                    (root / name).write_bytes(data)
                return StormtracksResultsManager(root)

            def action(step: Any = step) -> None:
                step(StormtracksResultsManager(root), 2001)

            for manager in kills(root, start, action):
                assert manager.list_results() == [(2001, member) for member in members]
                for member, tracks in members.items():
                    assert digest(manager.get_result(2001, member)) == digest(tracks)
                    assert manager.is_intact(2001, member)
                action()
                manager.clean(older_than=0)
                assert files_below(root) == after

    def test_replacing_the_settings(self, tmp_path: Path) -> None:
        def start() -> StormtracksResultsManager:
            manager = StormtracksResultsManager(tmp_path)
            manager.claim(SCIENCE, "aaaa", replace=True)
            manager.add_result(2001, 0, some_tracks())
            manager.add_result(2001, 1, some_tracks(member=1))
            manager.add_result(2002, 0, some_tracks(2002))
            manager.compress_year(2002)
            return manager

        def action() -> None:
            StormtracksResultsManager(tmp_path).claim({}, "bbbb", replace=True)

        for manager in kills(tmp_path, start, action):
            held = json.loads((manager.folder / "settings.json").read_text())["settings_hash"]
            assert held == "aaaa" or manager.list_results() == []
            action()
            manager.clean(older_than=0)
            assert list(files_below(tmp_path)) == ["results/vort_track/settings.json"]


class TestDisk:
    def test_the_file_is_on_the_disk_before_its_name_and_the_name_before_the_answer(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        manager = manager_of(tmp_path, {0: some_tracks()})
        calls: list[str] = []

        def watched(name: str) -> None:
            original = getattr(os, name)

            def call(*arguments: Any, **options: Any) -> Any:
                folder = name == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
                calls.append(f"{name} {'folder' if folder else 'file'}")
                return original(*arguments, **options)

            monkeypatch.setattr(os, name, call)

        for name in ("fsync", "replace"):
            watched(name)
        manager.add_result(2001, 0, some_tracks(seed=1))
        assert calls == ["fsync file", "replace file", "fsync folder"]

    def test_a_full_disk(self, tmp_path: Path) -> None:
        (tmp_path / "disk").mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path / "disk"], capture_output=True, text=True
        )
        if mounted.returncode != 0:
            pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
        try:
            manager = manager_of(tmp_path / "disk", {0: some_tracks()})
            before = files_below(tmp_path)
            with pytest.raises(ResultsError, match=r"cannot write .*m001\.nc: No space left(.|\n)*free space"):
                manager.add_result(2001, 1, some_tracks(member=1, n_tracks=500))
            with pytest.raises(ResultsError, match=r"m000\.nc: No space left"):
                manager.add_result(2001, 0, some_tracks(n_tracks=500))
            assert files_below(tmp_path) == before
            for member in (1, 2, 3, 4):
                manager.add_result(2001, member, some_tracks(member=member, n_tracks=20))
            before = files_below(tmp_path)
            with pytest.raises(ResultsError, match=r"2001\.nc: No space left"):
                manager.compress_year(2001)
            assert files_below(tmp_path) == before
        finally:
            subprocess.run(["umount", tmp_path / "disk"], check=True)

    def test_a_file_too_large(self, tmp_path: Path) -> None:
        manager = manager_of(tmp_path, {0: some_tracks()})
        before = files_below(tmp_path)

        def refused() -> None:
            with pytest.raises(ResultsError, match=r"m001\.nc: File too large(.|\n)*ulimit -f") as caught:
                manager.add_result(2001, 1, some_tracks(member=1))
            assert isinstance(caught.value.__cause__, OSError) and caught.value.__cause__.errno == errno.EFBIG

        limit = (3000, 3000)
        assert in_child(refused, prepare=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)) == 0
        assert files_below(tmp_path) == before

    def test_a_file_where_the_folder_should_be(self, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("a file\n")
        manager = StormtracksResultsManager(tmp_path / "out")
        assert manager.list_years() == []
        with pytest.raises(ResultsError, match=r"cannot make the folder .*out"):
            manager.add_result(2001, 0, some_tracks())
        assert (tmp_path / "out").read_text() == "a file\n"

    def test_cleaning_removes_only_what_writers_left(self, tmp_path: Path) -> None:
        manager = manager_of(tmp_path, {0: some_tracks()})
        keep = ["notes.txt", ".hidden.tmp", "2001/.stormtracks-1.tmp", "2001/.nfs0001", "other/.stormtracks-9-x.tmp"]
        stray = [".stormtracks-12-0123456789abcdef.tmp", "2001/.stormtracks-9-fedcba9876543210.tmp"]
        (manager.folder / "other").mkdir()
        for name in keep + stray:
            (manager.folder / name).write_text("x")
        before = set(files_below(manager.folder))
        of_the_root = tmp_path / ".stormtracks-7-00112233445566ff.tmp"
        of_the_root.write_text("x")
        assert manager.list_results() == [(2001, 0)]
        assert manager.clean() == [of_the_root, *(manager.folder / name for name in stray)]
        assert manager.clean() == []
        assert set(files_below(manager.folder)) == before - set(stray)

    def test_cleaning_what_is_not_there(self, tmp_path: Path) -> None:
        assert StormtracksResultsManager(tmp_path / "absent").clean() == []

    def test_cleaning_leaves_a_writer_at_work_alone(self, tmp_path: Path) -> None:
        manager = manager_of(tmp_path, {0: some_tracks()})
        seen: list[list[Path]] = []

        def clean_up(written: Path) -> None:
            with netCDF4.Dataset(written):  # which takes a lock of its own
                seen.append(manager.clean(older_than=0))

        data = (manager.folder / "2001" / "m000.nc").read_bytes()
        publish(manager.folder / "2001" / "m001.nc", data, check=clean_up)
        assert seen == [[]]
        assert manager.list_members(2001) == [0, 1]

    def test_a_file_removed_before_its_writer_held_it_is_made_anew(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lock, removed = fcntl.flock, []

        def flock(file: Any, kind: int) -> None:
            if kind == fcntl.LOCK_SH and not removed:
                removed.extend(remove_temporaries(tmp_path, older_than=0))
            lock(file, kind)

        monkeypatch.setattr(fcntl, "flock", flock)
        publish(tmp_path / "a", b"content")
        assert len(removed) == 1
        assert files_below(tmp_path) == {"a": b"content"}

    @pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP])
    def test_where_there_are_no_locks_age_decides(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        def flock(file: Any, kind: int) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(fcntl, "flock", flock)
        manager = manager_of(tmp_path, {0: some_tracks()})
        stray = [manager.folder / f".stormtracks-{number}-0123456789abcdef.tmp" for number in (1, 2)]
        for path in stray:
            path.write_text("x")
        os.utime(stray[0], (1, 1))
        assert manager.clean() == stray[:1]
        assert manager.clean(older_than=0) == stray[1:]

    def test_a_file_where_the_folder_of_a_year_should_be(self, tmp_path: Path) -> None:
        manager = manager_of(tmp_path, {0: some_tracks()})
        (manager.folder / "2002").write_text("a file\n")
        with pytest.raises(ResultsError, match=r"cannot list the folder .*2002: Not a directory") as caught:
            manager.clean()
        assert "part of the path is a file" in caught.value.remedy

    def test_a_file_where_the_root_should_be_is_not_taken_for_results(self, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("a file\n")
        for replace_them in (False, True):
            with pytest.raises(ResultsError, match=r"cannot make the folder .*out: File exists"):
                StormtracksResultsManager(tmp_path / "out").claim(SCIENCE, "aaaa", replace=replace_them)

    @pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
    def test_only_a_file_is_replaced(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "place"
        if kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/null")
        before = path.lstat()
        with pytest.raises(ResultsError, match=f"cannot write {path}") as caught:
            publish(path, b"content")
        assert "name of a file" in caught.value.remedy
        assert (path.lstat(), list(tmp_path.iterdir())) == (before, [path])
        assert Path("/dev/null").is_char_device()

    @pytest.mark.parametrize("name", ["", ".", "/"])
    def test_a_file_needs_a_name(self, name: str) -> None:
        with pytest.raises(ResultsError, match="cannot write a file named"):
            publish(Path(name), b"content")

    @pytest.mark.parametrize("older", [True, False])
    def test_a_link_stays_and_what_it_points_at_is_replaced(self, tmp_path: Path, older: bool) -> None:
        (tmp_path / "elsewhere").mkdir()
        file, link = tmp_path / "elsewhere" / "file", tmp_path / "link"
        if older:
            file.write_bytes(b"older")
        link.symlink_to("elsewhere/file")
        publish(link, b"content")
        assert link.is_symlink()
        assert files_below(tmp_path) == {"elsewhere/file": b"content", "link": b"content"}

    def test_links_in_a_circle(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
        with pytest.raises(ResultsError, match=r"cannot write .*a: "):
            publish(tmp_path / "a", b"content")


def publish_often(root: Path, seed: int) -> None:
    """Publish one result twenty times."""
    for _ in range(20):
        StormtracksResultsManager(root).add_result(2001, 0, some_tracks(seed=seed))


def test_writers_of_one_result_do_not_disturb_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=publish_often, args=(tmp_path, seed)) for seed in range(4)]
    for writer in writers:
        writer.start()
    manager = StormtracksResultsManager(tmp_path)
    wanted = {digest(some_tracks(seed=seed)) for seed in range(4)}
    while any(writer.is_alive() for writer in writers):
        if manager.has_result(2001, 0):
            assert digest(manager.get_result(2001, 0)) in wanted
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert list(files_below(tmp_path)) == ["results/vort_track/2001/m000.nc"]


def test_a_folder_in_which_nothing_came_of_the_settings_is_free(tmp_path: Path) -> None:
    results = StormtracksResultsManager(tmp_path)
    results.claim({"detection": {"threshold": 1000}}, "a" * 16)
    results.claim({"detection": {"threshold": 100000}}, "b" * 16)
    assert '"bbbbbbbbbbbbbbbb"' in (results.folder / "settings.json").read_text()
