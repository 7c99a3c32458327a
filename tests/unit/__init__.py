"""One module at a time, no server, no thread that matters."""
