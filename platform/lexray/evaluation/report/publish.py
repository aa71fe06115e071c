"""Write an evaluation's report, and say what it holds: what both evaluations do at their end."""

from collections.abc import Mapping, Sequence

from lexray.evaluation.report.report import LineageStep, ReportOrigin, ReportPage, write_report
from lexray.runtime.config import JobConfig
from lexray.runtime.job import JobContext, JobResult
from lexray.training.splits import SPLITS


def report_origin(
    splits: Mapping[str, str], steps: Sequence[LineageStep], config: JobConfig, mlflow_run: str
) -> ReportOrigin:
    """What a report is made from; settings that change no figure are left out of its configuration."""
    return ReportOrigin(
        sources={name: list(splits.values()).count(name) for name in SPLITS},
        steps=steps,
        config=config.model_dump(mode="json", exclude={"tracking", "ray", "force"}),
        mlflow_run=mlflow_run,
    )


def publish(page: ReportPage, out: str, context: JobContext, n_detections: int, headline: Sequence[str]) -> JobResult:
    """Write the report to `out` and MLflow, and say what was left out.

    Parameters
    ----------
    page : ReportPage
    out : str
    context : JobContext
    n_detections : int
        Test detections that were scored.
    headline : sequence of str
        Metrics that the job's result holds, as far as they were measured.
    """
    write_report(page, out, context.run)
    for line in page.results.left_out:
        context.progress.info(f"    left out: {line}")
    counts = {f"{name}_sources": n for name, n in page.origin.sources.items()}
    counts |= {"test_detections": n_detections, "figures": len(page.figures) + len(page.light_curves)}
    return JobResult(
        counts=counts, metrics={name: page.results.metrics[name] for name in headline if name in page.results.metrics}
    )
