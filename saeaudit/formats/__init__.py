"""How records leave: one module per format."""
