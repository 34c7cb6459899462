"""What can be typed: the commands of `stormtracks`, with their options and help texts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stormtracks import __version__

__all__ = ["COMPLETE", "FAILED", "INTERRUPTED", "USAGE", "count", "make_parser"]

COMPLETE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


_STATUSES = "Exit status: 0 all complete, 1 something failed, 2 usage or settings are wrong, 3 no worker, 130 Ctrl-C"


def make_parser() -> argparse.ArgumentParser:
    """All that can be typed. What comes of it is named by ``command``, and ``on_error`` is the status if it fails."""
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
    _add_rerun(commands)
    _add_store(commands)
    _add_track(commands)
    _add_settings(commands)
    _add_hosts(commands)
    _add_certs(commands)
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
    demo.add_argument("--members", type=count, default=6, metavar="N", help="ensemble members; default: %(default)s")
    demo.add_argument(
        "--seed", type=_not_negative, default=0, metavar="N", help="of all that is random; default: %(default)s"
    )
    _add_run_options(demo)
    demo.set_defaults(command="demo", on_error=USAGE)


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        help="run a campaign, or what is left of it",
        description="Track every year and member of a campaign, on the hosts of its cluster or on this machine. What "
        "is complete and intact is not run again: the same command goes on where another one was stopped. Ctrl-C lets "
        "the tasks that run end, a second one cancels them.",
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
    run.set_defaults(command="run", on_error=USAGE)


def _add_run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workers", type=count, metavar="N", help="worker processes (run.workers); default: 2")
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
    _add_folder(status)
    status.add_argument(
        "--why", type=_not_negative, nargs=2, metavar=("YEAR", "MEMBER"), help="instead, the whole story of one task"
    )
    status.add_argument("--json", action="store_true", help="as one JSON object")
    status.set_defaults(command="status", on_error=FAILED)


def _add_folder(command: argparse.ArgumentParser) -> None:
    command.add_argument("out", type=Path, metavar="DIR", help="the folder given as --out, or results.root")


def _add_rerun(commands: Any) -> None:
    rerun = commands.add_parser(
        "rerun",
        help="have tasks of a campaign done once more",
        description="Put tasks back among those to be done; the next `stormtracks run` does them. What has become of "
        "them so far stays on record. With --year and --member, the tasks of those members in those years.",
        epilog="For example: stormtracks rerun stormtracks-out --year 1987 --member 3 7-9",
    )
    _add_folder(rerun)
    which = rerun.add_mutually_exclusive_group()
    which.add_argument("--failed", action="store_true", help="those that were given up")
    which.add_argument("--all", dest="everything", action="store_true", help="every task")
    rerun.add_argument("--year", dest="years", nargs="+", metavar="YEAR", help="those of some years: 1987, 1950-1959")
    rerun.add_argument("--member", dest="members", nargs="+", metavar="N", help="those of some members: 3, 1-10")
    rerun.set_defaults(command="rerun", on_error=FAILED)


def _add_store(commands: Any) -> None:
    store = commands.add_parser(
        "store",
        help="look at, convert, copy or delete the record of a campaign",
        description="The store of a campaign is its record of tasks, attempts and managers, in the folder `campaign` "
        "of its results. The results themselves are no part of it.",
    )
    actions = store.add_subparsers(title="what is done", required=True, metavar="ACTION")
    info = actions.add_parser("info", help="what it holds, in which format and how much room")
    _add_folder(info)
    info.add_argument("--json", action="store_true", help="as one JSON object")
    info.set_defaults(command="store_info", on_error=FAILED)
    convert = actions.add_parser(
        "convert",
        help="write it in another format, with all of its history",
        description="Write the store anew beside the old one, compare the two, and put the new one in its place. "
        "If anything fails the old one stays.",
    )
    _add_folder(convert)
    convert.add_argument("--to", required=True, choices=["sqlite", "json", "zarr"], help="the format (run.store)")
    convert.set_defaults(command="store_convert", on_error=FAILED)
    copy = actions.add_parser("copy", help="keep a copy; whoever is writing goes on meanwhile")
    _add_folder(copy)
    copy.add_argument("to", type=Path, nargs="?", metavar="COPY", help="a folder to be made; default: one beside it")
    copy.set_defaults(command="store_copy", on_error=FAILED)
    delete = actions.add_parser("delete", help="delete it, and leave the results")
    _add_folder(delete)
    delete.add_argument("--yes", action="store_true", help="without asking")
    delete.set_defaults(command="store_delete", on_error=FAILED)


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
    track.set_defaults(command="track", on_error=FAILED)


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
    settings.set_defaults(command="settings", on_error=USAGE)


def _add_hosts(commands: Any) -> None:
    hosts = commands.add_parser("hosts", help="check every host of a campaign")
    hosts.add_argument("campaign", type=Path, metavar="CAMPAIGN.toml")
    hosts.set_defaults(command="hosts", on_error=USAGE)


def _add_certs(commands: Any) -> None:
    certs = commands.add_parser(
        "certs",
        help="make the certificates of a campaign, or renew them",
        description="Make a certificate authority of the campaign's own, and with it the certificates by which its "
        "manager, name server and workers know one another, in the folder `cluster.certificates`. What is there and "
        "still good is kept.",
    )
    certs.add_argument("campaign", type=Path, metavar="CAMPAIGN.toml")
    certs.add_argument("--renew", action="store_true", help="make all anew but for the authority")
    certs.set_defaults(command="certs", on_error=FAILED)


def count(text: str) -> int:
    """A whole number of at least 1, for `argparse`."""
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
