"""The races of the protocol, one named test each."""
