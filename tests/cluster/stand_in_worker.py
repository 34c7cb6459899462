"""Stands in for a worker: says on which terms it was started, listens where it is told, and waits for its end.

The environment variable STAND_IN makes it behave badly: ``ends`` at once, ``stubborn`` in face of SIGTERM, or ``deaf``,
which never listens.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading

manner = os.environ.get("STAND_IN", "")
print(json.dumps({"arguments": sys.argv[1:], "environment": dict(os.environ)}), flush=True)
if manner == "ends":
    sys.exit("the sea is too rough")
if manner == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with socket.socket() as listener:
    listener.bind((sys.argv[sys.argv.index("--listen") + 1], 0))
    if manner != "deaf":
        listener.listen()
    threading.Event().wait()
