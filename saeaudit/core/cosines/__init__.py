"""Cosines of rows with each other: screened in blocks, decided exactly."""
