"""What the representations predict: properties by regression, classes by nearest neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lexray.array_types import Float64s
from lexray.evaluation.heldout import interval_95

#: Numbers of neighbours that validation sources choose from.
K_CANDIDATES = (1, 3, 5, 9, 15, 25, 41)


@dataclass(frozen=True)
class ProbeResult:
    """How well a property is predicted on sources that the probe has not seen.

    Attributes
    ----------
    r2, low, high : float
        1 − Σ(y − ŷ)² / Σ(y − ȳ)²; 0 is what the mean gives. With its 95 % bootstrap interval over the sources.
    truth, predicted : f8[N]
        Of the test sources.
    n_train : int
    """

    r2: float
    low: float
    high: float
    truth: Float64s
    predicted: Float64s
    n_train: int


def r_squared(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Coefficient of determination; 0 where the truth does not vary."""
    y, p = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    spread = np.sum((y - y.mean()) ** 2)
    return float(1 - np.sum((y - p) ** 2) / spread) if spread > 0 else 0.0


def probe(
    x: ArrayLike, y: ArrayLike, splits: Sequence[str], method: str = "ridge", seed: int = 0, n_bootstrap: int = 500
) -> ProbeResult | None:
    """Fit on the training sources, judge on the test sources.

    Parameters
    ----------
    x : f4[N, D]
        A representation.
    y : f8[N]
        NaN where unknown; such sources are left out.
    splits : sequence of str, length N
        'train', 'val' or 'test'.
    method : {'ridge', 'forest'}
        Ridge regression on standardised features, its penalty by cross-validation within the training sources; or a
        random forest of 100 trees.
    seed, n_bootstrap : int
        Of the forest and of the bootstrap.

    Returns
    -------
    ProbeResult or None
        None where fewer than 10 training or 3 test sources are known.
    """
    features, values, part = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), np.asarray(splits)
    known = np.isfinite(values)
    train, test = known & (part == "train"), known & (part == "test")
    if train.sum() < 10 or test.sum() < 3:
        return None
    models = {
        "ridge": make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-2, 4, 19))),
        "forest": RandomForestRegressor(
            n_estimators=100, min_samples_leaf=2, max_features=1 / 3, random_state=seed, n_jobs=1
        ),
    }
    if method not in models:
        raise ValueError(f"method must be 'ridge' or 'forest', got {method!r}")
    predicted = models[method].fit(features[train], values[train]).predict(features[test])
    truth = values[test]
    generator = np.random.default_rng(seed)
    drawn = [
        r_squared(truth[i], predicted[i]) for i in generator.integers(0, len(truth), size=(n_bootstrap, len(truth)))
    ]
    return ProbeResult(r_squared(truth, predicted), *interval_95(drawn), truth, predicted, int(train.sum()))


@dataclass(frozen=True)
class NeighbourResult:
    """Classes of the test sources by the vote of their nearest training sources.

    Attributes
    ----------
    accuracy, low, high : float
        Share of right classes with its 95 % bootstrap interval.
    balanced_accuracy : float
        Mean over the classes of the share found, so that a common class does not carry the figure.
    majority : float
        Accuracy of always naming the commonest training class.
    k : int
        Neighbours, chosen on the validation sources.
    truth, predicted : list of str
    """

    accuracy: float
    low: float
    high: float
    balanced_accuracy: float
    majority: float
    k: int
    truth: list[str]
    predicted: list[str]


def classify_by_neighbours(
    x: ArrayLike, classes: Sequence[str | None], splits: Sequence[str], seed: int = 0, *, standardise: bool = False
) -> NeighbourResult | None:
    """k-nearest-neighbour classes by cosine similarity.

    Parameters
    ----------
    x : f4[N, D]
        A representation.
    classes : sequence of str or None, length N
        None where unknown.
    splits : sequence of str, length N
        'train', 'val' or 'test'.
    seed : int
        Of the bootstrap.
    standardise : bool
        Bring each feature to mean 0 and variance 1 over the training sources first: needed where features are no
        directions of a common space.

    Returns
    -------
    NeighbourResult or None
        None where there is nothing to vote with or to judge.
    """
    features, part = np.asarray(x, dtype=np.float64), np.asarray(splits)
    label = np.array([c or "" for c in classes], dtype=str)
    train, val, test = ((part == name) & (label != "") for name in ("train", "val", "test"))
    if not train.any() or not test.any():
        return None
    if standardise:
        features = (features - features[train].mean(axis=0)) / np.maximum(features[train].std(axis=0), 1e-9)
    features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    k_candidates = [k for k in K_CANDIDATES if k <= train.sum()]
    chosen = k_candidates[len(k_candidates) // 2]
    if val.any():
        shares = [np.mean(_vote(features, label, train, val, k) == label[val]) for k in k_candidates]
        chosen = k_candidates[int(np.argmax(shares))]
    predicted, truth = _vote(features, label, train, test, chosen), label[test]
    correct = predicted == truth
    low, high = interval_95(
        correct[np.random.default_rng(seed).integers(0, len(correct), size=(1000, len(correct)))].mean(axis=1)
    )
    names, counts = np.unique(label[train], return_counts=True)
    return NeighbourResult(
        accuracy=float(correct.mean()),
        low=low,
        high=high,
        balanced_accuracy=float(np.mean([correct[truth == name].mean() for name in np.unique(truth)])),
        majority=float(np.mean(truth == names[np.argmax(counts)])),
        k=chosen,
        truth=truth.tolist(),
        predicted=predicted.tolist(),
    )


def _vote(
    features: Float64s, label: NDArray[np.str_], train: NDArray[np.bool_], query: NDArray[np.bool_], k: int
) -> NDArray[np.str_]:
    """Class with most votes among the k nearest training rows; of equal votes, the one whose voters are nearer."""
    similarity = features[query] @ features[train].T
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    names, code = np.unique(label[train], return_inverse=True)
    votes = np.zeros((len(nearest), len(names)))
    # Earlier neighbours weigh a hair more, far less than one vote in all: that decides between equal counts.
    weight = 1.0 + 1e-3 * (k - np.arange(k)) / k
    np.add.at(votes, (np.arange(len(nearest))[:, None], code[nearest]), weight)
    chosen: NDArray[np.str_] = names[votes.argmax(axis=1)]
    return chosen
