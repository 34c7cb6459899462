"""The benchmark runs and prints what it says it does; how long anything takes is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stormtracks.synthetic import SyntheticEnsemble, write

ROOT = Path(__file__).resolve().parents[1]
SPREADS = ("wall_s", "cpu_s", "peak_mib")


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts" / "bench", "--here", "--quick", "--rounds", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from benchmarks import measure

    return measure


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from benchmarks import table

    return table


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


class TestCommand:
    def test_measures_every_figure_against_its_reference(self, document: dict[str, Any]) -> None:
        contests = ["start-up", "member-year", "pressure", "vorticity"]
        assert list(document["figures"]) == [*contests, "dispatch", "overhead", "store"]
        assert list(contests_of(document)) == contests
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
        assert set(ours["member-year"]) == {"track, nearest", "track, assignment", "run"}
        for entry in (*ours["member-year"].values(), *ours["pressure"].values(), *ours["vorticity"].values()):
            assert entry["found"]["tracks"] > 0
        # The small scales make the series as dense in centres as an analysis on this grid.
        assert 2500 < ours["pressure"]["track, nearest"]["centres_per_step"] < 4500
        assert 15_000 < ours["vorticity"]["track, nearest, all"]["centres_per_step"] < 25_000

    def test_names_machine_and_versions(self, document: dict[str, Any]) -> None:
        machine = document["machine"]
        assert {"processor", "cores", "memory_mib", "load_average_before", "load_average_after"} <= set(machine)
        assert {"python", "stormtracks", "numpy", "netCDF4", "hdf5"} <= set(machine["versions"])

    def test_becomes_a_table(self, document: dict[str, Any], table: ModuleType) -> None:
        text = table.table(document)
        rows = [line for line in text.splitlines() if line.startswith("|")]
        values = [figure["values"] for figure in document["figures"].values() if "values" in figure]
        wide = [row for row in rows if row.count(" |") == 7]
        assert len(wide) == sum(3 + len(figure["ours"]) for figure in contests_of(document).values())
        assert len(rows) - len(wide) == sum(2 + len(of_figure) for of_figure in values)

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
        told = "Not installed, and left out: distributed." in table.table(document)
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

    @pytest.mark.parametrize("wrong", [["nonsense"], ["--rounds", "0"], ["--document"]])
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


def test_a_table_takes_the_place_of_the_one_before(table: ModuleType, measure: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.md"
    path.write_text((ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8"), encoding="utf-8")
    table.replace_table(path, "| new |\n")
    once = path.read_text(encoding="utf-8")
    table.replace_table(path, "| new |\n")
    assert path.read_text(encoding="utf-8") == once
    assert once.count("| new |") == 1
    assert "Medians of" not in once
    path.write_text("no marks", encoding="utf-8")
    with pytest.raises(measure.BenchError, match="lacks the lines"):
        table.replace_table(path, "")
