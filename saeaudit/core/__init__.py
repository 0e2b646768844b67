"""Tensors in, tensors out: no files, no records, no printing."""
