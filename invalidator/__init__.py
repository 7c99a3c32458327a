"""The daemon that reads a store's change log and keeps the caches consistent with it."""
