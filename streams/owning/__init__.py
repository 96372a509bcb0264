"""The owner of a store: what mail becomes in it, and who else may use it, and how."""
