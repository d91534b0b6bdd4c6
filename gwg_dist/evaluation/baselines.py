"""What can be said of missing sites without the model: the commonest category, and a logistic regression a site."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

MAX_ROWS = 2000  # that a regression learns from
MAX_WORK = 3e10  # rows times features times classes times sites times iterations
ITERATIONS = 200
FLOOR = 1e-6  # the least probability that a logarithm is taken of


class Guess(NamedTuple):
    """How well probabilities foretell hidden cells.

    Args:
        accuracy: share of the cells whose most probable category is the true one.
        stderr: its standard error.
        log_prob: mean log probability of the true category, nats.
    """

    accuracy: float
    stderr: float
    log_prob: float


def judge(probs: Tensor, truth: Tensor) -> Guess:
    """Compare probabilities ``(M, K)`` with the true categories ``(M,)``; M is at least 1."""
    right = (probs.argmax(1) == truth).double()
    log_prob = probs.gather(1, truth[:, None]).clamp(min=FLOOR).log().mean()
    return Guess(float(right.mean()), float(right.std(correction=0) / len(right) ** 0.5), float(log_prob))


def commonest(frequencies: Tensor, cells: Tensor) -> Tensor:
    """The frequencies of the categories at each cell's site, ``(M, K)``.

    Args:
        frequencies: of the training points, ``(D, K)``.
        cells: row and site, ``(M, 2)``.
    """
    return frequencies[cells[:, 1]].double()


def logistic(train: Tensor, given: Tensor, cells: Tensor, num_categories: int, *, seed: int = 0) -> Tensor | None:
    """Probabilities of missing sites, ``(M, K)``, by one logistic regression a site on the one-hot other sites.

    A missing site counts as the frequencies of the training points. Training points have as large a share of their
    sites missing at random as ``given``. At most 2,000 of them are used. None where that is still too much work.

    Args:
        train: training codes, ``(N, D)``.
        given: points with -1 where a site is missing, ``(R, D)``.
        cells: row and site of the cells that are asked for, ``(M, 2)``.
        num_categories: K.
        seed: of the rows that are used and the sites that are hidden.
    """
    from sklearn.linear_model import LogisticRegression

    generator = torch.Generator().manual_seed(seed)
    train = train.long()[torch.randperm(len(train), generator=generator)[:MAX_ROWS]]
    sites = cells[:, 1].unique().tolist()
    frequencies = functional.one_hot(train, num_categories).double().mean(0)
    hidden = torch.rand(train.shape, generator=generator) < float((given < 0).double().mean())
    features = _features(torch.where(hidden, -1, train), frequencies)
    asked = _features(given, frequencies)
    site_of = np.arange(features.shape[1]) // (num_categories - 1)
    varies = features.std(0) > 0
    classes = sum(len(train[:, site].unique()) for site in sites)
    if len(train) * varies.sum() * classes * ITERATIONS > MAX_WORK:
        return None
    probs = torch.zeros(len(cells), num_categories, dtype=torch.float64)
    for site in sites:
        mine, labels = (cells[:, 1] == site).nonzero()[:, 0], train[:, site].numpy()
        others = varies & (site_of != site)
        if len(np.unique(labels)) < 2 or not others.any():
            probs[mine] = frequencies[site]  # nothing to tell, or nothing to tell it by
            continue
        model = LogisticRegression(max_iter=ITERATIONS).fit(features[:, others], labels)
        found = model.predict_proba(asked[cells[mine, 0].numpy()][:, others])
        columns = torch.as_tensor(model.classes_, dtype=torch.int64)
        probs[mine[:, None], columns] = torch.from_numpy(found)
    return probs


def _features(codes: Tensor, frequencies: Tensor) -> np.ndarray:
    """One-hot sites without their first category, ``(N, D (K - 1))``; a missing one is the frequencies."""
    num_categories = frequencies.shape[1]
    hot = functional.one_hot(codes.clamp(min=0), num_categories).double()
    return torch.where((codes < 0)[:, :, None], frequencies, hot)[:, :, 1:].flatten(1).numpy()
