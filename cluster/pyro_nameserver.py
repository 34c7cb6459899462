"""The name server of a campaign: workers make themselves known to it, and the manager finds them there."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from stormtracks.cluster.errors import ClusterError
from stormtracks.cluster.wire.address import DEFAULT_PORT, nameserver_address, parse_address
from stormtracks.cluster.wire.credentials import credentials_for
from stormtracks.cluster.wire.transport import start_nameserver, use_credentials
from stormtracks.settings.errors import SettingsError
from stormtracks.settings.load import load_settings

__all__ = ["DEFAULT_PORT", "main", "nameserver_address"]


def main(argv: Sequence[str] | None = None) -> int:
    """Launch a name server and serve until SIGTERM or Ctrl-C; returns the exit status.

    0: it was told to end; 2: it could not start.
    """
    parser = argparse.ArgumentParser(
        prog="pyro_nameserver",
        description="Run the name server of a campaign.",
        epilog="Exit status: 0 it was told to end; 2 it could not start.",
    )
    parser.add_argument("campaign", type=Path, nargs="?", metavar="CAMPAIGN.toml")
    parser.add_argument("--listen", metavar="HOST:PORT", help="default: what the campaign says")
    parser.add_argument("--insecure", action="store_true", help="allow plain text beyond this machine")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    ends = (signal.SIGTERM, signal.SIGINT)
    # Waited for below; blocked from here on, so that none is missed and no thread is interrupted.
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        campaign = load_settings(arguments.campaign).campaign
        insecure = arguments.insecure or campaign.cluster.insecure
        address = parse_address(arguments.listen) if arguments.listen else nameserver_address(campaign.cluster)
        use_credentials(None if insecure else credentials_for(campaign))
        with start_nameserver(address, insecure=insecure) as service:
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
