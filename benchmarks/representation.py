"""What the alignment makes of several representations: how often the right source is among ten.

python benchmarks/representation.py [--demo build/demo] [--out FILE]

On the demo's tables, after `make demo`: its trained `splitnet` encodes every detection, the towers are trained on the
training's sources with three seeds and asked about the test's. ``time`` are the features pooled over time, ``spectrum``
those of the photons' energies, ``statistics`` the 22 readable numbers of
`lexray.models.autodecoders.representation.variability` of the reconstructed rate. Log count rates by band are added to
all of them.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from lexray.evaluation.retrieval import ranks, recall_at
from lexray.events.arrow import from_table
from lexray.inference.autodecoder import load_autodecoder
from lexray.inference.photons import photons_of_table
from lexray.models.alignment.trainer import AlignmentSettings, AlignmentTrainer
from lexray.models.autodecoders.representation import variability
from lexray.tables import delta, schemas
from lexray.training import splits
from lexray.training.pairs import read_pairs
from lexray.training.source_means import source_means
from lexray.version import __version__

SEEDS = (0, 1, 2)
_BINS = 256
Float32s = NDArray[np.float32]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("build/demo"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "representation.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = delta.read(str(arguments.demo / "events"), order="detection_id")
    model = load_autodecoder(arguments.demo / "autodecoder")
    photons = photons_of_table(rows, model.n_bands)
    encoded = model.encode_photons(photons)
    n_time = model.latent_dim - model.settings.spectral_features  # type: ignore[attr-defined]
    rate = torch.from_numpy(np.stack([rate for _, rate in model.rates(from_table(rows), _BINS)])).clamp(min=1e-12)
    time, spectrum = encoded.latent[:, :n_time], encoded.latent[:, n_time:]
    readable = variability(rate.log()).float().numpy()
    variants = {
        "time": time,
        "time, spectrum": encoded.latent,
        "statistics, spectrum": np.concatenate([readable, spectrum], axis=1),
        "time, statistics, spectrum": np.concatenate([time, readable, spectrum], axis=1),
    }
    found = {}
    for name, latent in variants.items():
        found[name] = retrieval(arguments.demo, rows, latent, encoded.log_rate)
        print(f"{name:28} {latent.shape[1]:4} numbers  recall@10 {found[name]['recall_at_10']:.3f}", flush=True)
    result = {
        "benchmark": "representation",
        "lexray": __version__,
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "autodecoder": model.name,
        "variants": found,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


def retrieval(demo: Path, rows: pa.Table, latent: Float32s, log_rate: Float32s) -> dict[str, Any]:
    """Recall@10 and median rank of the test's sources, means of both directions and all seeds."""
    text, events = str(demo / "text_embeddings"), str(demo / "events")
    folder = tempfile.mkdtemp()
    try:
        table = pa.table(
            {
                "detection_id": rows["detection_id"],
                "source_id": rows["source_id"],
                "model": ["benchmark"] * rows.num_rows,
                "latent": pa.FixedSizeListArray.from_arrays(latent.ravel(), latent.shape[1]),
                "log_rate": list(log_rate),
            }
        )
        delta.write(f"{folder}/latents", "latents", schemas.latents(latent.shape[1]), table, n_parts=1)
        pairs = read_pairs(f"{folder}/latents", text, events)
    finally:
        shutil.rmtree(folder)
    assignment = splits.read_splits(events, 0)
    words = delta.read(text, ["source_id", "embedding"])
    vector = dict(zip(words["source_id"].to_pylist(), words["embedding"].to_pylist(), strict=True))
    sources = np.array(rows["source_id"].to_pylist())
    test = np.array([assignment[s] == "test" and s in vector for s in sources])
    recalls, medians = [], []
    for seed in SEEDS:
        trainer = AlignmentTrainer(AlignmentSettings(seed=seed), pairs.train, pairs.val, pairs.n_bands)
        while not trainer.finished:
            trainer.run_epoch()
        towers = trainer.best_towers()
        names, xray = source_means(sources[test].tolist(), towers.embed_xray(latent[test], log_rate[test]), unit=True)
        text_vectors = towers.embed_text(np.array([vector[name] for name in names], dtype=np.float32))
        for queries, targets in ((xray, text_vectors), (text_vectors, xray)):
            rank = ranks(queries, targets)
            recalls.append(recall_at(rank, 10))
            medians.append(float(np.median(rank)))
    return {
        "numbers": latent.shape[1],
        "sources": len(names),
        "recall_at_10": statistics.fmean(recalls),
        "recall_at_10_spread": statistics.stdev(recalls),
        "median_rank": statistics.fmean(medians),
    }


if __name__ == "__main__":
    main()
