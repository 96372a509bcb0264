"""Settings: every group of them, and how they are read."""
