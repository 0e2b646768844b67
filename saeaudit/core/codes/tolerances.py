"""What counts as zero, as dependent and as equal where codes are fitted: all in float64 but ULP.

Rows have unit norm, so a squared distance is a share, and |t|^2 is a target's squared norm.
"""

TOLERANCE = 1e-10
"""A squared error passes a limit that it exceeds by no more than this share of |t|^2."""
DEPENDENT = 1e-9
"""A row closer than this (squared) to the span of others brings no direction of its own."""
WEAK = 1e-10
"""A support is left as it is when every row is further (squared) from the span of those before."""
FIT_RIDGE = 1e-13
"""Where rows of a support depend on each other, this times the squared codes is part of the error:
of all the codes that fit as well, those that do not cancel each other."""
NNLS_RIDGE = 1e-12
"""Added to a Gram matrix's diagonal: parallel rows have no unique codes, these have."""
DELICATE = 1e4
"""Entries of an inverse Gram matrix beyond this are not subtracted from each other: four of the
digits would go."""
ZERO = 1e-9
"""Codes and slopes of no more than this share of |t| are zero."""
ENTERS = 1e-9
"""A feature has entered a code where its own is more than this share of the refit's norm."""
ROUNDING = 1e-12
"""Two ways to the same squared error differ by less than this share of |t|^2."""
CURVATURE = 1e-14
"""Least curvature that is divided by, so that bounds are finite."""
SPREAD = 1e-30
"""Least entry of an inverse Gram matrix that is divided by."""
TINY = 1e-300
"""Least squared error that is divided by, so that a price of error is finite."""
ULP = 2.0**-24
"""Relative error of one operation in float32."""
STEPS = 16
"""More elementwise operations than any estimate in float32 is made with."""
