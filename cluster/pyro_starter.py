"""Starts the worker of every host of a campaign through ssh, and says what happened on each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stormtracks.cluster.fleet import run_on_hosts

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Start all pyro_workers of a campaign; returns the exit status.

    Goes to each host by ssh and starts one worker there, with as many slots as the host has, unless it runs already.
    0: all run; 1: not all; 2: usage or settings are wrong.
    """
    parser = argparse.ArgumentParser(
        prog="pyro_starter",
        description="Start the worker of every host of a campaign.",
        epilog="Exit status: 0 all run; 1 not all; 2 usage or settings are wrong.",
    )
    parser.add_argument("campaign", type=Path, metavar="CAMPAIGN.toml")
    parser.add_argument("--install", type=Path, metavar="WHEEL", help="copy this wheel there and install it first")
    arguments = parser.parse_args(argv)
    return run_on_hosts("pyro_starter", arguments.campaign, lambda fleet: fleet.start(wheel=arguments.install))


if __name__ == "__main__":
    sys.exit(main())
