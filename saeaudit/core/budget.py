"""How much is held or looked at in one step: every size that trades memory for speed.

Findings do not depend on any of them. A budget comes with the rows (`UnitRows.budget`); tests pass
a small one, and a search whose device is short of memory goes on with a smaller one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Size:
    """A size on a CPU, whose caches are small, and on an accelerator, whose launches are dear."""

    cpu: int
    accelerator: int

    def on(self, device: torch.device) -> int:
        """Return the size that suits a device."""
        return self.cpu if device.type == "cpu" else self.accelerator


@dataclass(frozen=True)
class Budget:
    """Sizes, in bytes where a name says so, else in rows or entries.

    Example: with ``Budget(edges=4000)`` a search of a few hundred rows has to drop edges.
    """

    exact_bytes: Size = Size(4 << 20, 1 << 30)
    """Float64 scratch of one exact step: it fits in a CPU's last cache."""

    # Rows on their way to a device, and made ready for products.
    held_share: float = 0.4
    """A decoder is kept on a device when it takes no more than this share of its free memory: the
    screen's copy, the products and the hits need the rest."""
    stored_bytes: int = 64 << 20
    """Stored rows sent to a device at once: long enough for the bus, short enough to pin twice."""
    float32_bytes: Size = Size(256 << 20, 2 << 30)
    """Unit rows in float32 are kept where they take no more than this, else made when needed."""
    half_bytes: Size = Size(96 << 20, 4 << 30)
    """Rows of 16 bits for a second look at whole rows are kept where they take no more."""
    packed_rows: Size = Size(256, 32768)
    """Rows packed at once: few enough for a CPU's cache, many for a device."""
    paired_rows: Size = Size(512, 65536)
    """Pairs of rows gathered at once."""

    # The sweep.
    tile: int | None = None
    """Rows to a side of a tile; None for what suits the device, fused into one kernel where that
    can be built."""
    hits: int = 1 << 22
    """Hits that a fused sweep's buffer holds at first, 12 bytes each."""
    most_hits: int = 1 << 26
    """Hits that it may grow to; a strip with more is halved."""
    strip_rows: int = 8192
    """Rows to a strip of a fused sweep, about."""

    # What a sweep's hits are kept as.
    pairs: int = 2_000_000
    """Pairs listed; more are only counted."""
    edges: int = 24_000_000
    """Edges listed, 12 bytes each; more, and what no triple can use is dropped."""
    entries: int = 1 << 22
    """Listed edges, or candidate (edge, third row) combinations, looked at in one step."""
    neighbours: int = 1 << 28
    """Entries of whole rows of cosines listed beside the edges; more is too dense."""
    combinations: int = 1 << 35
    """Candidate (edge, third row) combinations looked at in all; more is too dense."""
    candidates: int = 20_000_000
    """Candidate triples held; more is too dense."""
    decided: int = 200_000
    """Candidate triples decided at once."""

    # Whole rows of cosines.
    columns: Size = Size(8192, 32768)
    """Columns of whole rows estimated at once."""
    deep_rows: int = 1024
    """Whole rows estimated at once for lists of neighbours."""
    second_rows: Size = Size(1024, 8192)
    """Whole rows looked at again at once: many enough for a product to run at its peak."""
    whole_entries: int = 1 << 24
    """Entries of whole rows held at once."""
    crowd_bytes: int = 1 << 30
    """Unit rows of a crowd of near-copies are held in float64 where they take no more."""

    # Codes.
    swap_cells: Size = Size(3 << 18, 1 << 24)
    """Entries (token, removed, added) looked at in one step: an array of them fits in a CPU's
    cache, and products are wide enough to run at their peak."""
    marked_bytes: Size = Size(16 << 20, 256 << 20)
    """Float64 rows of several tokens, each token's own, held at once."""
    solved_cells: int = 1 << 20
    """Entries (swap, feature of its support) of swaps solved in closed form at once."""
    system_bytes: Size = Size(64 << 20, 1 << 30)
    """Systems of equations solved at once."""
    samples: int = 1 << 22
    """Samples that wait before they are merged into counts."""

    def exact_rows(self, width: int, device: torch.device) -> int:
        """Return how many float64 rows of a width one exact step takes (at least one)."""
        return max(1, self.exact_bytes.on(device) // (8 * max(width, 1)))

    def stored_rows(self, width: int, bytes_an_entry: int) -> int:
        """Return how many stored rows are sent to a device at once (at least 256)."""
        return max(256, self.stored_bytes // (bytes_an_entry * max(width, 1)))

    def tile_side(self, device: torch.device) -> int:
        """Return a tile's side: on a CPU its product, 4 bytes an entry, stays in the last cache."""
        return self.tile or Size(1024, 8192).on(device)

    def whole_rows(self, count: int) -> int:
        """Return how many whole rows of `count` cosines are held at once (8 to 256)."""
        return max(8, min(256, self.whole_entries // max(count, 1)))

    def swap_columns(self, places: int, device: torch.device) -> int:
        """Return how many entering rows are looked at in one step (at least 64)."""
        return max(64, self.swap_cells.on(device) // max(places, 1))

    def marked_columns(self, tokens: int, width: int, device: torch.device) -> int:
        """Return how many float64 rows of each of some tokens are held at once (at least 16)."""
        return max(16, self.marked_bytes.on(device) // (8 * max(width, 1) * max(tokens, 1)))

    def solved_swaps(self, size: int) -> int:
        """Return how many swaps of `size` features are solved in closed form at once (at least
        one)."""
        return max(1, self.solved_cells // max(size, 1))

    def systems(self, size: int, device: torch.device) -> int:
        """Return how many systems of `size` equations are solved at once (at least one)."""
        return max(1, self.system_bytes.on(device) // (8 * max(size, 1) ** 2))


DEFAULT = Budget()
"""What is used where no other is passed."""
