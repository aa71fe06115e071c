"""`lexray simulate`: write an archive of simulated event files, papers and labels, from a seed."""

import time

from pydantic import Field

from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.simulation.archive import simulate_archive


class SimulateConfig(JobConfig):
    """What to simulate. `out` gets events/, literature.jsonl, labels.parquet and true_rates.parquet."""

    sources: int = Field(600, ge=1, description="number of sources; each has 1 to 3 observations, one file each")
    seed: int = Field(0, ge=0, description="the same seed gives the same bytes; source i is the same in any archive")


def run(config: SimulateConfig, context: JobContext) -> JobResult:
    """Simulate the archive, write it, and log its counts."""
    start = time.monotonic()
    with context.progress.task("sources", total=config.sources) as task:
        counts, classes, median_counts = simulate_archive(config.out, config.sources, config.seed, task.advance)
    context.run.dictionary(classes, "classes.json")
    return JobResult(
        counts={**counts, **{f"sources of class {name}": n for name, n in classes.items()}},
        metrics={"median_counts": median_counts, "files_per_second": counts["files"] / (time.monotonic() - start)},
        accepted=config.sources,
    )


JOB = Job("simulate", SimulateConfig, run, inputs=(), positional=("out",))
