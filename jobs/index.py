"""`lexray index`: complete a release, the folder that goes into service."""

import shutil
from typing import Annotated

from pydantic import AfterValidator, Field

from lexray.release.assemble import INPUT_KEYS, ReleaseParts
from lexray.release.manifest import MANIFEST_FILE, ReleaseManifest, check_overwrite, create_draft, publish, seal
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.tables.files import require_local_path


class IndexConfig(ReleaseParts, JobConfig):
    """Configuration of `lexray index`."""

    out: Annotated[str, AfterValidator(require_local_path)] = Field(
        description="folder of the release, on a local disk"
    )
    replace: bool = Field(
        False, description="put the new release in the place of another that lies at `out`; `force` does so too"
    )


def run(config: IndexConfig, context: JobContext) -> JobResult:
    """Assemble the release in a draft next to its place, then move it there."""
    versions = config.versions()
    existing = None if config.force else config.existing(config.out, versions)
    if existing is not None:
        context.progress.info(f"  release {existing.id} is made of these inputs; kept as it is")
        return _outcome(existing.manifest)
    replace = config.replace or config.force
    check_overwrite(config.out, replace)
    folder = create_draft(config.out)
    try:
        manifest = seal(folder, config.write(folder, versions, context.progress))
        published = publish(folder, config.out, replace)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    context.run.tags({"release": published.id})
    context.run.dictionary(manifest.model_dump(mode="json"), MANIFEST_FILE)
    return _outcome(published.manifest)


def _outcome(manifest: ReleaseManifest) -> JobResult:
    return JobResult(
        counts={"release": manifest.release, **manifest.counts}, metrics={}, accepted=manifest.counts.get("vectors", 0)
    )


JOB = Job("index", IndexConfig, run, inputs=INPUT_KEYS, positional=("autodecoder", "alignment", "embeddings"))
