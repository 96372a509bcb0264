"""Erasing what people ask to have forgotten, everywhere a home keeps it, and saying what that costs."""
