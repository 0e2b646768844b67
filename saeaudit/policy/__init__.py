"""What a run must meet: rules, baselines and the configuration; records in, a verdict out."""
