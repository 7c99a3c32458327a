"""The verifier: asks the caches what they serve after a change, and says how often that is not what the store has."""
