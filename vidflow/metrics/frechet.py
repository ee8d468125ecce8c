"""The Fréchet distance of two sets of features, each taken for a Gaussian (Heusel et al. 2017; of videos: FVD)."""

import numpy as np
from jaxtyping import Float

from vidflow.errors import UsageError


def distance(a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "M D"]) -> float:
    """|mean a - mean b|^2 + tr(A + B - 2 (A B)^(1/2)) with the covariances A and B.

    It falls with the number of rows, so that only distances of equally many can be compared.

    Raises:
      UsageError: fewer than two rows, of which there is no covariance.
    """
    if min(len(a), len(b)) < 2:
        raise UsageError(f"A Frechet distance needs 2 clips or more of each kind, not {len(a)} and {len(b)}: add some.")
    a, b = a.astype(np.float64), b.astype(np.float64)
    x, y = ((rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1) for rows in (a, b))
    # With A = x' x and B = y' y, the eigenvalues of A B are the squared singular values of x y', or of the triangles
    # of x and y, which are no larger than D x D.
    shared = np.linalg.norm(np.linalg.qr(x, mode="r") @ np.linalg.qr(y, mode="r").T, "nuc")
    found = np.square(a.mean(axis=0) - b.mean(axis=0)).sum() + (x**2).sum() + (y**2).sum() - 2 * shared
    return max(float(found), 0.0)  # rounding may take that of equal sets below
