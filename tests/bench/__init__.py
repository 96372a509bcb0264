"""Measurements that take too long for the test suite; each returns rows that can be printed and compared."""
