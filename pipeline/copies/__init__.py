"""Near copies of a text among many."""
