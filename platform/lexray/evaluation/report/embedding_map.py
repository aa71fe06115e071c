"""The map of the shared space: every X-ray and text embedding laid out on a page, and how trainings went."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lexray.evaluation.report.plots import CLASSES, MARKERS, Theme, class_colour, class_order, one_panel, panel_grid


def map_coordinates(xray: ArrayLike, text: ArrayLike, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Place pairs of embeddings on a plane, near where they are near in the space.

    Contrastive training leaves a constant offset between the modalities (Liang et al. 2022, arXiv:2203.02053), which
    moves no source past another but would put X-rays on one side of the page and words on the other. Each modality's
    mean is therefore taken off first.

    Parameters
    ----------
    xray, text : f4[N, E]
        Unit norm, row by row of one source.
    seed : int
        Of t-SNE.

    Returns
    -------
    f8[N, 2], f8[N, 2]
        By t-SNE over both together (cosine distances); by principal components where there are fewer than 20 points.
    """
    x, y = np.asarray(xray, dtype=np.float64), np.asarray(text, dtype=np.float64)
    both = np.concatenate([x - x.mean(axis=0), y - y.mean(axis=0)])
    if len(both) < 20:
        placed = PCA(n_components=2, random_state=seed).fit_transform(both)
    else:
        perplexity = min(30.0, (len(both) - 1) / 4)
        tsne = TSNE(n_components=2, metric="cosine", init="pca", perplexity=perplexity, random_state=seed)
        # One thread: its OpenMP threads wait for one another by spinning, on a busy machine twenty times as long.
        with threadpool_limits(1):
            placed = tsne.fit_transform(both)
    return placed[: len(x)], placed[len(x) :]


def embedding_map(
    theme: Theme, xray: NDArray[np.float64], text: NDArray[np.float64], classes: Sequence[str | None]
) -> Figure:
    """X-ray points filled, text points hollow, a line between the two of one source; colour and marker by class."""
    order = class_order(classes)
    figure, ax = one_panel(9.6, 6.2)
    colours = [class_colour(theme, name, order) for name in classes]
    ax.add_collection(
        LineCollection(list(np.stack([xray, text], axis=1)), colors=colours, lw=0.5, alpha=0.25, zorder=1)
    )
    for name in [*order, None]:
        mine = np.array([(c or None) == name for c in classes])
        if not mine.any():
            continue
        colour = class_colour(theme, name, order)
        index = CLASSES.index(name) if name in CLASSES else order.index(name) if name else 0
        marker = MARKERS[index % len(MARKERS)]
        label = f"{name or 'class unknown'} ({np.count_nonzero(mine)})"
        ax.scatter(
            xray[mine, 0], xray[mine, 1], s=34, marker=marker, color=colour, alpha=0.85, lw=0, label=label, zorder=3
        )
        ax.scatter(
            text[mine, 0], text[mine, 1], s=30, marker=marker, facecolors="none", edgecolors=colour, lw=1.0, zorder=2
        )
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="filled: X-ray\nhollow: text", alignment="left")
    return figure


def training_curves(theme: Theme, histories: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    """One panel a metric, as MLflow recorded it.

    Parameters
    ----------
    theme : Theme
        Of the page.
    histories : mapping
        Metric → (step, value) pairs.
    """
    figure, grid = panel_grid(len(histories), min(len(histories), 4), 2.6, 2.1)
    for ax, (name, points) in zip(grid, histories.items(), strict=True):
        steps, values = zip(*sorted(points), strict=True)
        ax.plot(steps, values, color=theme.accent, lw=1.8)
        ax.set_title(name, fontsize=8)
        ax.set_xlabel("step")
    return figure
