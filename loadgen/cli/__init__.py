"""The commands that measure by planned runs; `loadgen.__main__` gathers them."""
