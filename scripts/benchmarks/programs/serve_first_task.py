"""serve_first_task.py NAMESERVER: the worker of `measure_start.py`, as `pyro_worker` would be but for its task."""

import sys

from stormtracks.cluster.pyro_worker import PyroWorker, run_worker
from stormtracks.cluster.wire.transport import parse_address

run_worker(PyroWorker("here", task_function="first_task:run_task"), "bench", parse_address(sys.argv[1]))
