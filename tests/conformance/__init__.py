"""Every backend against the machine that says what a backend must do."""
