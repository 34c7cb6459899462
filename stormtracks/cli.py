"""The command line: the one place that knows both science and cluster, and imports either only when a command asks."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stormtracks import __version__
from stormtracks.errors import ResultsError, StormtracksError

__all__ = ["main"]

COMPLETE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    0: all complete; 1: a task failed or timed out, or a file could not be used; 2: usage or settings are wrong, or
    the campaign could not start; 3: no worker came, or none was left; 130: stopped by Ctrl-C.
    """
    if sys.stdout is None:  # closed by whoever called
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.command(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            print(f"stormtracks: {error}", file=sys.stderr)
        # What could not be written would be tried, and complained of, once more while Python shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if not _can_be_mended(error):
            raise
        print(f"stormtracks: {error}", file=sys.stderr)
        return USAGE if _is_settings_error(error) else int(arguments.on_error)


def _can_be_mended(error: Exception) -> bool:
    """Whether the error's text says what the user can do; any other is a fault of ours and shown with its traceback."""
    return isinstance(error, StormtracksError) or _is_settings_error(error)


def _is_settings_error(error: Exception) -> bool:
    from stormtracks.settings.errors import SettingsError

    return isinstance(error, SettingsError)


# --- what can be typed


_STATUSES = "Exit status: 0 all complete, 1 something failed, 2 usage or settings are wrong, 3 no worker, 130 Ctrl-C"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stormtracks",
        description="Find and follow cyclones in every member of an ensemble reanalysis or forecast.",
        epilog=f"To begin with, try: stormtracks demo. COMMAND --help tells more. {_STATUSES}.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_run(commands)
    _add_status(commands)
    _add_track(commands)
    _add_settings(commands)
    _add_hosts(commands)
    return parser


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="track a small synthetic ensemble and compare with its known storms",
        description="Write a small synthetic ensemble in the layout of 20CR version 2, track it, compare the tracks "
        "with the known storms, and draw a map (extra 'plot'). The same command again does only what is missing.",
        epilog=_STATUSES,
    )
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("stormtracks-demo"),
        metavar="DIR",
        help="folder for data, campaign file, results and map; default: %(default)s",
    )
    demo.add_argument(
        "--years",
        default="2001-2002",
        metavar="FIRST-LAST",
        help="December of the first to January of the last year, or November and December of one; default: %(default)s",
    )
    demo.add_argument("--members", type=_count, default=6, metavar="N", help="ensemble members; default: %(default)s")
    demo.add_argument(
        "--seed", type=_not_negative, default=0, metavar="N", help="of all that is random; default: %(default)s"
    )
    _add_run_options(demo)
    demo.set_defaults(command=_demo, on_error=USAGE)


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        help="run a campaign, or what is left of it",
        description="Track every year and member of a campaign, on the hosts of its cluster or on this machine. What "
        "is complete and intact is not run again: the same command goes on where another one was stopped.",
        epilog=_STATUSES,
    )
    run.add_argument(
        "campaign",
        type=Path,
        metavar="CAMPAIGN.toml",
        help="years, members, data and parameters; `stormtracks settings` lists what can stand in it",
    )
    run.add_argument("--out", type=Path, metavar="DIR", help="folder of results and status (results.root)")
    _add_run_options(run)
    # Tasks that fail are told in the summary: an error has kept the campaign from starting.
    run.set_defaults(command=_run, on_error=USAGE)


def _add_run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workers", type=_count, metavar="N", help="worker processes (run.workers); default: 2")
    command.add_argument(
        "--backend",
        choices=["local", "pyro"],
        help="what carries the work (run.backend): pyro, the cluster's hosts or one worker on this machine; local, no "
        "network at all; default: pyro",
    )
    command.add_argument(
        "--replace", action="store_true", help="delete results of other settings in the folder, instead of refusing it"
    )
    board = command.add_mutually_exclusive_group()
    board.add_argument("--quiet", action="store_true", help="only failures, and the counts at the end")
    board.add_argument(
        "--json", action="store_true", help="one JSON object per change and line, the last with all counts"
    )


def _add_status(commands: Any) -> None:
    status = commands.add_parser(
        "status",
        help="how far the campaign in a results folder is",
        description="Show how far a campaign is, running or not: a row per year with a sign per member (- outstanding, "
        "W working, + complete, F failure, T timeout), the failures with their reasons, and how to go on.",
    )
    status.add_argument("out", type=Path, metavar="DIR", help="the folder given as --out, or results.root")
    status.add_argument("--json", action="store_true", help="as one JSON object")
    status.set_defaults(command=_status, on_error=FAILED)


