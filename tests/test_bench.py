"""The benchmark runs and prints what it says it does; how long anything takes is not tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stormtracks.synthetic import SyntheticEnsemble, write

ROOT = Path(__file__).resolve().parents[1]
SPREADS = ("wall_s", "cpu_s", "peak_mib")
CONTESTS = ["pressure", "vorticity", "member-year", "bundles", "splitting", "workers", "start-up"]
PEERS = ["pressure-peer", "vorticity-peer"]


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts" / "bench", "--here", "--quick", "--rounds", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=540, check=False)


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return import_module("benchmarks.measure")


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return import_module("benchmarks.table")


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return import_module("benchmarks.targets")


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return import_module("benchmarks.scaling")


@pytest.fixture(scope="module")
def document(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = bench("--data", shared_data / "era5_djf", "--cache", tmp_path_factory.mktemp("cache"))
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def spreads_of(entry: dict[str, Any]) -> list[dict[str, float]]:
    start = spreads_of(entry["start"]) if "start" in entry else []
    return [entry[name] for name in SPREADS] + start


def contests_of(document: dict[str, Any]) -> dict[str, Any]:
    """The figures that are measured against a reference."""
    return {name: figure for name, figure in document["figures"].items() if "reference" in figure}


# Every figure runs once: a minute of work, and several on a machine that does other things too.
@pytest.mark.timeout(600)
class TestCommand:
    def test_measures_every_figure_against_its_reference(self, document: dict[str, Any]) -> None:
        others = ["memory", "worker-start", "imports", "linking", "fleet", "dispatch", "overhead", "store"]
        assert sorted(document["figures"]) == sorted([*CONTESTS, *PEERS, *others])
        assert [name for name in contests_of(document) if name not in PEERS] == CONTESTS
        for figure in contests_of(document).values():
            reference = figure["reference"]
            for entry in (reference, *figure["ours"].values()):
                assert all(0 < spread["min"] <= spread["median"] <= spread["max"] for spread in spreads_of(entry))
            for entry in figure["ours"].values():
                for name in ("wall_s", "cpu_s"):
                    expected = entry[name]["median"] / reference[name]["median"]
                    assert entry["ratio"][name]["median"] == pytest.approx(expected, rel=0.05)

    def test_tracks_what_it_says(self, document: dict[str, Any]) -> None:
        ours = {name: figure["ours"] for name, figure in contests_of(document).items()}
        assert set(ours["member-year"]) == {
            "track, nearest",
            "track, assignment",
            "track, above 4e-5",
            "run, above 4e-5",
        }
        assert ours["bundles"]["run"]["found"]["tracks"] > ours["bundles"]["run, above 4e-5"]["found"]["tracks"] > 0
        for entry in (*ours["member-year"].values(), *ours["pressure"].values(), *ours["vorticity"].values()):
            assert entry["found"]["tracks"] > 0
        # The small scales make the series as dense in centres as an analysis on this grid.
        assert 2500 < ours["pressure"]["track, nearest"]["centres_per_step"] < 4500
        assert 15_000 < ours["vorticity"]["track, nearest, all"]["centres_per_step"] < 25_000

    def test_names_machine_and_versions(self, document: dict[str, Any]) -> None:
        machine = document["machine"]
        assert {"processor", "cores", "memory_mib", "load_average_before", "load_average_after"} <= set(machine)
        assert {"python", "stormtracks", "numpy", "netCDF4", "hdf5"} <= set(machine["versions"])

    def test_becomes_a_table(self, document: dict[str, Any], table: ModuleType, scaling: ModuleType) -> None:
        texts = table.tables(document)
        rows = [line for line in texts["figures"].splitlines() if line.startswith("|")]
        values = [figure["values"] for figure in document["figures"].values() if "values" in figure]
        wide = [row for row in rows if row.count(" |") == 8]
        assert len(wide) == sum(3 + len(figure["ours"]) for figure in contests_of(document).values())
        assert len(rows) - len(wide) == sum(2 + len(of_figure) for of_figure in values)
        # On short input a run may take no longer than its start.
        measured = scaling.costs_of(document) is not None
        assert texts["scaling"].startswith("| measured |" if measured else "Not measured.")
        for target in table.TARGETS:
            assert target.what in texts["targets"]

    def test_every_target_is_measured(self, document: dict[str, Any], targets: ModuleType) -> None:
        left = [target for target in targets.TARGETS if target.measured(document) is None]
        # On short input a run may take no longer than its start.
        of_short_input = ["bundles", "workers"]
        assert [target.figure for target in left if target.figure not in (*PEERS, *of_short_input)] in ([], ["linking"])

    def test_pins_both_sides_to_one_core(self, document: dict[str, Any]) -> None:
        for name in ("pressure", "vorticity"):
            figure = document["figures"][name]
            assert figure["reference"]["cores"] == figure["reference"]["start"]["cores"] == 1
            for entry in figure["ours"].values():
                assert entry["cores"] == entry["start"]["cores"] == 1

    def test_drives_workers_that_do_nothing(self, document: dict[str, Any]) -> None:
        figure = document["figures"]["dispatch"]
        assert (figure["workers"], figure["tasks"]) == (10, 1000)
        assert 10 <= figure["values"]["manager_threads"]["median"] < 30
        assert all(spread["min"] > 0 for spread in figure["values"].values())

    def test_hands_out_tasks_in_four_ways(self, document: dict[str, Any], table: ModuleType) -> None:
        figure = document["figures"]["overhead"]
        ours, others = ["stormtracks", "stormtracks over TLS"], ["ProcessPoolExecutor", "distributed"]
        ways = [way for way in (*ours, *others) if way not in figure["missing"]]
        named = [f"{way}: {name}" for way in ways for name in ("wall_ms_per_task", "scheduler_cpu_ms_per_task")]
        if "distributed" in ways:
            named += [f"{way}: wall / distributed's" for way in ours]
        assert figure["missing"] in ([], ["distributed"])
        assert figure["tasks"] == 200
        assert sorted(figure["values"]) == sorted(named)
        assert all(spread["min"] > 0 for spread in figure["values"].values())
        told = "Not installed, and left out: distributed." in table.tables(document)["figures"]
        assert told == (figure["missing"] == ["distributed"])

    def test_goes_on_without_what_is_not_installed(self) -> None:
        program = (
            "import runpy, sys\n"
            "sys.path.insert(0, sys.argv[1])\n"
            "sys.modules['distributed'] = None\n"
            "sys.argv = ['measure_overhead.py', 'distributed', '1']\n"
            "runpy.run_module('measure_overhead', run_name='__main__')\n"
        )
        command = [sys.executable, "-c", program, ROOT / "scripts" / "benchmarks" / "programs"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == {"missing": "distributed"}

    def test_skips_what_has_no_data_and_says_why(self, tmp_path: Path) -> None:
        done = bench("pressure", "--data", tmp_path / "nowhere", "--cache", tmp_path / "cache")
        assert done.returncode == 0, done.stderr
        assert str(tmp_path / "nowhere" / "prmsl.nc") in json.loads(done.stdout)["figures"]["pressure"]["skipped"]
        assert "--data" in done.stderr

    @pytest.mark.parametrize("wrong", [["nonsense"], ["--rounds", "0"], ["--document"], ["--peers"]])
    def test_refuses_what_it_does_not_know(self, wrong: list[str]) -> None:
        done = bench(*wrong)
        assert done.returncode == 2
        assert wrong[0] in done.stderr


class TestMeasuring:
    def test_processes_take_turns(self, measure: ModuleType, tmp_path: Path) -> None:
        log = tmp_path / "log"

        def writes(letter: str, start: Any = None) -> Any:
            program = f"open({str(log)!r}, 'a').write({letter!r}); print('time steps: 3')"
            return measure.Process(letter, (sys.executable, "-c", program), letter, start)

        ours = [writes("a", start=writes("o")), writes("b")]
        found = measure.hold_contest(writes("r", start=writes("s")), ours, 3)
        assert log.read_text() == "rsoab" * 3
        assert "start" in found["ours"]["a"]
        assert not {"start", "ratio_less_start"} & set(found["ours"]["b"])
        assert found["ours"]["b"]["found"] == {"time steps": 3}

    def test_ratios_are_those_of_a_round(self, measure: ModuleType) -> None:
        ours, starts = ([measure.Run(wall, 2 * wall, 1.0, "") for wall in walls] for walls in ([4, 9, 40], [2, 3, 4]))
        reference = [measure.Run(wall, wall, 1.0, "") for wall in (2, 3, 10)]
        assert measure.ratios(ours, reference)["wall_s"] == {"median": 3, "min": 2, "max": 4}
        assert measure.ratios(measure.less(ours, starts), reference)["cpu_s"] == {"median": 4, "min": 2, "max": 7.2}

    def test_memory_and_time_of_children_count(self, measure: ModuleType) -> None:
        child = "x = bytearray(300 << 20); sum(range(3_000_000))"
        run = measure.run_process(
            [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"]
        )
        assert 300 < run.peak_mib < 400
        assert run.cpu_s > 0

    def test_memory_of_the_measuring_process_does_not_count(self, measure: ModuleType) -> None:
        ballast = b"x" * (200 << 20)
        assert measure.run_process([sys.executable, "-S", "-c", "pass"]).peak_mib < 100
        assert len(ballast) == 200 << 20

    def test_a_process_keeps_to_its_cores(self, measure: ModuleType) -> None:
        command = [sys.executable, "-c", "import os; print(len(os.sched_getaffinity(0)))"]
        assert measure.run_process(command, cores=1).output == "1\n"
        assert measure.run_process(command).output == f"{len(os.sched_getaffinity(0))}\n"

    def test_times_as_fast_is_the_inverse_of_the_ratio(self, measure: ModuleType) -> None:
        spread = {"median": 0.5, "min": 0.25, "max": 2.0}
        contest = {"ours": {"a": {"ratio_less_start": {"wall_s": spread}}}}
        assert measure.times_as_fast(contest)["times_as_fast"] == {"median": 2, "min": 0.5, "max": 4}
        nothing_left = {"ours": {"a": {"ratio_less_start": {"wall_s": spread | {"min": -0.1}}}}}
        assert "times_as_fast" not in measure.times_as_fast(nothing_left)

    def test_commands_run_at_the_same_time(self, tmp_path: Path) -> None:
        """Each of two waits for the other to begin, which one after the other they could not."""
        program = (
            "import pathlib, sys, time\n"
            "own, other = map(pathlib.Path, sys.argv[1:])\n"
            "own.touch()\n"
            "deadline = time.monotonic() + 60\n"
            "while not other.exists():\n"
            "    if time.monotonic() > deadline: sys.exit(7)\n"
            "    time.sleep(0.01)\n"
        )
        one, two = tmp_path / "one", tmp_path / "two"
        both = [sys.executable, "-c", program, one, two, "--", sys.executable, "-c", program, two, one]
        beside = [sys.executable, ROOT / "scripts" / "benchmarks" / "programs" / "side_by_side.py"]
        assert subprocess.run([*beside, *both], check=False).returncode == 0
        fails = [sys.executable, "-c", "", "--", sys.executable, "-c", "raise SystemExit(3)"]
        assert subprocess.run([*beside, *fails], check=False).returncode == 1

    def test_a_failure_is_told_with_what_was_said(self, measure: ModuleType) -> None:
        with pytest.raises(measure.BenchError, match=r"ended with 3:\nno luck"):
            measure.run_process([sys.executable, "-c", "print('no luck'); raise SystemExit(3)"])
        with pytest.raises(measure.BenchError, match="ended with 137"):
            measure.run_process([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
        with pytest.raises(measure.BenchError, match="No such file or directory"):
            measure.run_process(["no-such-program"])

    def test_settings_of_the_caller_do_not_reach_it(self, measure: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STORMTRACKS_TRACKING__MIN_POINTS", "8")
        monkeypatch.setenv("PYTHONVERBOSE", "1")
        program = "import os; print(sorted(n for n in os.environ if n.startswith(('STORMTRACKS', 'PYTHON'))))"
        assert measure.run_process([sys.executable, "-c", program]).output == "[]\n"


def test_start_up_imports_all_that_tracking_imports(tmp_path: Path) -> None:
    """What is subtracted as start-up is the whole of it."""
    files = write(SyntheticEnsemble(end=(2001, 12, 9), members=1), tmp_path, layout="c20v3")
    program = (
        "import runpy, sys\n"
        "runpy.run_path(sys.argv[1])\n"
        "before = set(sys.modules)\n"
        "from stormtracks.cli import main\n"
        "assert main(['track', *sys.argv[2:], '--wind', 'u850,v850']) == 0\n"
        "print(sorted(set(sys.modules) - before))\n"
    )
    started = ROOT / "scripts" / "benchmarks" / "programs" / "import_track.py"
    command = [sys.executable, "-c", program, started, *files]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


class TestTargets:
    def test_a_target_finds_its_number_and_judges_the_median(self, targets: ModuleType) -> None:
        at_most, at_least = (
            targets.Target("B0", "", "", "some", ["ours", "a", "wall_s"], 1.3, at_least=more) for more in (False, True)
        )
        spread = {"median": 1.2, "min": 1.0, "max": 1.5}
        document = {"figures": {"some": {"ours": {"a": {"wall_s": spread, "cpu_s": {"median": 1}}}}}}
        assert at_most.measured(document) == spread
        assert at_most.measured(document, of="cpu_s") == {"median": 1}
        assert (at_most.met(spread), at_least.met(spread)) == (True, False)
        assert (at_most.shown, at_least.shown) == ("at most 1.3", "at least 1.3")

    def test_the_greatest_of_several(self, targets: ModuleType) -> None:
        target = targets.Target("B0", "", "", "some", ["values", "*"], 300, "MB")
        document = {"figures": {"some": {"values": {"a": {"median": 7.0}, "b": {"median": 9.0}}}}}
        assert target.measured(document) == {"median": 9.0}

    @pytest.mark.parametrize("figures", [{}, {"some": {"skipped": "no"}}, {"some": {"values": {}}}])
    def test_what_was_not_measured_is_told(self, targets: ModuleType, figures: dict[str, Any]) -> None:
        for path in (["values", "*"], ["values", "a"], ["ours", "a", "wall_s"]):
            target = targets.Target("B0", "", "", "some", path, 300)
            assert target.measured({"figures": figures}) is None


def spread(value: float) -> dict[str, float]:
    return {"median": value}


MEASURED: dict[str, Any] = {
    "bundles": {
        "days": 73.05,
        "members": 50,
        "input": {"a": 10**6, "b": 10**6},
        "ours": {"run, above 4e-5": {"cpu_s": spread(12.0), "start": {"cpu_s": spread(2.0)}}},
    },
    "workers": {"times_as_fast": spread(1.9)},
    "fleet": {"values": {"manager_cpu_ms_per_task": spread(0.5)}},
    "worker-start": {"values": {"first_task_begins_s": spread(0.7)}},
}


class TestScaling:
    """A campaign of 12 years and 10 members, in round numbers."""

    def times(self, scaling: ModuleType, **changed: float) -> Any:
        production = scaling.Production(years=12, members=10, halo_days=0.0)
        machines = scaling.Machines("some", hosts=2, cores=2, storage="", bytes_per_s=changed.pop("bytes_per_s", 1e9))
        costs = {"cpu_s": 3.0, "input_bytes": 1e6, "efficiency": 1.0, "manager_s": 0.001, "start_s": 1.0}
        return scaling.times(production, machines, scaling.Costs(**costs | changed))

    def test_the_longest_part_decides(self, scaling: ModuleType) -> None:
        found = self.times(scaling)
        assert found == scaling.Times(computing=90.0, reading=pytest.approx(0.12), managing=0.12, whole=91.0)
        assert found.limit == "computing"
        assert self.times(scaling, bytes_per_s=1e6).limit == "the data's way"
        assert self.times(scaling, bytes_per_s=1e6).whole == 121.0
        assert self.times(scaling, manager_s=1.0).limit == "the manager"

    def test_what_is_less_efficient_takes_longer(self, scaling: ModuleType) -> None:
        assert self.times(scaling, efficiency=0.5).computing == 180.0

    def test_slots_that_get_no_year_stay_empty(self, scaling: ModuleType) -> None:
        costs = scaling.Costs(cpu_s=1.0, input_bytes=1.0, efficiency=1.0, manager_s=0.0, start_s=0.0)
        machines = scaling.Machines("some", hosts=5, cores=1, storage="", bytes_per_s=1e9)
        seconds = [
            scaling.times(scaling.Production(years=years, members=1, halo_days=0.0), machines, costs).computing
            for years in (1, 5, 6, 10, 11)
        ]
        assert seconds == [1.0, 1.0, 2.0, 2.0, 3.0]

    def test_as_many_hosts_are_fed_as_read_what_comes(self, scaling: ModuleType) -> None:
        costs = scaling.Costs(cpu_s=4.0, input_bytes=1e6, efficiency=1.0, manager_s=0.0, start_s=0.0)
        machines = scaling.Machines("some", hosts=1, cores=2, storage="", bytes_per_s=5e6)
        assert scaling.hosts_fed(machines, costs) == 10.0

    def test_a_member_year_is_what_the_bundles_took_less_their_start(self, scaling: ModuleType) -> None:
        costs = scaling.costs_of({"figures": MEASURED})
        assert costs == scaling.Costs(cpu_s=0.5, input_bytes=1e5, efficiency=0.95, manager_s=0.0005, start_s=0.7)
        assert scaling.costs_of({"figures": MEASURED | {"fleet": {"skipped": "no"}}}) is None

    def test_becomes_a_table(self, table: ModuleType) -> None:
        rows = list(table.scaling_rows({"figures": MEASURED}))
        laptop, cluster = (
            next(row for row in rows if row.startswith(f"| {name}")) for name in ("one laptop", "12 hosts")
        )
        # 60 and 5 rounds of 56 member-years, each 0.5 s, 5.5 % longer for what lies beyond the year, on 95 % of a core.
        assert laptop.split(" | ")[1:] == ["31 min", "1 s", "3 s", "31 min", "computing |"]
        assert cluster.split(" | ")[1:] == ["155 s", "6 s", "3 s", "156 s", "computing |"]


def test_tables_take_the_places_of_those_before(table: ModuleType, measure: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.md"
    path.write_text((ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8"), encoding="utf-8")
    new = {name: f"| new {name} |\n" for name in ("targets", "figures", "scaling")}
    table.replace_tables(path, new)
    once = path.read_text(encoding="utf-8")
    table.replace_tables(path, new)
    assert path.read_text(encoding="utf-8") == once
    assert [once.count(text) for text in new.values()] == [1, 1, 1]
    assert "Medians of" not in once
    path.write_text("no marks", encoding="utf-8")
    with pytest.raises(measure.BenchError, match="lacks the lines"):
        table.replace_tables(path, new)
