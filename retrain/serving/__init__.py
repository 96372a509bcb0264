"""Adapters that answer: several over one base, waiting requests side by side in one batch."""
