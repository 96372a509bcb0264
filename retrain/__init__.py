"""Trains and measures an adapter from a run's folder and shards. The only package that imports torch."""
