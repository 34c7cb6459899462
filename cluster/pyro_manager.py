"""The manager of a campaign as a command: it finds the workers, gives them tasks, and shows the board until the end."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from stormtracks.errors import StormtracksError
from stormtracks.settings.errors import SettingsError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Establish communication with all workers and give them tasks until all is done; returns the exit status.

    The workers are those that `pyro_starter` has started, or that were started by hand, and those that come later. A
    campaign that names neither hosts nor a name server gets one worker on this machine.

    0: all complete; 1: a task failed or timed out; 2: usage or settings are wrong, or the campaign could not start;
    3: no worker came or was left, or its record cannot be kept; 130: stopped.
    """
    parser = argparse.ArgumentParser(
        prog="pyro_manager",
        description="Manage the workers of a campaign until it is done.",
        epilog="Ctrl-C lets the tasks that run end, a second one cancels them; the same command goes on. Exit status: "
        "0 all complete; 1 a task failed or timed out; 2 usage or settings are wrong, or it could not start; "
        "3 no worker came or was left, or its record cannot be kept; 130 stopped.",
    )
    parser.add_argument("campaign", type=Path, metavar="CAMPAIGN.toml")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the results (results.root)")
    parser.add_argument("--replace", action="store_true", help="delete results of other settings that lie in the way")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--quiet", action="store_true", help="only failures, and the summary at the end")
    shown.add_argument("--json", action="store_true", help="one JSON object per change")
    arguments = parser.parse_args(argv)
    given = {"run.backend": "pyro"} | ({"results.root": arguments.out} if arguments.out else {})
    resume = ["pyro_manager", str(arguments.campaign), *(["--out", str(arguments.out)] if arguments.out else [])]
    try:
        # Imported here, as it takes long enough for a Ctrl-C.
        from stormtracks.cluster.board import make_board
        from stormtracks.cluster.campaign import exit_status, run_campaign
        from stormtracks.settings.load import load_settings

        campaign = load_settings(arguments.campaign, command_line=given).campaign
        board = make_board("json" if arguments.json else "quiet" if arguments.quiet else "auto", sys.stdout)
        return exit_status(run_campaign(campaign, board, replace=arguments.replace, resume=shlex.join(resume)))
    except (StormtracksError, SettingsError) as error:
        sys.stderr.write(f"pyro_manager: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
