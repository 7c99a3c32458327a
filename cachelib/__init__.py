"""A write-through distributed cache with an invalidation bus."""