def _add_track(commands: Any) -> None:
    track = commands.add_parser(
        "track",
        help="track the storms in CF NetCDF files",
        description="Track the storms in CF NetCDF files, taken as one series in order of time, and write one file of "
        "tracks. What no option sets comes from the site file and the environment, as in a campaign.",
        epilog="For example: stormtracks track msl_*.nc --variable msl --threshold 99000 --min-points 8 -o lows.nc",
    )
    track.add_argument("files", type=Path, nargs="+", metavar="FILE", help="NetCDF files, in any order")
    field = track.add_mutually_exclusive_group(required=True)
    field.add_argument("--variable", metavar="NAME", help="variable to follow: name, CF standard name or alias")
    field.add_argument("--wind", type=_pair, metavar="U,V", help="eastward and northward wind, to follow its vorticity")
    track.add_argument("--level", metavar="HPA", help="pressure level, where the files have several")
    track.add_argument("--member", type=int, metavar="N", help="ensemble member; default: all")
    track.add_argument(
        "--mode", choices=["max", "min"], help="maxima or minima; default: minima of pressure, maxima of all else"
    )
    track.add_argument(
        "--threshold",
        metavar="X",
        help="value a centre must reach, in SI units (Pa, s-1), or none; default: 4e-5 for vorticity, else none",
    )
    track.add_argument("--merge-km", metavar="KM", help="the weaker of two closer centres is absorbed; default: 0")
    track.add_argument(
        "--method",
        choices=["nearest", "assignment"],
        help="link to the nearest centre, or as is best for all storms together; default: nearest",
    )
    track.add_argument("--min-points", metavar="N", help="shortest track kept; default: 6")
    track.add_argument("--max-speed", metavar="M/S", help="fastest a storm may travel; default: 40")
    track.add_argument("--max-gap", metavar="N", help="time steps a storm may go unseen; default: 0")
    track.add_argument(
        "--gaps",
        choices=["error", "cut"],
        help="at a gap in time inside a file: stop, or cut the tracks; default: error",
    )
    track.add_argument(
        "--missing",
        choices=["error", "mask"],
        help="at missing values: stop, or leave out what is beside; default: error",
    )
    track.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("tracks.nc"),
        metavar="FILE",
        help="file of tracks to write; default: %(default)s",
    )
    track.set_defaults(command=_track, on_error=FAILED)


def _add_settings(commands: Any) -> None:
    settings = commands.add_parser(
        "settings",
        help="show every setting of a campaign, or the defaults",
        description="Show every setting as a campaign file would hold it. A value comes from the strongest source that "
        "gives it: default < preset < site file < campaign file < environment < command line.",
        epilog="Site file: ~/.config/stormtracks/site.toml, or the one that STORMTRACKS_SITE names; "
        "environment: STORMTRACKS_TRACKING__MIN_POINTS=8 sets tracking.min_points",
    )
    settings.add_argument("campaign", type=Path, nargs="?", metavar="CAMPAIGN.toml", help="default: no campaign file")
    settings.add_argument("--origin", action="store_true", help="say where each value came from")
    settings.set_defaults(command=_settings, on_error=USAGE)


