"""What a Kafka record says about rows: one decoder a file, `base.py` is the contract."""
