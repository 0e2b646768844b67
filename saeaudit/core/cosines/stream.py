"""Rows on their way to an accelerator: read, pinned and sent a block at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from saeaudit.core.rows import UnitRows, spans


def stored_blocks(units: UnitRows, device: torch.device, size: int) -> Iterator[Tensor]:
    """The rows as they are stored, in order, on a CUDA device.

    They go through two pinned buffers in turn, so that the next block is read from the file while
    the device works on the last one.

    Args:
        units: n rows of width d.
        device: where to.
        size: rows to a block.

    Yields:
        ``[m, d]`` in the file's dtype, m at most `size`.
    """
    if units.device == device:
        for start, stop in spans(units.count, size):
            yield units.stored(start, stop)
        return
    shape = (min(size, units.count), units.width)
    buffers = [torch.empty(shape, dtype=units.rows.dtype, pin_memory=True) for _ in range(2)]
    sent = [torch.cuda.Event() for _ in range(2)]  # type: ignore[no-untyped-call]
    for turn, (start, stop) in enumerate(spans(units.count, size)):
        buffer, event = buffers[turn % 2][: stop - start], sent[turn % 2]
        event.synchronize()
        buffer.copy_(units.stored(start, stop))
        block = buffer.to(device, non_blocking=True)
        event.record(torch.cuda.current_stream(device))
        yield block


def unit_blocks(
    units: UnitRows, device: torch.device, size: int
) -> Iterator[tuple[int, int, Tensor]]:
    """Unit rows in order on `device`: ``(start, stop, [stop - start, d] float32)``."""
    if device.type != "cuda":  # not every device knows float64
        for start, stop in spans(units.count, size):
            yield start, stop, units.block(start, stop).to(device)
        return
    norms = units.norms.to(device)
    blocks = stored_blocks(units, device, size)
    for (start, stop), block in zip(spans(units.count, size), blocks, strict=True):
        yield start, stop, units.scaled(block, norms[start:stop])


def place_rows(units: UnitRows, device: torch.device) -> UnitRows:
    """The same rows on a CUDA device if they fit there with room to spare, else as they are."""
    if device.type != "cuda" or units.device == device:
        return units
    size = units.rows.element_size()
    free, _ = torch.cuda.mem_get_info(device)
    if size * units.count * units.width > units.budget.held_share * free:
        return units
    rows = torch.empty(units.count, units.width, dtype=units.rows.dtype, device=device)
    done = 0
    for block in stored_blocks(units, device, units.budget.stored_rows(units.width, size)):
        rows[done : done + len(block)] = block
        done += len(block)
    live = torch.arange(units.count, device=device)
    return UnitRows(rows, live, units.norms.to(device), units.budget)
