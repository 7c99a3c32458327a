"""Minutes of load through the whole chain while its parts are killed: `make soak`."""
