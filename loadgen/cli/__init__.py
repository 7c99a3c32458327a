"""The commands that measure by planned runs; `root.py` gathers them."""
