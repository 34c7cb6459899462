"""The command line as a user meets it: what it prints, what it leaves, and how it ends."""

import ast
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import xarray as xr

from stormtracks.grid import Grid
from stormtracks.synthetic import NoiseStatistics, SyntheticEnsemble, write
from stormtracks.tracks import read_tracks

COARSE = Grid(np.linspace(90, -90, 61), np.arange(0, 360, 3.0))


def stormtracks(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stormtracks.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two months over a new year, three members, in the layout of 20CR v2."""
    root = tmp_path_factory.mktemp("archive")
    ensemble = SyntheticEnsemble((2001, 12, 1), (2002, 2, 1), members=3, grid=COARSE)
    write(ensemble, root / "data", layout="c20", variables=("u850", "v850", "prmsl"))
    return root


@pytest.fixture
def campaign(archive: Path, tmp_path: Path) -> Path:
    path = tmp_path / "campaign.toml"
    path.write_text(f'name = "test"\nyears = "2001-2002"\n[data]\nroot = "{archive / "data"}"\n', encoding="utf-8")
    return path


def results(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("results/**/*.nc"))}


def test_a_campaign_runs_resumes_and_repeats_byte_for_byte(campaign: Path, tmp_path: Path) -> None:
    one = stormtracks("run", campaign, "--out", tmp_path / "one", "--workers", "1")
    assert one.returncode == 0, one.stderr
    assert one.stdout.splitlines()[-1].startswith("6 of 6 tasks complete; ")
    first = results(tmp_path / "one")
    assert sorted(first) == [f"results/vort_track/{y}/m{m:03d}.nc" for y in (2001, 2002) for m in (1, 2, 3)]

    # Whatever was dropped is counted; the storms of the year before the first are none of the data's here.
    assert "extrema" in one.stdout.splitlines()[-2]
    assert "0 born before the first year" in one.stdout.splitlines()[-2]

    two = stormtracks("run", campaign, "--out", tmp_path / "two", "--workers", "2", "--quiet")
    assert len(two.stdout.splitlines()) == 2
    assert results(tmp_path / "two") == first

    damaged = tmp_path / "one/results/vort_track/2002/m002.nc"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    (tmp_path / "one/results/vort_track/2001/m001.nc").unlink()
    again = stormtracks("run", campaign, "--out", tmp_path / "one", "--json")
    lines = [json.loads(line) for line in again.stdout.splitlines()]
    assert sorted((line["year"], line["member"]) for line in lines if line["event"] == "complete") == [
        (2001, 1),
        (2002, 2),
    ]
    assert lines[-1]["found"] == 4
    assert results(tmp_path / "one") == first

    status = stormtracks("status", tmp_path / "one")
    assert "2001: +++" in status.stdout
    assert json.loads(stormtracks("status", tmp_path / "one", "--json").stdout)["state"] == "complete"


def test_storms_born_before_the_campaign_are_counted_and_not_published(campaign: Path, tmp_path: Path) -> None:
    campaign.write_text(campaign.read_text(encoding="utf-8").replace("2001-2002", "2002"), encoding="utf-8")
    run = stormtracks("run", campaign, "--out", tmp_path / "out", "--json")
    born_before = json.loads(run.stdout.splitlines()[-1])["totals"]["born before the first year"]
    tracks = read_tracks(tmp_path / "out/results/vort_track/2002/m001.nc")
    new_year = np.datetime64("2002-01-01").astype("datetime64[s]").astype(int)
    starts = tracks.time[np.cumsum(tracks.row_size) - tracks.row_size]
    assert born_before > 0
    assert starts.min() >= new_year
    assert not tracks.starts_cut.any()


def test_other_settings_are_refused_with_the_difference(campaign: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert stormtracks("run", campaign, "--out", out).returncode == 0
    before = results(out)
    campaign.write_text(campaign.read_text(encoding="utf-8") + "[tracking]\nmin_points = 9\n", encoding="utf-8")
    refused = stormtracks("run", campaign, "--out", out)
    assert refused.returncode == 2
    assert "tracking.min_points: 6 -> 9" in refused.stderr
    assert "--replace" in refused.stderr
    assert results(out) == before
    assert stormtracks("run", campaign, "--out", out, "--replace").returncode == 0
    assert read_tracks(out / "results/vort_track/2001/m001.nc").row_size.min() >= 9


def test_one_bad_file_fails_its_tasks_alone_and_says_why(tmp_path: Path) -> None:
    ensemble = SyntheticEnsemble((2001, 12, 1), (2002, 1, 11), members=3, grid=COARSE)
    write(ensemble, tmp_path / "data", layout="c20v3")
    broken = tmp_path / "data/2002/VGRD850.2002_mem002.nc"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    (tmp_path / "c.toml").write_text('years = "2001-2002"\n[data]\nlayout = "c20v3"\n', encoding="utf-8")
    run = stormtracks("run", "c.toml", "--out", "out", cwd=tmp_path)
    assert run.returncode == 1
    # The task of 2001 reads on into 2002, so both years of that member fail; all else is complete.
    last = run.stdout.splitlines()[-1]
    assert last.startswith("4 of 6 tasks complete, 2 failure; ")
    assert "2002 m002 failure" in run.stdout
    assert "VGRD850.2002_mem002.nc" in run.stdout
    assert "to go on: stormtracks run c.toml --out out" in run.stdout
    status = stormtracks("status", "out", cwd=tmp_path)
    assert "2001: +F+" in status.stdout
    # What is wrong with a file is wrong the next time, too.
    assert "attempt 1 on" in status.stdout
    assert "attempt 2" not in status.stdout + run.stdout
    write(ensemble, tmp_path / "data", layout="c20v3")
    mended = stormtracks("run", "c.toml", "--out", "out", cwd=tmp_path)
    assert mended.returncode == 0
    assert "(4 already before)" in mended.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ('years = "1999-2001"', "no data for 1999, 2000"),
        ("members = 9", "there are only 3 under"),
        ('members = "2-4"', "'members': no 4 under"),
        ("task = 'rain_track'", "unknown task 'rain_track'"),
        ("yeers = 2001", "did you mean 'years'"),
    ],
)
def test_what_the_data_do_not_hold_is_refused_before_anything_runs(
    archive: Path, tmp_path: Path, setting: str, says: str
) -> None:
    (tmp_path / "c.toml").write_text(f'{setting}\n[data]\nroot = "{archive / "data"}"\n', encoding="utf-8")
    run = stormtracks("run", tmp_path / "c.toml", "--out", tmp_path / "out")
    assert run.returncode == 2
    assert says in run.stderr
    assert not (tmp_path / "out").exists()


def test_track_follows_one_series_through_all_its_files(archive: Path, tmp_path: Path) -> None:
    files = sorted((archive / "data").glob("*/[uv]850_*.nc"))
    track = stormtracks("track", *files, "--wind", "u850,v850", "--member", "2", "-o", tmp_path / "t.nc")
    assert track.returncode == 0, track.stderr
    with xr.open_dataset(tmp_path / "t.nc") as tracks:
        count = tracks.sizes["trajectory"]
        assert set(tracks["member"].values) == {2}
        times = tracks["time"].values
        # Some storm lives over new year, in one piece.
        ends = np.cumsum(tracks["row_size"].values)
        new_year = np.datetime64("2002-01-01")
        assert ((times[ends - tracks["row_size"].values] < new_year) & (times[ends - 1] >= new_year)).any()
    assert track.stdout.splitlines()[-1] == f"{count} tracks of {len(times)} points written to {tmp_path / 't.nc'}"

    pressure = sorted((archive / "data").glob("*/prmsl_*.nc"))
    options = [
        "--mode",
        "min",
        "--threshold",
        "100500",
        "--method",
        "assignment",
        "--max-gap",
        "1",
        "--merge-km",
        "300",
    ]
    low = stormtracks("track", *pressure, "--variable", "prmsl", *options, "-o", tmp_path / "p.nc")
    assert low.returncode == 0, low.stderr
    found = read_tracks(tmp_path / "p.nc")
    assert sorted(set(found.member)) == [1, 2, 3]
    assert found.value.max() <= 100500


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["absent.nc", "--variable", "x"], 1, "absent.nc"),
        (["{u}", "--variable", "vorticity"], 1, "variable 'vorticity'"),
        (["{u}", "--wind", "u850,v850"], 1, "v850"),
        (["{u}", "--wind", "u850"], 2, "u850,v850"),
        (["{u}"], 2, "--variable --wind"),
        (
            ["{u}", "--variable", "u850", "--mode", "max", "--threshold", "1e6"],
            1,
            "no local maximum that reaches 1e+06",
        ),
        (["{u}", "--variable", "u850", "--max-speed", "fast"], 2, "tracking.max_speed"),
        (["{u}", "--variable", "u850", "--member", "7"], 1, "member 7"),
    ],
)
def test_a_bad_call_of_track_says_what_is_wrong_and_writes_nothing(
    archive: Path, tmp_path: Path, arguments: list[str], status: int, says: str
) -> None:
    u850 = archive / "data/2001/u850_2001.nc"
    output = tmp_path / "tracks.nc"
    run = stormtracks("track", *(argument.format(u=u850) for argument in arguments), "-o", output, cwd=tmp_path)
    assert run.returncode == status
    assert says in run.stderr
    assert "Traceback" not in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_status_of_a_folder_without_a_campaign(tmp_path: Path) -> None:
    status = stormtracks("status", tmp_path)
    assert status.returncode == 1
    assert "no campaign in" in status.stderr


def test_the_season_with_which_the_data_begin_belongs_to_the_year_before(tmp_path: Path) -> None:
    ensemble = SyntheticEnsemble((2002, 1, 1), (2002, 1, 20), members=1, grid=COARSE)
    write(ensemble, tmp_path / "data", layout="c20v3")
    (tmp_path / "c.toml").write_text('years = 2001\nseason = "DJF"\n[data]\nlayout = "c20v3"\n', encoding="utf-8")
    run = stormtracks("run", "c.toml", "--out", "out", "--quiet", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    tracks = read_tracks(tmp_path / "out/results/vort_track/2001/m001.nc")
    assert len(tracks) > 10
    assert set(tracks.year) == {2001}
    assert "(1 already before)" in stormtracks("run", "c.toml", "--out", "out", "--quiet", cwd=tmp_path).stdout


def test_changed_input_is_noticed(tmp_path: Path) -> None:
    ensemble = SyntheticEnsemble((2001, 12, 1), (2002, 1, 15), members=2, grid=COARSE)
    write(ensemble, tmp_path / "data", layout="c20v3")
    (tmp_path / "c.toml").write_text('years = 2001\n[data]\nlayout = "c20v3"\n', encoding="utf-8")
    later = tmp_path / "2002"
    (tmp_path / "data/2002").rename(later)
    run = ["run", "c.toml", "--out", "out", "--quiet"]
    assert stormtracks(*run, cwd=tmp_path).returncode == 0
    cut = read_tracks(tmp_path / "out/results/vort_track/2001/m001.nc")
    assert cut.ends_cut.any()
    # A neighbour that has come since: storms over new year are followed to their end now.
    later.rename(tmp_path / "data/2002")
    assert "already" not in stormtracks(*run, cwd=tmp_path).stdout
    assert not read_tracks(tmp_path / "out/results/vort_track/2001/m001.nc").ends_cut.any()
    assert "(2 already before)" in stormtracks(*run, cwd=tmp_path).stdout
    # Other data of one member.
    write(SyntheticEnsemble((2001, 12, 1), (2002, 1, 15), seed=5, grid=COARSE), tmp_path / "other", layout="c20v3")
    name = "2001/VGRD850.2001_mem002.nc"
    (tmp_path / "other" / name).replace(tmp_path / "data" / name)
    assert "(1 already before)" in stormtracks(*run, cwd=tmp_path).stdout


def test_nothing_of_the_users_is_overwritten(archive: Path, tmp_path: Path) -> None:
    u850 = tmp_path / "u850.nc"
    u850.write_bytes((archive / "data/2001/u850_2001.nc").read_bytes())
    before = u850.read_bytes()
    for name in ("u850.nc", "./sub/../u850.nc"):
        (tmp_path / "sub").mkdir(exist_ok=True)
        run = stormtracks("track", "u850.nc", "--variable", "u850", "-o", name, cwd=tmp_path)
        assert run.returncode == 1
        assert "is one of the input files" in run.stderr
    assert u850.read_bytes() == before

    mine = tmp_path / "mine"
    (mine / "data").mkdir(parents=True)
    (mine / "data/model.nc").write_bytes(b"precious")
    (mine / "campaign.toml").write_text('name = "mine"', encoding="utf-8")
    for replace in ([], ["--replace"]):
        demo = stormtracks("demo", "--out", mine, *replace)
        assert demo.returncode == 2
        assert "no demonstration's" in demo.stderr
    assert (mine / "data/model.nc").read_bytes() == b"precious"


def test_output_that_cannot_be_written_is_no_traceback(archive: Path, tmp_path: Path) -> None:
    command = f"{sys.executable} -m stormtracks.cli settings"
    for redirection in (">/dev/full", ">&-"):
        run = subprocess.run(
            ["bash", "-c", f"{command} {redirection}"], capture_output=True, text=True, timeout=60, check=False
        )
        assert "Traceback" not in run.stderr


@pytest.fixture(scope="module")
def finished(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a campaign of one year and two members, and beside them its file."""
    root = tmp_path_factory.mktemp("finished")
    text = f'years = 2001\nmembers = 2\n[data]\nroot = "{archive / "data"}"\n[run]\nbackend = "local"\n'
    (root / "c.toml").write_text(text, encoding="utf-8")
    run = stormtracks("run", "c.toml", "--out", "out", "--quiet", cwd=root)
    assert run.returncode == 0, run.stderr
    return root


@pytest.fixture
def record(finished: Path, tmp_path: Path) -> Path:
    """A folder with a copy of it."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_the_record_of_a_campaign_is_told_converted_and_copied(record: Path) -> None:
    document = json.loads(stormtracks("store", "info", "out", "--json", cwd=record).stdout)
    story = stormtracks("status", "out", "--why", "2001", "2", "--json", cwd=record).stdout
    for store_format in ("json", "zarr", "sqlite"):
        convert = stormtracks("store", "convert", "out", "--to", store_format, cwd=record)
        assert convert.returncode == 0, convert.stderr
        info = stormtracks("store", "info", "out", cwd=record).stdout
        assert info.startswith(f"{store_format} store out/campaign/")
        assert (
            "vort_track: 2 tasks: 2 complete\n  2 attempts in 2 rounds\n  results: 2 of 2, the latest change " in info
        )
        assert "1 start of a manager" in info
        assert stormtracks("status", "out", "--why", "2001", "2", "--json", cwd=record).stdout == story
    assert "holds a sqlite store already" in stormtracks("store", "convert", "out", "--to", "sqlite", cwd=record).stdout

    assert "out/campaign.copy" in stormtracks("store", "copy", "out", cwd=record).stdout
    there = stormtracks("store", "copy", "out", "elsewhere/campaign", cwd=record)
    assert there.returncode == 0, there.stderr
    copied = json.loads(stormtracks("store", "info", "elsewhere", "--json", cwd=record).stdout)
    assert {**copied, "path": "", "bytes": 0} == {**document, "path": "", "bytes": 0}
    again = stormtracks("store", "copy", "out", "elsewhere/campaign", cwd=record)
    assert (again.returncode, "there is something at" in again.stderr) == (1, True)


def test_a_record_is_deleted_when_its_owner_says_so(record: Path) -> None:
    unasked = stormtracks("store", "delete", "out", cwd=record)
    assert (unasked.returncode, "remedy: give --yes" in unasked.stderr) == (1, True)
    for answer, is_there in ((b"n\n", True), (b"y\n", False)):
        terminal, slave = pty.openpty()
        os.write(terminal, answer)
        command = [sys.executable, "-m", "stormtracks.cli", "store", "delete", "out"]
        delete = subprocess.run(
            command, stdin=slave, capture_output=True, text=True, cwd=record, timeout=60, check=True
        )
        os.close(terminal)
        os.close(slave)
        assert "Delete the campaign in out/campaign for good?" in delete.stdout
        assert (record / "out/campaign").exists() is is_there
    assert len(results(record / "out")) == 2
    # What is left is found again.
    run = stormtracks("run", "c.toml", "--out", "out", "--quiet", cwd=record)
    assert "2 of 2 tasks complete (2 already before)" in run.stdout


def test_a_damaged_record_can_be_deleted(record: Path) -> None:
    store = record / "out/campaign/store.sqlite"
    store.write_bytes(store.read_bytes()[:5000])
    for command in (["store", "info", "out"], ["status", "out"], ["store", "convert", "out", "--to", "json"]):
        refused = stormtracks(*command, cwd=record)
        assert (refused.returncode, "damaged" in refused.stderr, "remedy:" in refused.stderr) == (1, True, True)
    assert "was deleted" in stormtracks("store", "delete", "out", "--yes", cwd=record).stdout
    assert not (record / "out/campaign").exists()


def test_a_campaign_that_is_being_worked_on_is_left_alone(record: Path) -> None:
    from stormtracks.cluster.manager_lock import hold_campaign

    with hold_campaign(record / "out"):
        for command in (
            ["store", "convert", "out", "--to", "json"],
            ["store", "delete", "out", "--yes"],
            ["rerun", "out", "--all"],
        ):
            refused = stormtracks(*command, cwd=record)
            assert (refused.returncode, f"held by process {os.getpid()} on" in refused.stderr) == (1, True), command
        for command in (["store", "info", "out"], ["store", "copy", "out"], ["status", "out"]):
            assert stormtracks(*command, cwd=record).returncode == 0, command


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["store", "info", "nowhere"], 1, "no campaign in nowhere"),
        (["store", "convert", "nowhere", "--to", "json"], 1, "no campaign store in nowhere/campaign"),
        (["store", "convert", "out", "--to", "hdf5"], 2, "invalid choice: 'hdf5'"),
        (["store", "delete", "nowhere", "--yes"], 1, "no campaign store in nowhere/campaign"),
        (["store"], 2, "ACTION"),
        (["rerun", "out"], 2, "--failed, --all, or some of --year and --member"),
        (["rerun", "out", "--all", "--failed"], 2, "not allowed with"),
        (["rerun", "out", "--year", "MMI"], 2, "--year: 'MMI' is neither"),
        (["rerun", "out", "--year", "1999"], 1, "has no year 1999"),
        (["rerun", "nowhere", "--all"], 1, "no campaign in nowhere"),
        (["status", "out", "--why", "2001", "9"], 1, "member 9"),
        (["certs", "nowhere.toml"], 2, "nowhere.toml"),
    ],
)
def test_what_cannot_be_done_with_a_campaign_is_said_and_leaves_nothing(
    record: Path, arguments: list[str], status: int, says: str
) -> None:
    def held() -> dict[Path, bytes]:
        # Two more files are where readers of an SQLite data base get along with writers.
        files = [path for path in record.rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in files}

    before = held()
    run = stormtracks(*arguments, cwd=record)
    assert (run.returncode, says in run.stderr, "Traceback" in run.stderr) == (status, True, False), run.stderr
    after = held()
    assert {path: data for path, data in after.items() if path.name != "manager.lock"} == {
        path: data for path, data in before.items() if path.name != "manager.lock"
    }
    assert after.keys() == before.keys()


def test_tasks_are_done_once_more_when_asked_for(record: Path) -> None:
    before = results(record / "out")
    assert "nothing to mark" in stormtracks("rerun", "out", "--failed", cwd=record).stdout
    rerun = stormtracks("rerun", "out", "--year", "2001", "--member", "2-2", cwd=record)
    assert rerun.stdout == "1 task will be done once more\nto go on: stormtracks run c.toml --out out\n"
    assert "2001: +-" in stormtracks("status", "out", cwd=record).stdout
    run = stormtracks("run", "c.toml", "--out", "out", "--quiet", cwd=record)
    assert "2 of 2 tasks complete (1 already before)" in run.stdout
    assert results(record / "out") == before
    story = json.loads(stormtracks("status", "out", "--why", "2001", "2", "--json", cwd=record).stdout)
    assert [len(one["attempts"]) for one in story["rounds"]] == [1, 1]
    assert "round 2: rerun" in stormtracks("status", "out", "--why", "2001", "2", cwd=record).stdout


def test_certificates_are_made_kept_and_renewed(record: Path) -> None:
    def made() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (record / "stormtracks-certs").rglob("*") if path.is_file()}

    first = stormtracks("certs", "c.toml", cwd=record)
    assert first.returncode == 0 and first.stdout, first.stderr
    files = made()
    assert files and all(path.stat().st_mode & 0o077 == 0 for path, data in files.items() if b"PRIVATE KEY" in data)
    assert stormtracks("certs", "c.toml", cwd=record).returncode == 0
    assert made() == files
    assert stormtracks("certs", "c.toml", "--renew", cwd=record).returncode == 0
    renewed = made()
    assert {path.name for path in renewed if renewed[path] != files[path]} == {"manager.pem"}


@pytest.mark.parametrize("arguments", [["--help"], ["store", "--help"], ["store", "convert", "--help"]])
def test_help_comes_at_once(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom stormtracks.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    print(sorted(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(ast.literal_eval(shown.stdout.splitlines()[-1]))
    assert "stormtracks.cli" in loaded
    heavy = {
        "numpy",
        "xarray",
        "netCDF4",
        "scipy",
        "Pyro5",
        "matplotlib",
        "pydantic",
        "zarr",
        "sqlite3",
        "cryptography",
    }
    assert not loaded & heavy


def session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_what_runs_end_and_the_same_command_goes_on(
    campaign: Path, tmp_path: Path, number: signal.Signals
) -> None:
    arguments = ("run", campaign, "--out", tmp_path / "out", "--backend", "local", "--workers", "1", "--json")
    command = subprocess.Popen(
        [sys.executable, "-m", "stormtracks.cli", *arguments], stdout=subprocess.PIPE, text=True, process_group=0
    )
    assert command.stdout is not None
    assert json.loads(command.stdout.readline())["event"] == "begun"
    os.killpg(command.pid, number)
    out = command.stdout.read()
    assert command.wait(120) == 130
    told = [json.loads(line) for line in out.splitlines()]
    events = [one["event"] for one in told]
    assert events.count("draining") == 1
    assert "lost" not in events
    assert events.count("complete") == events.count("begun") + 1 == told[-1]["counts"]["complete"] < 6
    again = stormtracks(*arguments)
    assert again.returncode == 0
    assert json.loads(again.stdout.splitlines()[-1])["found"] == told[-1]["counts"]["complete"]


def test_the_demo_finds_the_storms_it_made(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    run = stormtracks("demo", "--out", out, "--members", "2", "--workers", "2")
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert any("probability of detection" in line for line in lines)
    assert (out / "map.png").stat().st_size > 20_000
    # Nothing that belongs to the session of the command is left.
    command = subprocess.Popen(
        [sys.executable, "-m", "stormtracks.cli", "demo", "--out", out, "--members", "2", "--json"],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert command.wait(timeout=120) == 0
    assert [pid for pid in psutil.pids() if session_of(pid) == command.pid] == []

    again = stormtracks("demo", "--out", out, "--members", "2")
    assert "(4 already before)" in again.stdout
    other = stormtracks("demo", "--out", out, "--members", "2", "--seed", "1")
    assert other.returncode == 2
    assert "'seed': 0" in other.stderr


def test_storms_of_known_truth_are_found_with_default_settings(tmp_path: Path) -> None:
    from stormtracks.demo import Demonstration
    from stormtracks.settings.load import load_settings
    from stormtracks.tasks import run_task

    demonstration = Demonstration(tmp_path, 2001, 2002, members=2, seed=7)
    demonstration.write_input()
    campaign = load_settings(demonstration.campaign_file, environment={}).campaign
    for year in (2001, 2002):
        for member in (1, 2):
            run_task(year, member, "vort_track", settings=campaign.model_dump(mode="json"), first_years=[2001])
    found = demonstration.verify(campaign)
    assert found.hits + found.misses >= 2 * 60
    assert found.probability_of_detection >= 0.98
    assert found.false_alarm_ratio <= 0.02
    assert found.mean_position_error_km < 35


def test_without_noise_every_storm_is_placed_far_below_the_grid(tmp_path: Path) -> None:
    from stormtracks.scores import verify
    from stormtracks.tasks import track_file

    ensemble = SyntheticEnsemble((2001, 6, 1), (2001, 7, 1), members=1, noise=NoiseStatistics(vorticity=0.0))
    files = write(ensemble, tmp_path, layout="cf")
    for method in ("nearest", "assignment"):
        from stormtracks.settings.campaign import TrackingSettings

        tracks = track_file(files, wind=("u850", "v850"), tracking=TrackingSettings(method=method))
        found = verify(tracks, ensemble.truth(1))
        assert (found.misses, found.false_alarms) == (0, 0)
        assert found.mean_position_error_km < 12
