"""The manager as a command: what a Ctrl-C does while it is still loading."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.cluster.cluster_parts import BOUND, ROOT

INTERRUPTED_WHILE_LOADING = """
import sys
from stormtracks.cluster.pyro_manager import main

class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == "stormtracks.cluster.campaign":
            raise KeyboardInterrupt

sys.meta_path.insert(0, CtrlC())
sys.exit(main(["campaign.toml"]))
"""


def test_ctrl_c_while_it_is_still_loading_is_no_traceback() -> None:
    command = [sys.executable, "-c", INTERRUPTED_WHILE_LOADING]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=BOUND, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