def _add_hosts(commands: Any) -> None:
    hosts = commands.add_parser("hosts", help="check every host of a campaign")
    hosts.add_argument("campaign", type=Path, metavar="CAMPAIGN.toml")
    hosts.set_defaults(command=_hosts, on_error=USAGE)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _not_negative(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _pair(text: str) -> tuple[str, str]:
    names = text.split(",")
    if len(names) != 2 or not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not two names joined by a comma, such as u850,v850")
    return names[0], names[1]


# --- what is then done


def _run(arguments: argparse.Namespace) -> int:
    from stormtracks.settings.load import load_settings

    given = {"results.root": arguments.out, "run.backend": arguments.backend, "run.workers": arguments.workers}
    loaded = load_settings(arguments.campaign, command_line=_without_none(given))
    resume = ["stormtracks", "run", str(arguments.campaign)]
    if arguments.out:
        resume += ["--out", str(arguments.out)]
    return _run_campaign(loaded.campaign, arguments, resume)


def _run_campaign(campaign: Any, arguments: argparse.Namespace, resume: list[str]) -> int:
    from stormtracks.cluster.board import make_board
    from stormtracks.cluster.campaign import exit_status, run_campaign

    board = make_board("json" if arguments.json else "quiet" if arguments.quiet else "auto", sys.stdout)
    return exit_status(run_campaign(campaign, board, replace=arguments.replace, resume=shlex.join(resume)))


def _demo(arguments: argparse.Namespace) -> int:
    from stormtracks.demo import Demonstration, describe
    from stormtracks.settings.campaign import parse_numbers
    from stormtracks.settings.errors import SettingsError
    from stormtracks.settings.load import load_settings

    try:
        years = parse_numbers(arguments.years)
    except ValueError as error:
        raise SettingsError(f"--years: {error}") from error
    if len(years) != years[-1] - years[0] + 1:
        raise SettingsError(f"--years {arguments.years}: the years of the demonstration follow on one another")
    demonstration = Demonstration(arguments.out, years[0], years[-1], arguments.members, arguments.seed)
    say = _silent if arguments.json else print
    say(f"writing {arguments.members} members of synthetic storms to {arguments.out / 'data'} ...", flush=True)
    if not demonstration.write_input(replace=arguments.replace):
        say("they are there already", flush=True)
    loaded = load_settings(
        demonstration.campaign_file,
        command_line=_without_none({"run.backend": arguments.backend, "run.workers": arguments.workers}),
        environment={},
    )
    resume = ["stormtracks", "demo", "--out", str(arguments.out), "--years", arguments.years]
    resume += ["--members", str(arguments.members), "--seed", str(arguments.seed)]
    status = _run_campaign(loaded.campaign, arguments, resume)
    if status == COMPLETE:
        say(describe(demonstration.verify(loaded.campaign)))
        say(f"map: {demonstration.draw_map(loaded.campaign)}")
    return status


def _status(arguments: argparse.Namespace) -> int:
    from stormtracks.cluster.campaign import describe_status, read_status

    document = read_status(arguments.out)
    if arguments.json:
        print(json.dumps(document))
    else:
        print("\n".join(describe_status(document)))
    return COMPLETE


def _track(arguments: argparse.Namespace) -> int:
    from stormtracks.settings.load import load_settings
    from stormtracks.tasks import summary_of, track_file
    from stormtracks.tracks import write_tracks

    if any(_same_file(file, arguments.output) for file in arguments.files):
        raise ResultsError(f"{arguments.output} is one of the input files", remedy="choose another name with -o")
    if not arguments.output.absolute().parent.is_dir():
        raise ResultsError(f"there is no folder for {arguments.output}", remedy="make it first, or choose another -o")
    given = {
        "data.layout": "cf",
        "data.level": arguments.level,
        "data.gaps": arguments.gaps,
        "data.missing": arguments.missing,
        "detection.mode": arguments.mode,
        "detection.threshold": arguments.threshold,
        "detection.merge_km": arguments.merge_km,
        "tracking.method": arguments.method,
        "tracking.min_points": arguments.min_points,
        "tracking.max_speed": arguments.max_speed,
        "tracking.max_gap": arguments.max_gap,
    }
    campaign = load_settings(command_line=_without_none(given)).campaign
    tracks = track_file(
        arguments.files,
        variable=arguments.variable,
        wind=arguments.wind,
        member=arguments.member,
        data=campaign.data,
        detection=campaign.detection,
        tracking=campaign.tracking,
    )
    write_tracks(arguments.output, tracks)
    for name, count in summary_of(tracks).items():
        if name not in ("tracks", "points"):
            print(f"{name}: {count}")
    print(f"{len(tracks)} tracks of {len(tracks.time)} points written to {arguments.output}")
    return COMPLETE


def _settings(arguments: argparse.Namespace) -> int:
    from stormtracks.settings.load import describe_settings, load_settings

    print("\n".join(describe_settings(load_settings(arguments.campaign), origin=arguments.origin)))
    return COMPLETE


def _hosts(arguments: argparse.Namespace) -> int:
    from stormtracks.cluster.inspection import inspect_hosts, print_inspection
    from stormtracks.settings.load import load_settings

    inspections = inspect_hosts(load_settings(arguments.campaign).campaign)
    return COMPLETE if print_inspection(inspections, sys.stdout) else FAILED


def _same_file(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _silent(*_: object, **__: object) -> None:
    """Print nothing."""


if __name__ == "__main__":
    sys.exit(main())
