"""Which adapter serves a mailbox, why, and what answers with it."""
