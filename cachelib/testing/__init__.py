"""For tests of programs that use the cache, and of further backends."""
