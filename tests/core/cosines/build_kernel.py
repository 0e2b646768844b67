"""Compile the fused kernel for a GPU that need not be there: ``python -m ... CAPABILITY``.

Prints what the test looks at as one line of JSON. It is a process of its own because Triton cannot
compile where it interprets.
"""

from __future__ import annotations

import json
import re
import sys

import triton

from saeaudit.core.cosines import kernels
from saeaudit.core.cosines.kernels import CONFIGS


def build(capability: int, number: int) -> dict[str, object]:
    config = CONFIGS[number]
    pointers = {"packed": "*i8", "hits": "*i64"}
    pointers |= dict.fromkeys(("margin", "best", "hit_i", "hit_j", "hit_value"), "*i32")
    fixed = {"ROWS": config.rows, "COLUMNS": config.columns, "DEPTH": config.depth, "EVEN": True}
    names = kernels.sweep_tile.arg_names
    signature = {n: pointers.get(n, "constexpr" if n in fixed else "i32") for n in names}
    aligned = {(names.index(n),): [["tt.divisibility", 16]] for n in (*pointers, "width")}
    built = triton.compile(
        triton.compiler.ASTSource(kernels.sweep_tile, signature, fixed, aligned),
        target=triton.backends.compiler.GPUTarget("cuda", capability, 32),
        options={
            "num_warps": config.warps,
            "num_stages": config.stages,
            "enable_fp_fusion": True,
        },
    )
    products = set(re.findall(r"(?:wgmma\.mma_async|mma)\.sync[\w.]*", built.asm["ptx"]))
    return {
        "products": sorted(products),
        "shared": built.metadata.shared,
        "pipeline": config.shared,
        "cubin_bytes": len(built.asm["cubin"]),
    }


if __name__ == "__main__":
    print(json.dumps(build(int(sys.argv[1]), int(sys.argv[2]))))
