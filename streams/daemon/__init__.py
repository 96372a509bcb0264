"""The process that stays: it follows feeds, closes windows, retrains, and answers commands while it runs."""
