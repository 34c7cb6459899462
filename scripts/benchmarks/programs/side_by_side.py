"""Run commands at the same time and wait for all: `python side_by_side.py COMMAND... [-- COMMAND...]...`."""

from __future__ import annotations

import os
import sys


def commands(words: list[str]) -> list[list[str]]:
    """The commands, which `--` sets apart."""
    found: list[list[str]] = [[]]
    for word in words:
        if word == "--":
            found.append([])
        else:
            found[-1].append(word)
    return found


processes = [os.posix_spawnp(command[0], command, os.environ) for command in commands(sys.argv[1:])]
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) != 0 for process in processes))
