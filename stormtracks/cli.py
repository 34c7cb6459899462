"""The command line: the one place that knows both science and cluster, and imports either only when a command asks."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stormtracks.arguments import COMPLETE, FAILED, INTERRUPTED, USAGE, make_parser
from stormtracks.errors import ResultsError, StormtracksError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    0: all complete; 1: a task failed or timed out, or a file could not be used; 2: usage or settings are wrong, or
    the campaign could not start; 3: no worker came, or none was left; 130: stopped by Ctrl-C.
    """
    if sys.stdout is None:  # closed by whoever called
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    arguments = make_parser().parse_args(argv)
    try:
        status = _COMMANDS[arguments.command](arguments)
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


# --- what is done


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
    from stormtracks.cluster.status import describe_status, describe_why, read_status, tell_why

    if arguments.why:
        document, lines = tell_why(arguments.out, *arguments.why), describe_why
    else:
        document, lines = read_status(arguments.out), describe_status
    print(json.dumps(document) if arguments.json else "\n".join(lines(document)))
    return COMPLETE


def _rerun(arguments: argparse.Namespace) -> int:
    from stormtracks.cluster.rerun import rerun
    from stormtracks.settings.errors import SettingsError

    if not (arguments.failed or arguments.everything or arguments.years or arguments.members):
        raise SettingsError("rerun: which tasks? Give --failed, --all, or some of --year and --member")
    years, members = _numbers("--year", arguments.years), _numbers("--member", arguments.members)
    print(rerun(arguments.out, failed=arguments.failed, years=years, members=members, everything=arguments.everything))
    return COMPLETE


def _numbers(option: str, given: list[str] | None) -> tuple[int, ...]:
    from stormtracks.settings.campaign import parse_numbers
    from stormtracks.settings.errors import SettingsError

    try:
        return parse_numbers(",".join(given)) if given else ()
    except ValueError as error:
        raise SettingsError(f"{option}: {error}") from error


def _store_info(arguments: argparse.Namespace) -> int:
    from stormtracks.cluster.store_commands import describe_store, read_store

    document = read_store(arguments.out)
    print(json.dumps(document) if arguments.json else "\n".join(describe_store(document)))
    return COMPLETE


def _store_convert(arguments: argparse.Namespace) -> int:
    from stormtracks.cluster.store_commands import convert_campaign

    print(convert_campaign(arguments.out, arguments.to))
    return COMPLETE


def _store_copy(arguments: argparse.Namespace) -> int:
    from stormtracks.cluster.store_commands import copy_campaign

    print(copy_campaign(arguments.out, arguments.to))
    return COMPLETE


def _store_delete(arguments: argparse.Namespace) -> int:
    from stormtracks.cluster.store_commands import delete_campaign

    print(delete_campaign(arguments.out, confirm=(lambda _: "yes") if arguments.yes else _ask))
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


def _certs(arguments: argparse.Namespace) -> int:
    from stormtracks.cluster.wire.certificates import make_certificates
    from stormtracks.settings.load import load_settings

    print("\n".join(make_certificates(load_settings(arguments.campaign).campaign, renew=arguments.renew)))
    return COMPLETE


def _same_file(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _silent(*_: object, **__: object) -> None:
    """Print nothing."""


def _ask(question: str) -> str:
    if sys.stdin is None or not sys.stdin.isatty():
        raise ResultsError(f"there is no terminal to ask on: {question}", remedy="give --yes")
    return input(question)


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "certs": _certs,
    "demo": _demo,
    "hosts": _hosts,
    "rerun": _rerun,
    "run": _run,
    "settings": _settings,
    "status": _status,
    "store_convert": _store_convert,
    "store_copy": _store_copy,
    "store_delete": _store_delete,
    "store_info": _store_info,
    "track": _track,
}


if __name__ == "__main__":
    sys.exit(main())
