"""The package as users get it: built, installed into an environment of its own, and run from outside the checkout."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import stormtracks

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {"stormtracks": "stormtracks", "cluster": "stormtracks/cluster", "settings": "stormtracks/settings"}
EXAMPLES = ROOT / "settings" / "examples"
NAME = f"stormtracks_ensemble-{stormtracks.__version__}"


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command whose failure fails the test, with all that it said."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def is_ours(path: Path) -> bool:
    """Whether something in the tree is no cache, not hidden, and no result of an example that was run where it lies."""
    if "__pycache__" in path.parts or path.name.startswith("."):
        return False
    return EXAMPLES not in path.parents or (path.parent == EXAMPLES and path.is_file())


def not_ours(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if not is_ours(Path(folder) / name)}


def files_of_the_rooms() -> set[str]:
    """Every file of the three rooms, by the name that it has in the package."""
    return {
        f"{package}/{path.relative_to(ROOT / room).as_posix()}"
        for room, package in ROOMS.items()
        for path in (ROOT / room).rglob("*")
        if path.is_file() and is_ours(path) and not path.is_relative_to(ROOT / room / "cluster")
    }


@dataclass
class Distributions:
    wheel: Path
    sdist: Path


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """An sdist of a copy of the tree, and the wheel that is built from that sdist."""
    tree = tmp_path_factory.mktemp("tree")
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, tree)
    for folder in (*ROOMS, "tests", "docs", "scripts"):
        shutil.copytree(ROOT / folder, tree / folder, symlinks=True, ignore=not_ours)
    built = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", built, tree, cwd=built)
    return Distributions(wheel=built / f"{NAME}-py3-none-any.whl", sdist=built / f"{NAME}.tar.gz")


@dataclass
class Installation:
    """The wheel alone in an environment, with the dependencies of the tests within reach, and a folder to work in."""

    scripts: Path
    packages: Path
    elsewhere: Path

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run(self.scripts / program, *arguments, cwd=self.elsewhere)


@pytest.fixture(scope="module")
def installation(distributions: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True)
    paths = {"base": str(home), "platbase": str(home)}
    scripts, packages = (Path(sysconfig.get_path(kind, "venv", vars=paths)) for kind in ("scripts", "purelib"))
    pip = (sys.executable, "-m", "pip", "--python", scripts / "python", "install", "--no-deps", "--no-index", "--quiet")
    run(*pip, distributions.wheel, cwd=home)
    # Added to the search path as they are: no .pth file in them is read, so none can lead back to the checkout.
    borrowed = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (packages / "borrowed.pth").write_text("\n".join(borrowed) + "\n", encoding="utf-8")
    return Installation(scripts, packages, tmp_path_factory.mktemp("elsewhere"))


class TestWheel:
    def test_holds_the_rooms_whole_and_nothing_else(self, distributions: Distributions) -> None:
        with zipfile.ZipFile(distributions.wheel) as wheel:
            names = set(wheel.namelist())
        packed = {name for name in names if not name.startswith(f"{NAME}.dist-info/")}
        assert packed == files_of_the_rooms()

    def test_describes_itself(self, distributions: Distributions) -> None:
        with zipfile.ZipFile(distributions.wheel) as wheel:
            metadata = email.message_from_bytes(wheel.read(f"{NAME}.dist-info/METADATA"))
            assert wheel.read(f"{NAME}.dist-info/licenses/LICENSE").startswith(b"MIT License")
        assert metadata["Name"] == "stormtracks-ensemble"
        assert metadata["Version"] == stormtracks.__version__
        assert metadata["License-Expression"] == "MIT"
        assert metadata["Requires-Python"] == ">=3.11"
        assert {"plot", "test"} <= set(metadata.get_all("Provides-Extra", []))
        assert "# stormtracks" in metadata.get_payload()


class TestSdist:
    def test_holds_the_rooms_as_one_package(self, distributions: Distributions) -> None:
        with tarfile.open(distributions.sdist) as sdist:
            names = {member.name.removeprefix(f"{NAME}/") for member in sdist.getmembers() if member.isfile()}
        assert {name for name in names if name.startswith("stormtracks/")} == files_of_the_rooms()
        assert names >= {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff"}
        assert not [name for name in names if name.startswith(("cluster/", "settings/", "tests/"))]


class TestInstalled:
    def test_brings_one_package_to_the_top_level(self, installation: Installation) -> None:
        names = {path.name for path in installation.packages.iterdir()} - {"borrowed.pth"}
        assert names == {"stormtracks", f"{NAME}.dist-info"}

    def test_imports_every_module_from_where_it_is_installed(self, installation: Installation) -> None:
        modules = sorted(
            name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            for name in files_of_the_rooms()
            if name.endswith(".py") and not name.endswith("__main__.py")
        )
        program = (
            "import importlib, sys\n"
            "for name in sys.argv[1:]: print(importlib.import_module(name).__file__)\n"
            "assert not {'cluster', 'settings'} & set(sys.modules)"
        )
        done = installation.run("python", "-c", program, *modules)
        outside = [line for line in done.stdout.splitlines() if not Path(line).is_relative_to(installation.packages)]
        assert outside == []

    def test_reads_its_own_data(self, installation: Installation) -> None:
        program = (
            "import stormtracks.plot, importlib.resources as r\n"
            "print(len(stormtracks.plot.coastline()))\n"
            "print(*(p.name for p in (r.files('stormtracks.settings') / 'presets').iterdir()))"
        )
        coastlines, presets = installation.run("python", "-c", program).stdout.splitlines()
        assert int(coastlines) > 100
        assert "original.toml" in presets.split()

    def test_shows_its_help_without_the_heavy_libraries(self, installation: Installation) -> None:
        script = str(installation.scripts / "stormtracks")
        done = installation.run("python", "-X", "importtime", script, "--help")
        for command in ("demo", "run", "status", "track", "settings"):
            assert command in done.stdout
        imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
        assert "stormtracks" in imported
        assert not imported & {"xarray", "matplotlib", "Pyro5", "scipy", "netCDF4", "pandas"}

    def test_prints_its_settings(self, installation: Installation) -> None:
        assert "max_speed" in installation.run("stormtracks", "settings").stdout


def test_the_citation_and_the_changelog_know_the_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", citation, re.MULTILINE)[1] == stormtracks.__version__  # type: ignore[index]
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
