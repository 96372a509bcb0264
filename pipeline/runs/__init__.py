"""A run as it is asked for, and the files that it leaves."""
