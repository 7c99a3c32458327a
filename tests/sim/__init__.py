"""Seeded simulation: a failure prints the seed that replays it."""
