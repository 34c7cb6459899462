"""Stops the workers of a campaign through ssh, and nothing else, and says what happened on each host."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stormtracks.cluster.fleet import DRAIN_SECONDS, run_on_hosts

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Stop all pyro_workers of a campaign; returns the exit status.

    Goes to each host by ssh and tells the worker there to end, if this campaign has started it. 0: none runs any more;
    1: some may; 2: usage or settings are wrong.
    """
    parser = argparse.ArgumentParser(
        prog="pyro_ender",
        description="Stop the worker of every host of a campaign.",
        epilog="Exit status: 0 none runs any more; 1 some may; 2 usage or settings are wrong.",
    )
    parser.add_argument("campaign", type=Path, metavar="CAMPAIGN.toml")
    parser.add_argument("--force", action="store_true", help="kill a worker that does not end by itself")
    parser.add_argument(
        "--wait", type=float, default=DRAIN_SECONDS, metavar="SECONDS", help="that it has to; default: %(default)g"
    )
    arguments = parser.parse_args(argv)
    return run_on_hosts(
        "pyro_ender", arguments.campaign, lambda fleet: fleet.stop(force=arguments.force, wait=arguments.wait)
    )


if __name__ == "__main__":
    sys.exit(main())
