"""What goes between machines: who is let in, what may be said, and how all that is kept from everyone else."""
