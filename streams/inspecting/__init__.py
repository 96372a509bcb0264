"""What people look at: how a home stands, what its mail is like, and what was set aside."""
