"""The cache servers: Redis, Memcached and memory, each a codec and a transport."""
