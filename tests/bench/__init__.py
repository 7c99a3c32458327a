"""Programs that measure and print a table; nothing here asserts a time."""
