"""The append-only store of one home: ``store.duckdb`` for rows, ``bodies.duckdb`` for texts and people."""
