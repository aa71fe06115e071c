"""The jobs by the names of their commands."""

import importlib
from functools import partial
from typing import Any

from lexray.runtime.job import Job

#: Command, module below `lexray.jobs` and one line of help. Modules are imported when their command runs: importing Ray
#: and torch takes seconds.
JOBS = {
    "simulate": ("simulate", "Write an archive of event files, papers and labels that looks like the real thing."),
    "fetch csc": ("fetch", "Get sources of the Chandra Source Catalog: labels, a source table and their event files."),
    "ingest": ("ingest", "Read event files into the events table; what cannot be read goes to quarantine."),
    "literature": ("literature", "Find papers on sources: in files, in SIMBAD, in ADS."),
    "summarize": ("summarize", "Write a summary of each source from its papers."),
    "embed": ("embed", "Turn summaries into text vectors with a sentence model."),
    "train autodecoder": ("train_autodecoder", "Fit an autodecoder to an events table."),
    "train reference": ("train_reference", "Fit the reference autodecoder to a simulated population."),
    "encode": ("encode", "Encode detections with a trained autodecoder."),
    "rates": ("rates", "Write reconstructed rates of detections."),
    "train alignment": ("train_alignment", "Fit the two towers that bring latents and text into one space."),
    "project": ("project", "Put latents and text vectors into the shared space."),
    "evaluate": ("evaluate", "Measure everything, and write the report."),
    "evaluate autodecoder": ("evaluate_autodecoder", "Measure how well an autodecoder reconstructs rates."),
    "index": ("index", "Complete a release: models, heads, text model and search index in one folder."),
    "tune": ("tune", "Search the alignment's parameters with Ray Tune."),
}


def load_job(name: str) -> Job[Any]:
    """The job behind a command, imported now."""
    job: Job[Any] = importlib.import_module(f"lexray.jobs.{JOBS[name][0]}").JOB
    return job


#: The function that loads each command's job, for planning pipelines.
REGISTRY = {name: partial(load_job, name) for name in JOBS}
