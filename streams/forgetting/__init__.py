"""`mailtide study forgetting`: archives become windows, arms are trained on them, and the outcome is told and drawn."""
