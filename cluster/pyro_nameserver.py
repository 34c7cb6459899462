"""The name server of a campaign: workers make themselves known to it, and the manager finds them there."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from stormtracks.cluster.errors import ClusterError
from stormtracks.cluster.transport import Address, parse_address, start_nameserver
from stormtracks.settings.campaign import ClusterSettings
from stormtracks.settings.errors import SettingsError
from stormtracks.settings.load import load_settings

__all__ = ["DEFAULT_PORT", "main", "nameserver_address"]

DEFAULT_PORT = 9090


def nameserver_address(cluster: ClusterSettings) -> Address:
    """Where the name server of a campaign is to be found: `cluster.nameserver`, or else port 9090 of `cluster.listen`.

    A campaign without hosts and without a name server needs none that others can find: its manager brings its own.
    """
    return parse_address(cluster.nameserver) if cluster.nameserver else (cluster.listen, DEFAULT_PORT)


def main(argv: Sequence[str] | None = None) -> int:
    """Launch a name server and serve until SIGTERM or Ctrl-C; returns the exit status.

    0: it was told to end; 2: it could not start.
    """
    parser = argparse.ArgumentParser(prog="pyro_nameserver", description="Run the name server of a campaign.")
    parser.add_argument("campaign", type=Path, nargs="?", metavar="CAMPAIGN.toml")
    parser.add_argument("--listen", metavar="HOST:PORT", help="default: what the campaign says")
    parser.add_argument("--insecure", action="store_true", help="allow plain text beyond this machine")
    arguments = parser.parse_args(argv)
    ends = (signal.SIGTERM, signal.SIGINT)
    # Waited for below; blocked from here on, so that none is missed and no thread is interrupted.
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        cluster = load_settings(arguments.campaign).campaign.cluster
        address = parse_address(arguments.listen) if arguments.listen else nameserver_address(cluster)
        with start_nameserver(address, insecure=arguments.insecure or cluster.insecure) as service:
            sys.stdout.write("name server at {}:{}\n".format(*service.address))
            sys.stdout.flush()
            signal.sigwait(ends)
    except (ClusterError, SettingsError) as error:
        sys.stderr.write(f"pyro_nameserver: {error}\n")
        return 2
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ends)
    return 0


if __name__ == "__main__":
    sys.exit(main())
