"""A small real release: synthetic sources, random weights, every class the real one."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from builders import event_list
from lexray.events.arrow import to_table
from lexray.events.eventlist import EventList
from lexray.inference.autodecoder import Autodecoder
from lexray.inference.photons import photons_of
from lexray.jobs import index
from lexray.llm.sentence_encoder import TextEncoder
from lexray.models.alignment.towers import Sizes, Towers
from lexray.models.autodecoders.grid.training import GridSettings
from lexray.runtime.job import JobReport, execute
from lexray.runtime.progress import Progress
from lexray.tables import delta, schemas

N_SOURCES = 60
CLASSES = {
    "AGN": "A distant active galaxy with a power-law spectrum that flickers over days",
    "YSO": "A young star in a nebula, its hot corona flaring with fast rise and slow decay",
    "NS": "A neutron star that pulses as it rotates, soft thermal emission from its surface",
    "CV": "A white dwarf accreting from its companion, eclipsed every orbit",
}


def source(i: int) -> EventList:
    """Detection of synthetic source i: its class decides how hard it is and how many photons it has."""
    rng = np.random.default_rng(i)
    kind = i % len(CLASSES)
    time = np.sort(rng.uniform(0, 5000, 60 + 40 * kind))
    return event_list(
        time,
        np.clip(rng.lognormal(0.2 * kind, 0.4, len(time)), 0.51, 6.9),
        5000.0,
        detection_id=f"chandra:{i}:acis:S{i}",
        source_id=f"S{i}",
        exposure=4900.0,
        mission="chandra",
        instrument="acis",
        obs_id=str(i),
        ra=float(i),
        dec=10.0,
    )


def class_of(i: int) -> str:
    return list(CLASSES)[i % len(CLASSES)]


@dataclass(frozen=True)
class ReleaseInputs:
    """What a release is made of, in a folder."""

    folder: Path

    def config(self, **changes: object) -> index.IndexConfig:
        names = ("autodecoder", "alignment", "embeddings", "summaries", "labels", "events")
        values = {name: str(self.folder / name) for name in names} | {"out": str(self.folder / "release")}
        return index.IndexConfig(**{**values, **changes})

    def build(self, **changes: object) -> JobReport:
        return execute(index.JOB, self.config(**changes), Progress())


def make_inputs(folder: Path) -> ReleaseInputs:
    """Models and tables of `N_SOURCES` sources; every fifth source has no paper."""
    settings = GridSettings(latent_dim=4, n_knots=64, width=16, fit_steps=20)
    torch.manual_seed(0)
    events = [source(i) for i in range(N_SOURCES)]
    autodecoder = Autodecoder(settings, settings.decoder().state_dict(), torch.zeros(4))
    autodecoder = autodecoder.calibrated(photons_of(events, 3))
    autodecoder.save(folder / "autodecoder")
    fit = autodecoder.encode(events)
    n_latent, n_bands = fit.latent.shape[1], fit.log_rate.shape[1]
    sizes = Sizes(n_latent, n_bands, text_dim=384, text_components=32, hidden=32, dimension=16, members=2)
    towers = Towers(sizes, 0.1, torch.Generator().manual_seed(0))
    towers.xray.standardise.fit_scale(torch.from_numpy(np.concatenate([fit.latent, fit.log_rate], axis=1)))
    described = [i for i in range(N_SOURCES) if i % 5]
    texts = [f"{CLASSES[class_of(i)]}, number {i}." for i in described]
    vectors = TextEncoder().encode(texts)
    towers.text.standardise.fit_whitening(torch.from_numpy(vectors), 0.1)
    towers.save(folder / "alignment", {"text_model": "all-MiniLM-L6-v2"})

    xray, text = towers.embed_xray(fit.latent, fit.log_rate), towers.embed_text(vectors)
    rows = [(e.detection_id, e.source_id, "xray", v) for e, v in zip(events, xray, strict=True)]
    rows += [(f"S{i}", f"S{i}", "text", v) for i, v in zip(described, text, strict=True)]
    columns = zip(*rows, strict=True)
    names = ("id", "source_id", "modality", "embedding")
    table = pa.table({name: list(values) for name, values in zip(names, columns, strict=True)})
    delta.write(str(folder / "embeddings"), "embeddings", schemas.embeddings(16), table, n_parts=2)
    summaries = {
        "source_id": [f"S{i}" for i in described],
        "summary": texts,
        "bibcodes": [["2020ApJ...1A"]] * len(texts),
    }
    delta.write(str(folder / "summaries"), "summaries", schemas.SUMMARIES, pa.table(summaries), n_parts=2)
    delta.write(str(folder / "events"), "events", schemas.EVENTS, to_table(events), n_parts=2)
    labels = pa.table(
        {
            "source_id": [e.source_id for e in events],
            "class": [class_of(i) for i in range(N_SOURCES)],
            "hardness": [e.hardness_ratio(0, 2) for e in events],
        }
    )
    delta.write(str(folder / "labels"), "labels", labels.schema, labels, n_parts=2)
    return ReleaseInputs(folder)
