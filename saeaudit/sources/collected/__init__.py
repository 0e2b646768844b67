"""A folder of collected activations: how it is written, survives a crash, and is read."""
