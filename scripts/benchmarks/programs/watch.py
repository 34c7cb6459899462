"""Run a command and tell what it took: `python -I -S watch.py CORES COMMAND...`, wall and processor seconds, peak KiB.

CORES is on how many cores it and all that it starts may run, 0 for all. The kernel counts the peak memory of a process
from its fork, so it is never below what its parent held then. This parent imports nothing, and holds next to nothing.
What the command says goes to standard error, so that standard output holds the three numbers and nothing else.
"""

import os
import sys
import time

cores, command = int(sys.argv[1]), sys.argv[2:]
if cores:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
start = time.perf_counter()
process = os.posix_spawnp(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
_, status, usage = os.wait4(process, 0)
print(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
ended = os.waitstatus_to_exitcode(status)
sys.exit(ended if ended >= 0 else 128 - ended)
