"""Regression benchmarks: what a model could do before it learned the mail, and should still be able to do after."""
