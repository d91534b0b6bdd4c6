"""Checks for kernels, energies and losses of your own, by enumeration of small spaces; the package's tests use them.

    from gwg_dist.testing import check_kernel
    check_kernel(MyKernel())              # raises CheckError, which says what is wrong

They need torch alone and take seconds.
"""

from gwg_dist.testing.energies import check_energy
from gwg_dist.testing.errors import CheckError
from gwg_dist.testing.kernels import check_detailed_balance, check_invariance, check_kernel, transition_matrix
from gwg_dist.testing.losses import check_gradient, negative_log_likelihood
from gwg_dist.testing.models import exact_pi, random_target, small_targets

__all__ = [
    "CheckError",
    "check_detailed_balance",
    "check_energy",
    "check_gradient",
    "check_invariance",
    "check_kernel",
    "exact_pi",
    "negative_log_likelihood",
    "random_target",
    "small_targets",
    "transition_matrix",
]
