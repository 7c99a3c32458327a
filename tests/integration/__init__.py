"""The parts together, on real servers."""
