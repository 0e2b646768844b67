"""Ends of names that files of weights have; `tensors` has a reader for each."""

from __future__ import annotations

SUFFIXES = (".npz", ".npy", ".safetensors", ".pt", ".pth", ".bin", ".ckpt")
