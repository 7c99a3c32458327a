"""Offers load to a cache and its store, and measures latency and staleness."""
