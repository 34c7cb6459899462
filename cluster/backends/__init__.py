"""What carries assignments to where they are worked on: one module per way, one contract for all (`base`)."""
