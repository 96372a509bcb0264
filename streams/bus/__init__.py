"""Events on their way to those who act on them: one contract, and the transports that keep it."""
