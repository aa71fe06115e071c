"""Tables of sources whose latents and texts come from the same hidden factors, each in its own way and with noise."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from lexray.tables import delta, schemas

LATENT_DIM, N_BANDS, TEXT_DIM = 10, 3, 64


@dataclass(frozen=True)
class Tables:
    """Paths of the tables."""

    events: str
    latents: str
    text_embeddings: str

    def keys(self) -> dict[str, str]:
        return {"events": self.events, "latents": self.latents, "text_embeddings": self.text_embeddings}


def write_tables(folder: Path, n_sources: int, seed: int = 0) -> Tables:
    """1–3 detections a source; one of the last source is not finite, and the source before it has no text."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(n_sources, 6))
    owner = np.repeat(np.arange(n_sources), rng.integers(1, 4, n_sources))
    seen = factors[owner] + 0.2 * rng.normal(size=(len(owner), 6))
    latent = np.tanh(seen @ rng.normal(size=(6, LATENT_DIM))) + 0.1 * rng.normal(size=(len(owner), LATENT_DIM))
    log_rate = seen[:, :N_BANDS] + 0.1 * rng.normal(size=(len(owner), N_BANDS))
    text_factors = np.sin(factors @ rng.normal(size=(6, 24)) * 0.7)
    text = text_factors @ rng.normal(size=(24, TEXT_DIM)) + 0.3 * rng.normal(size=(n_sources, TEXT_DIM)) + 5.0

    names = [f"source {i}" for i in range(n_sources)]
    sources, detections = [names[i] for i in owner], [f"detection {j}" for j in range(len(owner))]
    ra, dec = rng.uniform(0, 360, n_sources), rng.uniform(-60, 60, n_sources)
    tables = Tables(*(str(folder / name) for name in ("events", "latents", "text_embeddings")))
    delta.write(
        tables.events,
        "events",
        schemas.EVENTS,
        pa.table({"detection_id": detections, "source_id": sources, "ra": ra[owner], "dec": dec[owner]}),
        4,
    )
    latent[-1, 3] = np.nan
    delta.write(
        tables.latents,
        "latents",
        schemas.latents(LATENT_DIM),
        pa.table(
            {
                "detection_id": detections,
                "source_id": sources,
                "model": ["grid-1"] * len(owner),
                "latent": pa.array(latent.tolist(), pa.list_(pa.float32(), LATENT_DIM)),
                "log_rate": list(log_rate),
            }
        ),
        4,
    )
    write_texts(tables.text_embeddings, names[:-2] + names[-1:], np.delete(text, -2, axis=0))
    return tables


def write_texts(table: str, sources: list[str], text: np.ndarray, model: str = "words-1") -> None:
    rows = {
        "source_id": sources,
        "model": [model] * len(sources),
        "embedding": pa.array(text.tolist(), pa.list_(pa.float32(), text.shape[1])),
    }
    delta.write(table, "text_embeddings", schemas.text_embeddings(text.shape[1]), pa.table(rows), 4)
