"""Real servers, started on free ports in temporary folders, for tests and benchmarks."""
