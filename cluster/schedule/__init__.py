"""The parts of the schedule, free of I/O: who holds what, what waits, whose fault it is. `pyro_task` joins them."""
