"""What `scripts/bench` does.

The measuring process imports nothing but the standard library, so that any Python will do. All that needs more, and
what must hold little memory itself, is a program in ``programs``.
"""
