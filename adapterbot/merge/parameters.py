"""The strategy parameters of CMA-ES, as Hansen's tutorial derives them from n and λ. numpy only.

Table 1 of arXiv 1604.00772, version 2; equation numbers are its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Parameters:
    """The parameters of Table 1, fixed by the dimension n and the population λ.

    Attributes:
        weights: (λ,) w_i; the first µ are positive and sum to 1, the others are not positive.
        mu_eff: variance-effective selection mass µ_eff.
        c_sigma, d_sigma: learning rate and damping of the step size.
        c_c, c_1, c_mu: learning rates of p_c, of the rank-one and of the rank-µ update.
        chi: E‖N(0, I)‖.
    """

    weights: Vector
    mu_eff: float
    c_sigma: float
    d_sigma: float
    c_c: float
    c_1: float
    c_mu: float
    chi: float

    @classmethod
    def default(cls, n: int, population: int) -> Self:
        """Table 1, with eqs. (49) to (58)."""
        raw = math.log((population + 1) / 2) - np.log(np.arange(1, population + 1))  # (49)
        mu = population // 2
        best, rest = raw[:mu], raw[mu:]
        mu_eff = float(best.sum() ** 2 / (best**2).sum())  # (8)
        mu_eff_rest = float(rest.sum() ** 2 / (rest**2).sum())
        c_1 = 2 / ((n + 1.3) ** 2 + mu_eff)  # (57)
        c_mu = min(1 - c_1, 2 * (0.25 + mu_eff + 1 / mu_eff - 2) / ((n + 2) ** 2 + mu_eff))  # (58)
        negative = min(
            1 + c_1 / c_mu,  # (50)
            1 + 2 * mu_eff_rest / (mu_eff + 2),  # (51)
            (1 - c_1 - c_mu) / (n * c_mu),  # (52)
        )
        weights = np.where(raw >= 0, raw, 0) / raw[raw >= 0].sum()  # (53)
        weights[raw < 0] = negative * raw[raw < 0] / -raw[raw < 0].sum()
        # (55) with pycma's 3 for the tutorial's 5: in few dimensions σ then follows sooner.
        c_sigma = (mu_eff + 2) / (n + mu_eff + 3)
        return cls(
            weights=weights,
            mu_eff=mu_eff,
            c_sigma=c_sigma,
            d_sigma=1 + 2 * max(0, math.sqrt((mu_eff - 1) / (n + 1)) - 1) + c_sigma,
            c_c=(4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n),  # (56)
            c_1=c_1,
            c_mu=c_mu,
            chi=math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2)),
        )


def default_population(n: int) -> int:
    """λ = 4 + ⌊3 ln n⌋, eq. (48)."""
    return 4 + int(3 * math.log(n))
