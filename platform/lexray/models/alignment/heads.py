"""Linear heads on aligned X-ray embeddings: calibrated class probabilities and numeric properties.

A head must never be surer than it is right: the class head's temperature is fitted on validation sources that the
weights have not seen (Guo et al. 2017, arXiv:1706.04599). Stored as safetensors and JSON, nothing pickled.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import load_file, save_file
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression, RidgeCV

Float32s = NDArray[np.float32]

WEIGHTS_FILE, DESCRIPTION_FILE = "heads.safetensors", "heads.json"
#: A property known for fewer training sources than this gets no head: its weights would be noise.
MIN_TRAIN_SOURCES = 30
#: A class seen less often than this in training is left out of the class head.
MIN_CLASS_SOURCES = 3
#: A head that explains less of the variance of validation sources is dropped: a guess would look like a figure.
MIN_R2 = 0.05
#: Columns that say where or how a source was observed, and nothing of what it is.
NON_PROPERTY_COLUMNS = ("source_id", "part", "ra", "dec", "n_observations", "expected_counts")
#: Positive properties that span more than this factor are fitted in log10.
LOG_SPAN = 100.0


@dataclass(frozen=True)
class PropertyHead:
    """A numeric property's head.

    Attributes
    ----------
    name : str
        The label's column.
    log10 : bool
        Whether the head predicts the logarithm; `Heads.predict` undoes it.
    sigma : float
        Standard deviation of the error on validation sources, in dex where `log10` (NaN if there were none).
    r2 : float
        R² on validation sources (NaN if there were fewer than two).
    n_train : int
    """

    name: str
    log10: bool
    sigma: float
    r2: float
    n_train: int


@dataclass(frozen=True)
class Heads:
    """Linear heads over embeddings of E numbers.

    Attributes
    ----------
    classes : tuple of str, length K
        Empty if no classes were given.
    class_weight : f4[K, E]
    class_bias : f4[K]
    temperature : float
        Logits are divided by it.
    properties : tuple of PropertyHead, length P
    property_weight : f4[P, E]
    property_bias : f4[P]
    """

    classes: tuple[str, ...]
    class_weight: Float32s
    class_bias: Float32s
    temperature: float
    properties: tuple[PropertyHead, ...]
    property_weight: Float32s
    property_bias: Float32s

    @property
    def dimension(self) -> int:
        """E, the length of the embeddings that the heads take."""
        return int(self.class_weight.shape[1])

    def probabilities(self, embedding: ArrayLike) -> Float32s:
        """Calibrated class probabilities f4[N, K] of embeddings f4[N, E]; rows sum to 1."""
        x = self._checked(embedding)
        if not self.classes:
            return np.zeros((len(x), 0), dtype=np.float32)
        logits = x @ self.class_weight.T.astype(np.float64) + self.class_bias
        return np.asarray(np.exp(log_softmax(logits / self.temperature, axis=1)), dtype=np.float32)

    def predict(self, embedding: ArrayLike) -> dict[str, Any]:
        """What the heads say of embeddings.

        Parameters
        ----------
        embedding : f4[N, E]
            Unit norm, as `Towers.embed_xray` gives them.

        Returns
        -------
        dict
            ``class``: list of N names (None where the heads know no classes); ``class_probabilities``: name → f4[N];
            ``properties``: name → f4[N].
        """
        x = self._checked(embedding)
        p = self.probabilities(x)
        y = x @ self.property_weight.T.astype(np.float64) + self.property_bias
        return {
            "class": [self.classes[i] for i in p.argmax(axis=1)] if self.classes else [None] * len(x),
            "class_probabilities": {name: p[:, k] for k, name in enumerate(self.classes)},
            "properties": {
                item.name: (10.0 ** y[:, k] if item.log10 else y[:, k]).astype(np.float32)
                for k, item in enumerate(self.properties)
            },
        }

    def save(self, folder: str | Path) -> None:
        """Write ``heads.safetensors`` and ``heads.json`` into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        names = ("class_weight", "class_bias", "property_weight", "property_bias")
        save_file({name: np.ascontiguousarray(getattr(self, name)) for name in names}, folder / WEIGHTS_FILE)
        description = {
            "format": 1,
            "dimension": self.dimension,
            "classes": list(self.classes),
            "temperature": self.temperature,
            # JSON knows no NaN: what was not measured is null.
            "properties": [
                {key: None if value != value else value for key, value in asdict(item).items()}
                for item in self.properties
            ],
        }
        (folder / DESCRIPTION_FILE).write_text(json.dumps(description, indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> "Heads":
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError
            If there are no heads in the folder.
        ValueError
            If its two files cannot be read as heads, or do not fit each other.
        """
        folder = Path(folder)
        try:
            description = json.loads((folder / DESCRIPTION_FILE).read_text())
            tensors = load_file(folder / WEIGHTS_FILE)
            properties = tuple(
                PropertyHead(
                    item["name"],
                    bool(item["log10"]),
                    _null_to_nan(item["sigma"]),
                    _null_to_nan(item["r2"]),
                    item["n_train"],
                )
                for item in description["properties"]
            )
            heads = cls(
                classes=tuple(description["classes"]),
                temperature=float(description["temperature"]),
                properties=properties,
                **tensors,
            )
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{folder}: no heads here, {Path(error.filename or '').name} is missing") from None
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{folder}: not a folder of heads: {error}") from error
        k, p, e = len(heads.classes), len(properties), int(description["dimension"])
        weights = (heads.class_weight, heads.class_bias, heads.property_weight, heads.property_bias)
        if [weight.shape for weight in weights] != [(k, e), (k,), (p, e), (p,)]:
            raise ValueError(f"{folder}: {WEIGHTS_FILE} and {DESCRIPTION_FILE} do not belong together")
        return heads

    def _checked(self, embedding: ArrayLike) -> NDArray[np.float64]:
        x = np.asarray(embedding, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.dimension:
            raise ValueError(f"embeddings must be [N, {self.dimension}], got {list(x.shape)}")
        return x


def fit_heads(
    embeddings: ArrayLike,
    labels: Mapping[str, Sequence[Any] | NDArray[Any]],
    splits: Sequence[str],
    class_column: str = "class",
) -> Heads:
    """Fit all heads that the labels allow.

    Parameters
    ----------
    embeddings : f4[N, E]
        X-ray embeddings, one row per source (or a detection).
    labels : mapping
        Columns of N values, one per row: numbers (None or NaN where unknown) become properties, the strings of
        `class_column` classes; other strings are left alone.
    splits : sequence of str, length N
        'train', 'val' or 'test' of each row. Weights come from 'train', strength of the penalty and temperature from
        'val'; 'test' is not touched.
    class_column : str
        The column of classes, if there is one.
    """
    x = np.asarray(embeddings, dtype=np.float64)
    mask_of_split = {name: np.asarray(splits) == name for name in ("train", "val")}
    classes, class_weight, class_bias, temperature = _fit_classes(x, labels.get(class_column), mask_of_split)
    fitted = [
        _fit_property(name, x, values, mask_of_split)
        for name, column in labels.items()
        if name not in (class_column, *NON_PROPERTY_COLUMNS) and (values := _numeric_column(column)) is not None
    ]
    kept = [item for item in fitted if item is not None]
    return Heads(
        classes=classes,
        class_weight=class_weight,
        class_bias=class_bias,
        temperature=temperature,
        properties=tuple(item[0] for item in kept),
        property_weight=np.array([item[1] for item in kept], dtype=np.float32).reshape(len(kept), x.shape[1]),
        property_bias=np.array([item[2] for item in kept], dtype=np.float32),
    )


def _fit_classes(
    x: NDArray[np.float64], column: Sequence[Any] | NDArray[Any] | None, where: dict[str, NDArray[np.bool_]]
) -> tuple[tuple[str, ...], Float32s, Float32s, float]:
    none = ((), np.zeros((0, x.shape[1]), np.float32), np.zeros(0, np.float32), 1.0)
    if column is None:
        return none
    y = np.array([value if isinstance(value, str) else "" for value in column], dtype=str)
    names, counts = np.unique(y[where["train"] & (y != "")], return_counts=True)
    names = names[counts >= MIN_CLASS_SOURCES]
    if len(names) < 2:
        return none
    train, val = (where[part] & np.isin(y, names) for part in ("train", "val"))
    truth = np.searchsorted(names, y[val])
    fits = []
    for strength in (0.3, 1.0, 3.0, 10.0, 30.0, 100.0):
        model = LogisticRegression(C=strength, max_iter=2000).fit(x[train], y[train])
        # Two classes: scikit-learn keeps one row of weights, for the second.
        w = model.coef_ if len(names) > 2 else np.concatenate([-model.coef_, model.coef_]) / 2
        b = model.intercept_ if len(names) > 2 else np.concatenate([-model.intercept_, model.intercept_]) / 2
        temperature, loss = _calibrate(x[val] @ w.T + b, truth)
        fits.append((loss, w.astype(np.float32), b.astype(np.float32), temperature))
    _, weight, bias, temperature = min(fits, key=lambda fit: fit[0])
    return tuple(str(name) for name in names), weight, bias, temperature


def _calibrate(logits: NDArray[np.float64], truth: NDArray[np.intp]) -> tuple[float, float]:
    """Temperature of least mean negative log-likelihood on validation rows, and that likelihood in nats."""
    if len(truth) == 0:
        return 1.0, 0.0

    def loss(log_temperature: float) -> float:
        return -float(np.mean(log_softmax(logits / np.exp(log_temperature), axis=1)[np.arange(len(truth)), truth]))

    best = minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded")
    return float(np.exp(best.x)), float(best.fun)


def _numeric_column(column: Sequence[Any] | NDArray[Any]) -> NDArray[np.float64] | None:
    """f8[N] with NaN where unknown, or None for a column that is not numeric (or a yes and no)."""
    known = [value for value in column if value is not None]
    if not known or not all(
        isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in known
    ):
        return None
    return np.array([np.nan if value is None else float(value) for value in column])


def _null_to_nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _fit_property(
    name: str, x: NDArray[np.float64], values: NDArray[np.float64], where: dict[str, NDArray[np.bool_]]
) -> tuple[PropertyHead, NDArray[np.float64], float] | None:
    known = np.isfinite(values)
    train, val = where["train"] & known, where["val"] & known
    if train.sum() < MIN_TRAIN_SOURCES or np.ptp(values[train]) == 0:
        return None
    log10 = bool(values[known].min() > 0 and values[known].max() > LOG_SPAN * values[known].min())
    y = np.log10(np.where(known, values, 1.0)) if log10 else values
    model = RidgeCV(alphas=np.logspace(-4, 3, 15)).fit(x[train], y[train])
    error = y[val] - model.predict(x[val])
    spread = float(np.sum((y[val] - y[val].mean()) ** 2)) if val.sum() > 1 else 0.0
    head = PropertyHead(
        name=name,
        log10=log10,
        sigma=float(np.sqrt(np.mean(error**2))) if len(error) else float("nan"),
        r2=1.0 - float(np.sum(error**2)) / spread if spread > 0 else float("nan"),
        n_train=int(train.sum()),
    )
    return None if head.r2 < MIN_R2 else (head, model.coef_, float(model.intercept_))
