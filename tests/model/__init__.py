"""Exhaustive search of the pure machines on small bounds."""
