"""A run from claim to verdict: asked for, planned, trained by a process beside this one, decided."""
