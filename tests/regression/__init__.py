"""One file for each bug that was found, red before its fix."""
