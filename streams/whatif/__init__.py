"""A mailbox's stored log replayed under other policies of windows and rehearsal: what each would have cost."""
