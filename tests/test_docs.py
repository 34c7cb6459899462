"""The documents do what they say: what is typed runs, what is shown comes out, what is named exists.

A fenced block of README.md or docs/ says after its language what becomes of it here:

``console run``
    Each ``$ command`` is run by bash. It must succeed, unless the next command is ``echo $?``, and print the lines
    below it: ``...`` stands for anything, white space and durations do not count, and a number may be off by a
    fiftieth, as processors of different kinds round differently.
``sh run``, ``python run``
    The block is run, as a whole and in a process of its own; a ``text output`` block right below holds what it prints.
``python more``
    The same, after the lines of the last ``python run`` block, which print nothing.
``toml file=NAME``
    The block is saved under that name, for the commands that follow.

All blocks of a document are typed in one place: it begins in the user's home, which is empty, and goes where
``cd`` goes. So that the same work is not done for each document, ``stormtracks demo --members 2`` has been run already
in ``try-stormtracks``. Blocks without such a mark are not run. But every ``toml`` block must load as a campaign file,
every ``python`` block compile, and the command line must understand every ``stormtracks`` command.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import netCDF4
import pytest

from stormtracks.arguments import make_parser
from stormtracks.results import StormtracksResultsManager
from stormtracks.settings.load import describe_settings, load_settings

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"^```(\S*) *(.*)$")
_DURATION = r"(?:\b\d+:\d\d:\d\d\b|\b\d+\.\d s\b)"
_NUMBER = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, its language, what stands behind that, and its lines."""

    path: Path
    line: int
    language: str
    mark: str
    text: str

    @property
    def at(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def blocks_of(path: Path) -> list[Block]:
    blocks: list[Block] = []
    start: tuple[int, str, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fence = _FENCE.match(line)
        if start is None and fence:
            start, lines = (number, fence[1], fence[2].strip()), []
        elif start is not None and fence:
            blocks.append(Block(path, *start, "".join(f"{line}\n" for line in lines)))
            start = None
        else:
            lines.append(line)
    assert start is None, f"{path}: the block at line {start} is not closed"
    return blocks


BLOCKS = [block for path in DOCUMENTS for block in blocks_of(path)]


def of_language(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def is_run(block: Block) -> bool:
    return block.mark in ("run", "more")


def commands_of(block: Block) -> list[tuple[str, str]]:
    """Each command of a transcript with what is shown below it; of a script, each line with nothing."""
    text = re.sub(r"\\\n\s*", "", block.text)
    if block.language != "console":
        return [(line, "") for line in text.splitlines()]
    first, *parts = re.split(r"^\$ ", text, flags=re.MULTILINE)
    assert not first.strip(), f"{block.at}: a transcript begins with a command, which begins with '$ '"
    return [(command, shown) for command, _, shown in (part.partition("\n") for part in parts)]


# --- what is typed


class Terminal:
    """Where a user of the installed package types, in a home of his own; stderr is in stdout."""

    def __init__(self, home: Path) -> None:
        unset = ("PYTHON", "STORMTRACKS_", "XDG_")
        self.folder = home
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(unset)}
        self.environment["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), self.environment["PATH"]])
        self.environment["HOME"] = str(home)

    def bash(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run some lines, from where the ones before have ended."""
        with tempfile.NamedTemporaryFile() as whereabouts:
            done = subprocess.run(
                ["bash", "-c", f"trap 'pwd > {whereabouts.name}' EXIT\n{command}"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=120,
                check=False,
            )
            self.folder = Path(whereabouts.read().decode().strip())
        return done

    def python(self, program: str) -> subprocess.CompletedProcess[str]:
        return self.bash(f"{shlex.quote(sys.executable)} -c {shlex.quote(program)}")


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the output of ``stormtracks demo --members 2`` in ``try-stormtracks``."""
    home = tmp_path_factory.mktemp("demonstration")
    done = Terminal(home).bash(
        "mkdir -p ~/try-stormtracks && cd ~/try-stormtracks && stormtracks demo --members 2 --quiet"
    )
    assert done.returncode == 0, done.stdout
    return home


@pytest.mark.parametrize(
    "path", [path for path in DOCUMENTS if any(map(is_run, blocks_of(path)))], ids=lambda p: p.name
)
def test_what_is_typed_does_what_is_shown(path: Path, demonstration: Path, tmp_path: Path) -> None:
    shutil.copytree(demonstration, tmp_path, dirs_exist_ok=True)
    terminal = Terminal(tmp_path)
    blocks = blocks_of(path)
    before = ""
    for block, below in pairwise([*blocks, Block(path, 0, "", "", "")]):
        if block.mark.startswith("file="):
            (terminal.folder / block.mark.removeprefix("file=")).write_text(block.text, encoding="utf-8")
        elif is_run(block) and block.language == "console":
            run_transcript(block, terminal)
        elif is_run(block):
            if block.language != "python":
                done = terminal.bash(f"set -e\n{block.text}")
            elif block.mark == "more":
                done = terminal.python(before + block.text)
            else:
                done, before = terminal.python(block.text), block.text
            assert done.returncode == 0, f"{block.at}\n{done.stdout}"
            if below.mark == "output":
                check_shown(below.text, done.stdout, below.at)


def run_transcript(block: Block, terminal: Terminal) -> None:
    commands = commands_of(block)
    status = 0
    for (command, shown), (following, _) in pairwise([*commands, ("", "")]):
        done = terminal.bash(f"(exit {status})\n{command}")
        status = done.returncode
        assert status == 0 or following == "echo $?", f"{block.at}: {command!r} ended with {status}\n{done.stdout}"
        check_shown(shown, done.stdout, f"{block.at}: {command!r}")


def check_shown(shown: str, printed: str, at: str) -> None:
    """Hold what was printed against what is shown; the name of this machine is ``laptop`` there."""
    printed = printed.replace(f" on {socket.gethostname()}:", " on laptop:")
    match = re.fullmatch(pattern_of(shown), printed.strip(), flags=re.DOTALL)
    same = match is not None and [float(number) for number in match.groups()] == [
        pytest.approx(float(number), rel=0.02) for number in re.findall(_NUMBER, without_durations(shown))
    ]
    assert same, f"{at} prints\n{printed}\nand not\n{shown}"


def without_durations(text: str) -> str:
    return re.sub(_DURATION, "", text)


def pattern_of(shown: str) -> str:
    """A pattern that matches what is shown, with any durations and, as its groups, any numbers."""
    parts = re.split(rf"({_DURATION}|{_NUMBER}|\.\.\.|\s+)", shown.strip())
    return "".join(_pattern_of(part) for part in parts)


def _pattern_of(part: str) -> str:
    if part == "...":
        return ".*?"
    if part.isspace():
        return r"\s+"
    if re.fullmatch(_DURATION, part):
        return _DURATION
    return f"({_NUMBER})" if re.fullmatch(_NUMBER, part) else re.escape(part)


def stormtracks_commands() -> Iterator[tuple[str, str]]:
    for block in of_language("sh", "console"):
        for command, _ in commands_of(block):
            words = [word for word in re.split(r"\s(?:\||>|2>|&&|&|;|#)", command, maxsplit=1)[0].split(" ") if word]
            while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
                words = words[1:]
            if words and words[0].endswith("stormtracks"):
                yield block.at, " ".join(words)


@pytest.mark.parametrize(("at", "command"), sorted(set(stormtracks_commands())))
def test_the_command_line_understands_it(at: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        make_parser().parse_args(shlex.split(command)[1:])
    except SystemExit as end:
        assert end.code == 0, f"{at}: {command}\n{capsys.readouterr().err}"


@pytest.mark.parametrize("block", of_language("toml"), ids=lambda block: block.at)
def test_campaign_files_load(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "campaign.toml"
    path.write_text(block.text, encoding="utf-8")
    load_settings(path, environment={})


@pytest.mark.parametrize("block", of_language("python"), ids=lambda block: block.at)
def test_python_compiles(block: Block) -> None:
    compile(block.text, block.at, "exec")


# --- what is named


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not leads_somewhere(target, path)] == []


def leads_somewhere(target: str, path: Path) -> bool:
    name, _, anchor = target.partition("#")
    there = (path.parent / name).resolve() if name else path
    if not there.exists():
        return False
    return not anchor or anchor in anchors_of(there)


def anchors_of(path: Path) -> set[str]:
    """Of each heading, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_guide_lists_every_setting_with_its_default() -> None:
    guide = (ROOT / "docs/guide.md").read_text(encoding="utf-8")
    table = guide[guide.index("| setting | default |") :].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| (.+?) \|", table, re.MULTILINE))
    assert rows == dict(settings_with_defaults())


def settings_with_defaults() -> Iterator[tuple[str, str]]:
    section = ""
    for line in describe_settings(load_settings(environment={})):
        if heading := re.fullmatch(r"\[(.+)\]", line):
            section = f"{heading[1]}."
        elif absent := re.fullmatch(r"# (\w+) is not set", line):
            yield section + absent[1], "not set"
        elif line:
            name, value = line.split(" = ", 1)
            yield section + name, f"`{value}`".replace(f"{Path.cwd()}/", "")


def test_the_formats_name_all_that_is_in_a_file(demonstration: Path) -> None:
    results = StormtracksResultsManager(demonstration / "try-stormtracks/stormtracks-demo")
    results.compress_year(2001)
    named = set(re.findall(r"`([^`\s]+)`", (ROOT / "docs/formats.md").read_text(encoding="utf-8")))
    for name in ("2001.nc", "2002/m001.nc"):
        with netCDF4.Dataset(results.folder / name) as dataset:
            held = {*dataset.ncattrs(), *dataset.dimensions, *dataset.variables}
            held |= {name for variable in dataset.variables.values() for name in variable.ncattrs()}
        assert held - named == set(), name
    results.decompress_year(2001)
