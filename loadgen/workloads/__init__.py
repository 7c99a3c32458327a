"""What is asked: which keys, how large, how often read and written, and traces of it."""
