"""Search engines over mail, and how good they are."""
