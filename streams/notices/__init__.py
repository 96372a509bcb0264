"""Notices of what was decided, failed or waits: found in the store, put into figures, brought to whom the settings name."""
