"""Where change events come from; `base.py` is the contract."""
