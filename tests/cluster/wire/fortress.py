"""A service that is shot at, as a program: FOLDER of certificates, or ``plain``. It ends when its input does."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from stormtracks.cluster.wire import service
from stormtracks.cluster.wire.credentials import credentials_in
from stormtracks.cluster.wire.transport import exposed, serve, use_credentials


class Fortress:
    """Something to call."""

    @exposed
    def echo(self, value: Any) -> Any:
        """The same again."""
        return value

    @exposed
    def add(self, one: int, other: int) -> int:
        """A sum."""
        return one + other


def main() -> None:
    """Serve until the standard input ends."""
    logging.basicConfig(format="%(name)s %(message)s")
    service._NEWCOMER_LIMIT = 1.0
    use_credentials(None if sys.argv[1] == "plain" else credentials_in(Path(sys.argv[1])))
    with serve(Fortress(), "fortress", ("127.0.0.1", 0)) as served:
        sys.stdout.write(f"{served.uri}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
