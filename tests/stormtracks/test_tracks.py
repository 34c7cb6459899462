"""The container of tracks and its file."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import cftime
import huracanpy
import netCDF4
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stormtracks.errors import ResultNotFoundError, ResultsError
from stormtracks.reanalysis.archive import Quantity
from stormtracks.tracks import CALENDARS, Tracks, concatenate, digest, read_tracks, write_tracks

VORTICITY = Quantity("vorticity", "atmosphere_relative_vorticity", "s-1")
ARRAYS = tuple(it.name for it in fields(Tracks) if it.name not in ("quantity", "calendar", "attributes"))

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,11}", fullmatch=True).map(lambda name: f"x{name}")
ATTRIBUTES = st.dictionaries(
    NAMES, TEXTS | st.integers(-(2**31), 2**31 - 1) | st.floats(allow_nan=False, allow_infinity=False), max_size=5
)


@st.composite
def any_tracks(draw: st.DrawFn) -> Tracks:
    """None to six tracks of one to eight points anywhere, in any calendar, with any attributes."""
    sizes = draw(st.lists(st.integers(1, 8), max_size=6))
    n_tracks, n_records = len(sizes), sum(sizes)

    def array(elements: st.SearchStrategy[Any], length: int, dtype: Any) -> Any:
        return np.array(draw(st.lists(elements, min_size=length, max_size=length)), dtype=dtype)

    # Doubles at times: whatever the file's type, the value must come back as it was.
    width = draw(st.sampled_from((32, 32, 64)))
    steps = array(st.integers(1, 10**6), n_records, np.int64)
    return Tracks(
        row_size=np.array(sizes, dtype=np.int64),
        track_id=np.arange(1, n_tracks + 1) + draw(st.integers(0, 1000)),
        year=array(st.integers(1, 9999), n_tracks, np.int64),
        member=array(st.integers(0, 999), n_tracks, np.int64),
        starts_cut=array(st.booleans(), n_tracks, np.bool_),
        ends_cut=array(st.booleans(), n_tracks, np.bool_),
        time=np.cumsum(steps) + draw(st.integers(-(10**10), 10**10)),
        lon=array(st.sampled_from((0, 1_800_000, 3_599_999)) | st.integers(0, 3_599_999), n_records, np.float64) / 1e4,
        lat=array(st.integers(-900_000, 900_000), n_records, np.float64) / 1e4,
        value=array(st.floats(width=width, allow_nan=False, allow_infinity=False), n_records, np.float64),
        quantity=Quantity(draw(NAMES | TEXTS.filter(bool)), draw(TEXTS), draw(TEXTS)),
        calendar=draw(st.sampled_from(CALENDARS)),
        attributes=draw(ATTRIBUTES),
    )


def two_storms(**changes: Any) -> Tracks:
    """A storm of three points over the date line of longitude, and one of a single point on the pole."""
    tracks = Tracks(
        row_size=np.array([3, 1]),
        track_id=np.array([1, 2]),
        year=np.array([2001, 2001]),
        member=np.array([7, 7]),
        starts_cut=np.array([True, False]),
        ends_cut=np.array([False, False]),
        time=np.array([0, 21600, 43200, 21600]) + 981_173_106,  # 2001-02-03 04:05:06
        lon=np.array([359.5, 0.0, 0.5001, 12.25]),
        lat=np.array([50.0, 50.1234, 50.25, -90.0]),
        value=np.array([1e-4, 2e-4, 1.5e-4, -3e-5], dtype=np.float32).astype(np.float64),
        quantity=VORTICITY,
        attributes={"settings_hash": "0123456789abcdef", "candidates": 42, "threshold": 4e-5},
    )
    return replace(tracks, **changes)


def no_storms(**changes: Any) -> Tracks:
    """No storm at all."""
    tracks = two_storms()
    return replace(tracks, **{name: getattr(tracks, name)[:0] for name in ARRAYS}, **changes)


def assert_same(given_: Tracks, wanted: Tracks) -> None:
    """Equal in every field, by comparison and not by checksum."""
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(given_, name), getattr(wanted, name), err_msg=name, strict=True)
    assert (given_.quantity, given_.calendar) == (wanted.quantity, wanted.calendar)
    assert given_.attributes == wanted.attributes
    assert {name: type(value) for name, value in given_.attributes.items()} == {
        name: type(value) for name, value in wanted.attributes.items()
    }


class TestRoundTrip:
    @given(tracks=any_tracks())
    @settings(max_examples=150)
    def test_file_gives_back_what_was_written(self, tracks: Tracks, tmp_path_factory: pytest.TempPathFactory) -> None:
        path = tmp_path_factory.mktemp("tracks") / "tracks.nc"
        write_tracks(path, tracks)
        assert_same(read_tracks(path), tracks)

    # Years that nanoseconds cannot reach become cftime objects, of which xarray warns.
    @pytest.mark.filterwarnings("ignore:Unable to decode time axis")
    @given(tracks=any_tracks())
    @settings(max_examples=60)
    def test_xarray_gives_back_what_it_got(self, tracks: Tracks) -> None:
        assert_same(Tracks.from_xarray(tracks.to_xarray()), tracks)

    @pytest.mark.parametrize("calendar", CALENDARS)
    @pytest.mark.parametrize("tracks", [two_storms(), no_storms()], ids=["two", "none"])
    def test_xarray_reads_the_file_as_the_container_shows_itself(
        self, tmp_path: Path, tracks: Tracks, calendar: str
    ) -> None:
        tracks = replace(tracks, calendar=calendar)
        write_tracks(tmp_path / "tracks.nc", tracks)
        with xr.open_dataset(tmp_path / "tracks.nc") as dataset:
            xr.testing.assert_identical(dataset.load(), tracks.to_xarray())
            assert_same(Tracks.from_xarray(dataset), tracks)

    @pytest.mark.parametrize(
        ("name", "stored"),
        [
            ("vorticity", "vorticity"),
            ("151", "value_151"),
            ("_mine", "value__mine"),
            ("msl-p", "msl_p"),
            ("wind speed", "wind_speed"),
            ("drück", "dr_ck"),
            ("渦度", "value___"),
            ("year", "year_value"),
            ("lat", "lat_value"),
            ("obs", "obs_value"),
            ("track_count", "track_count_value"),
            ("member_source", "member_source_value"),
            ("x" * 256, "x" * 200),
        ],
    )
    @pytest.mark.parametrize("tracks", [two_storms(), no_storms()], ids=["two", "none"])
    def test_any_name_of_a_variable_is_stored_under_one_that_programs_can_take(
        self, tmp_path: Path, tracks: Tracks, name: str, stored: str
    ) -> None:
        tracks = replace(tracks, quantity=Quantity(name, "", "Pa"))
        write_tracks(tmp_path / "tracks.nc", tracks)
        with netCDF4.Dataset(tmp_path / "tracks.nc") as dataset:
            assert dataset[stored].dimensions == ("obs",)
            assert getattr(dataset[stored], "original_name", stored) == name
        assert_same(read_tracks(tmp_path / "tracks.nc"), tracks)
        assert_same(Tracks.from_xarray(tracks.to_xarray()), tracks)

    def test_a_dataset_without_a_variable_is_refused_by_its_name(self) -> None:
        with pytest.raises(ResultsError, match="lacks starts_cut"):
            Tracks.from_xarray(two_storms().to_xarray().drop_vars("starts_cut"))

    def test_a_dataset_of_two_quantities_is_refused(self) -> None:
        dataset = two_storms().to_xarray()
        with pytest.raises(ResultsError, match="one variable besides"):
            Tracks.from_xarray(dataset.assign(wind=dataset["vorticity"]))

    def test_undecoded_times_are_read_too(self, tmp_path: Path) -> None:
        write_tracks(tmp_path / "tracks.nc", two_storms())
        with xr.open_dataset(tmp_path / "tracks.nc", decode_cf=False) as dataset:
            assert_same(Tracks.from_xarray(dataset), two_storms())


class TestFile:
    def test_is_a_cf_contiguous_ragged_array_of_trajectories(self, tmp_path: Path) -> None:
        write_tracks(tmp_path / "tracks.nc", two_storms())
        with netCDF4.Dataset(tmp_path / "tracks.nc") as dataset:
            assert (dataset.Conventions, dataset.featureType) == ("CF-1.11", "trajectory")
            assert dataset.source.startswith("stormtracks ")
            assert dataset.content_sha256 == digest(two_storms())
            assert (dataset.settings_hash, dataset.candidates, dataset.threshold) == ("0123456789abcdef", 42, 4e-5)
            assert {name: len(it) for name, it in dataset.dimensions.items()} == {"trajectory": 2, "obs": 4}
            variables = dataset.variables
            assert variables["row_size"].sample_dimension == "obs"
            assert variables["track_id"].cf_role == "trajectory_id"
            assert variables["member"].standard_name == "realization"
            assert variables["time"].units == "seconds since 1970-01-01 00:00:00"
            assert variables["lon"].units == "degrees_east" and variables["lat"].units == "degrees_north"
            value = variables["vorticity"]
            assert (value.standard_name, value.units) == ("atmosphere_relative_vorticity", "s-1")
            assert (value.coordinates, value.dtype) == ("time lon lat", np.float32)
            for name in ("starts_cut", "ends_cut"):
                flag = variables[name]
                assert flag.dtype == flag.flag_values.dtype == np.int8
                assert list(flag.flag_values) == [0, 1] and len(flag.flag_meanings.split()) == 2
                assert flag.coordinates == "year member"
            assert all("long_name" in it.ncattrs() for it in variables.values())

    def test_xarray_decodes_the_times(self, tmp_path: Path) -> None:
        write_tracks(tmp_path / "tracks.nc", two_storms())
        with xr.open_dataset(tmp_path / "tracks.nc") as dataset:
            assert dataset["time"].values[0] == np.datetime64("2001-02-03T04:05:06")
            assert set(dataset.coords) == {"time", "lon", "lat", "year", "member"}

    def test_xarray_decodes_the_times_of_another_calendar(self, tmp_path: Path) -> None:
        thirtieth = cftime.datetime(2001, 2, 30, 6, calendar="360_day")
        first = int(cftime.date2num(thirtieth, "seconds since 1970-01-01 00:00:00", calendar="360_day"))
        tracks = two_storms(calendar="360_day")
        write_tracks(tmp_path / "tracks.nc", replace(tracks, time=tracks.time - tracks.time[0] + first))
        with xr.open_dataset(tmp_path / "tracks.nc") as dataset:
            assert dataset["time"].values[0] == thirtieth

    def test_a_value_that_needs_double_precision_keeps_it(self, tmp_path: Path) -> None:
        tracks = two_storms(value=np.array([0.1, 1 / 3, 2.0, 1e300]))
        write_tracks(tmp_path / "tracks.nc", tracks)
        assert_same(read_tracks(tmp_path / "tracks.nc"), tracks)

    @pytest.mark.parametrize("calendar", ["standard", "360_day"])
    def test_huracanpy_reads_it(self, tmp_path: Path, calendar: str) -> None:
        tracks = two_storms(calendar=calendar, track_id=np.array([5, 3]))
        write_tracks(tmp_path / "tracks.nc", tracks)
        loaded = huracanpy.load(str(tmp_path / "tracks.nc"))
        np.testing.assert_array_equal(loaded["track_id"], [5, 5, 5, 3])
        for name in ("lon", "lat"):
            np.testing.assert_array_equal(loaded[name], getattr(tracks, name))
        np.testing.assert_array_equal(loaded["vorticity"], tracks.value)
        np.testing.assert_array_equal(loaded["time"], tracks.to_xarray()["time"])
        assert loaded["track_id"].dims == loaded["time"].dims == loaded["vorticity"].dims

    @pytest.mark.parametrize("calendar", ["standard", "360_day"])
    def test_huracanpy_reads_no_tracks(self, tmp_path: Path, calendar: str) -> None:
        write_tracks(tmp_path / "tracks.nc", no_storms(calendar=calendar))
        loaded = huracanpy.load(str(tmp_path / "tracks.nc"))
        assert loaded["track_id"].shape == loaded["lon"].shape == loaded["vorticity"].shape == (0,)
        assert loaded.attrs["candidates"] == 42

    def test_no_tracks_are_dimensions_of_length_zero(self, tmp_path: Path) -> None:
        write_tracks(tmp_path / "tracks.nc", no_storms())
        with xr.open_dataset(tmp_path / "tracks.nc") as dataset:
            assert dict(dataset.sizes) == {"trajectory": 0, "obs": 0}

    def test_an_older_file_is_replaced(self, tmp_path: Path) -> None:
        write_tracks(tmp_path / "tracks.nc", no_storms())
        write_tracks(tmp_path / "tracks.nc", two_storms())
        assert_same(read_tracks(tmp_path / "tracks.nc"), two_storms())
        assert [path.name for path in tmp_path.iterdir()] == ["tracks.nc"]

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ResultsError, match=r"cannot write .*absent.tracks\.nc: No such file(.|\n)*make the folder"):
            write_tracks(tmp_path / "absent" / "tracks.nc", two_storms())

    def test_a_missing_folder_for_temporary_files_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
        with pytest.raises(ResultsError, match=r"temporary files, .*absent(.|\n)*TMPDIR"):
            write_tracks(tmp_path / "tracks.nc", no_storms())
        assert list(tmp_path.iterdir()) == []


WRITE_BOTH = """
import sys
sys.path.insert(0, sys.argv[1])
from test_tracks import no_storms, two_storms
from stormtracks.tracks import write_tracks
write_tracks(sys.argv[2], two_storms())
write_tracks(sys.argv[3], no_storms())
"""


class TestSameBytes:
    def write_elsewhere(self, folder: Path) -> tuple[bytes, bytes]:
        two, none = folder / "two.nc", folder / "none.nc"
        subprocess.run([sys.executable, "-c", WRITE_BOTH, str(Path(__file__).parent), two, none], check=True)
        return two.read_bytes(), none.read_bytes()

    def test_another_process_at_another_time_writes_the_same(self, tmp_path: Path) -> None:
        first = self.write_elsewhere(tmp_path)
        # HDF5 keeps times in whole seconds: it is enough that the clock has moved on by one.
        began = int(time.time())
        while int(time.time()) <= began:
            time.sleep(0.01)
        assert self.write_elsewhere(tmp_path) == first

    @pytest.mark.parametrize("tracks", [two_storms(), no_storms()], ids=["two", "none"])
    def test_leftovers_of_memory_do_not_show(self, tmp_path: Path, tracks: Tracks) -> None:
        written = set()
        for filling in range(20):
            np.full(300_000, filling, dtype=np.uint8)
            write_tracks(tmp_path / "tracks.nc", tracks)
            written.add((tmp_path / "tracks.nc").read_bytes())
        assert len(written) == 1

    def test_the_order_of_attributes_does_not_show(self, tmp_path: Path) -> None:
        tracks = two_storms()
        backwards = replace(tracks, attributes=dict(reversed(tracks.attributes.items())))
        write_tracks(tmp_path / "a.nc", tracks)
        write_tracks(tmp_path / "b.nc", backwards)
        assert (tmp_path / "a.nc").read_bytes() == (tmp_path / "b.nc").read_bytes()

    def test_small_files_are_small(self, tmp_path: Path) -> None:
        write_tracks(tmp_path / "two.nc", two_storms())
        assert (tmp_path / "two.nc").stat().st_size < 4096
        write_tracks(tmp_path / "none.nc", no_storms())
        assert (tmp_path / "none.nc").stat().st_size < 16384


class TestBrokenFile:
    @pytest.fixture(params=[two_storms(), no_storms()], ids=["two", "none"])
    def file(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        write_tracks(tmp_path / "tracks.nc", request.param)
        return tmp_path / "tracks.nc"

    def test_a_change_of_any_byte_is_found(self, file: Path) -> None:
        data = file.read_bytes()
        # Every byte of the beginning and the end, and a sample of those between.
        offsets = {*range(64), *range(64, len(data) - 96, 13), *range(len(data) - 96, len(data))}
        for offset in sorted(offsets):
            changed = bytearray(data)
            changed[offset] ^= 1 << (offset % 8)
            file.write_bytes(changed)
            with pytest.raises(ResultsError, match=r"tracks\.nc"):
                read_tracks(file)

    def test_a_missing_end_is_found(self, file: Path) -> None:
        data = file.read_bytes()
        for length in {*range(1, len(data), 97), *range(len(data) - 96, len(data))}:
            file.write_bytes(data[:length])
            with pytest.raises(ResultsError, match=r"truncated|not a file of tracks"):
                read_tracks(file)

    def test_an_edited_value_is_found(self, tmp_path: Path) -> None:
        path = tmp_path / "tracks.nc"
        write_tracks(path, two_storms())
        data = path.read_bytes()
        body, seal = data[:-85], data[-85:]
        assert seal == b"\nstormtracks sha256 " + hashlib.sha256(body).hexdigest().encode() + b"\n"
        edited = body.replace(struct.pack(">d", 50.1234), struct.pack(">d", 51.1234))
        path.write_bytes(edited + b"\nstormtracks sha256 " + hashlib.sha256(edited).hexdigest().encode() + b"\n")
        with pytest.raises(ResultsError, match="content_sha256"):
            read_tracks(path)
        assert read_tracks(path, verify=False).lat[1] == 51.1234

    def test_a_file_that_another_program_wrote_is_read_when_asked(self, tmp_path: Path) -> None:
        two_storms().to_xarray().to_netcdf(tmp_path / "tracks.nc")
        with pytest.raises(ResultsError, match="another program"):
            read_tracks(tmp_path / "tracks.nc")
        assert_same(read_tracks(tmp_path / "tracks.nc", verify=False), two_storms())

    @pytest.mark.parametrize("verify", [True, False])
    def test_what_is_no_file_of_tracks_is_refused(self, tmp_path: Path, verify: bool) -> None:
        with pytest.raises(ResultNotFoundError, match="there is no file"):
            read_tracks(tmp_path / "absent.nc", verify=verify)
        with pytest.raises(ResultsError, match="cannot read"):
            read_tracks(tmp_path, verify=verify)
        for content in (b"", b"lon,lat\n1,2\n"):
            (tmp_path / "text.nc").write_bytes(content)
            with pytest.raises(ResultsError, match=r"not NetCDF|not a NetCDF file"):
                read_tracks(tmp_path / "text.nc", verify=verify)

    def test_a_netcdf_file_of_something_else_is_refused(self, tmp_path: Path) -> None:
        xr.Dataset({"prmsl": ("time", [1.0])}).to_netcdf(tmp_path / "field.nc")
        with pytest.raises(ResultsError, match="lacks row_size, track_id"):
            read_tracks(tmp_path / "field.nc", verify=False)


BAD = {
    "row_size adds up to 5": {"row_size": np.array([3, 2])},
    "row_size holds numbers below 1": {"row_size": np.array([4, 0])},
    "member has shape (1,), (2,) is needed": {"member": np.array([1])},
    "lat has shape (3,), (4,) is needed": {"lat": np.zeros(3)},
    "value holds values that are not finite": {"value": np.array([1, 2, np.nan, 3])},
    "lon is not within": {"lon": np.array([1.0, 2, 360, 3])},
    "lat is not within": {"lat": np.array([1.0, 2, 90.0001, 3])},
    "times do not increase": {"time": np.array([0, 10, 10, 0])},
    "only 1 of 2 tracks differ": {"track_id": np.array([1, 1])},
    "track_id needs more than 32 bits": {"track_id": np.array([1, 2**31])},
    "time lies further": {"time": np.array([0, 1, 2**53 + 2, 0])},
    "calendar 'lunar' is not one of": {"calendar": "lunar"},
    "quantity has no name": {"quantity": Quantity("", "", "")},
    "'w\\x00' cannot be stored": {"quantity": Quantity("w\0", "", "")},
    "'s\\x00' cannot be stored": {"quantity": Quantity("vorticity", "", "s\0")},
    "attribute 'source' is set on writing": {"attributes": {"source": "me"}},
    "'a b' cannot name an attribute": {"attributes": {"a b": 1}},
    "count = 2147483648 is no": {"attributes": {"count": 2**31}},
    "share = nan is no": {"attributes": {"share": float("nan")}},
    "flag = True is no": {"attributes": {"flag": True}},
    "names = ['a'] is no": {"attributes": {"names": ["a"]}},
}


@pytest.mark.parametrize("what", BAD)
def test_bad_tracks_are_refused_and_nothing_is_written(tmp_path: Path, what: str) -> None:
    with pytest.raises(ResultsError) as caught:
        write_tracks(tmp_path / "tracks.nc", two_storms(**BAD[what]))
    assert what in str(caught.value)
    assert list(tmp_path.iterdir()) == []


class TestDigest:
    @given(tracks=any_tracks(), data=st.data())
    @settings(max_examples=100)
    def test_any_change_of_a_number_changes_it(self, tracks: Tracks, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(ARRAYS))
        array = getattr(tracks, name).copy()
        if not len(array):
            return
        place = data.draw(st.integers(0, len(array) - 1))
        if array.dtype == np.bool_:
            array[place] = not array[place]
        elif array.dtype == np.int64:
            array[place] += data.draw(st.sampled_from((-1, 1, 2**20)))
        else:
            array[place] = np.nextafter(array[place], data.draw(st.sampled_from((-np.inf, np.inf))))
        assert digest(replace(tracks, **{name: array})) != digest(tracks)

    @pytest.mark.parametrize(
        "changes",
        [
            {"calendar": "noleap"},
            {"quantity": Quantity("vorticity", "atmosphere_relative_vorticity", "1e-5 s-1")},
            {"quantity": Quantity("vo", "atmosphere_relative_vorticity", "s-1")},
            {"quantity": Quantity("vorticity", "", "s-1")},
            {"attributes": {}},
            {"attributes": {"settings_hash": "0123456789abcdef", "candidates": 42.0, "threshold": 4e-5}},
            {"row_size": np.array([2, 2])},
        ],
    )
    def test_any_change_of_what_they_are_changes_it(self, changes: dict[str, Any]) -> None:
        assert digest(two_storms(**changes)) != digest(two_storms())

    def test_it_is_the_same_on_every_machine(self) -> None:
        tracks = two_storms()
        swapped = replace(tracks, lon=tracks.lon.astype(">f8"), time=tracks.time.astype(">i8"))
        assert digest(swapped) == digest(tracks)
        assert digest(tracks) == "c099f2b59846eeeadab30dcab054d66ba874d6e25b875958864cb2d6e29e8ee0"


class TestConcatenate:
    def test_tracks_follow_each_other_and_shared_attributes_stay(self) -> None:
        first = two_storms()
        second = two_storms(member=np.array([8, 8]), attributes={**first.attributes, "candidates": 1})
        both = concatenate([first, no_storms(), second])
        np.testing.assert_array_equal(both.member, [7, 7, 8, 8])
        np.testing.assert_array_equal(both.lon, np.append(first.lon, second.lon))
        assert both.attributes == {"settings_hash": "0123456789abcdef", "threshold": 4e-5}

    def test_numbers_that_repeat_stay_and_get_an_identifier_that_does_not(self, tmp_path: Path) -> None:
        both = concatenate([two_storms(), two_storms(member=np.array([8, 8]))])
        write_tracks(tmp_path / "both.nc", both)
        assert_same(read_tracks(tmp_path / "both.nc"), both)
        with xr.open_dataset(tmp_path / "both.nc") as dataset:
            np.testing.assert_array_equal(dataset["track_id"], [1, 2, 3, 4])
            np.testing.assert_array_equal(dataset["track_number"], [1, 2, 1, 2])
        loaded = huracanpy.load(str(tmp_path / "both.nc"))
        np.testing.assert_array_equal(loaded["track_id"], [1, 1, 1, 2, 3, 3, 3, 4])

    def test_one_is_itself(self) -> None:
        assert_same(concatenate([two_storms()]), two_storms())

    @pytest.mark.parametrize("changes", [{"calendar": "noleap"}, {"quantity": Quantity("prmsl", "", "Pa")}])
    def test_different_kinds_are_refused(self, changes: dict[str, Any]) -> None:
        with pytest.raises(ResultsError, match="one quantity and calendar"):
            concatenate([two_storms(), two_storms(**changes)])

    def test_nothing_is_refused(self) -> None:
        with pytest.raises(ResultsError, match="empty"):
            concatenate([])
