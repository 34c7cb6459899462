"""What `scripts/bench` does.

The measuring process imports nothing but the standard library: the peak memory that the kernel reports for a child
counts from its fork, so it is never below what its parent held. All that needs more is a program in ``programs``.
"""
