"""The extractive engine on Ray Data: terms of all sources' papers are counted first, then each part is summarized."""

from functools import partial

import pyarrow as pa
import ray

from lexray.runtime.map_parts import MappedRows, OutputTable, PartFunction, map_parts, results_of_parts
from lexray.runtime.progress import Progress
from lexray.summaries.extractive import Corpus, ExtractiveSummarizer, papers_by_source
from lexray.summaries.writer import WriterSettings
from lexray.tables import delta
from lexray.tables.row_checkpoints import RowCheckpoints
from lexray.tables.schemas import SUMMARIES


def extract_summaries(
    literature: str, out: str, settings: WriterSettings, workers: int, force: bool, progress: Progress
) -> None:
    """Summarize every source from its papers' own sentences, part by part, and commit the table.

    A run that was killed goes on with the parts that it had not finished.
    """
    corpus = sum(results_of_parts(_corpus_of_part, literature), Corpus())  # added up on the driver
    options = (settings.max_words, settings.mask_names, settings.min_grounded)
    output = OutputTable(out, "summaries", SUMMARIES)
    with progress.task("sources", total=corpus.n_sources) as task:
        make = partial(_summarize_function, ray.put(corpus), *options)
        map_parts(literature, [output], make, task, workers, depends_on=options, from_scratch=force)
    RowCheckpoints(out, SUMMARIES).remove()


def _corpus_of_part(literature: str, part: int) -> Corpus:
    rows = delta.read(literature, ["source_id", "title", "abstract", "body"], parts=[part])
    return Corpus.of(papers_by_source(rows).values())


def _summarize_function(
    corpus: "ray.ObjectRef[Corpus]", max_words: int, mask_names: bool, min_grounded: float
) -> PartFunction:
    summarizer = ExtractiveSummarizer(ray.get(corpus), max_words, mask_names, min_grounded)

    def summarize(rows: pa.Table) -> MappedRows:
        summaries = [summarizer.summarize(source, papers) for source, papers in papers_by_source(rows).items()]
        return MappedRows([pa.Table.from_pylist(summaries, schema=SUMMARIES)])

    return summarize
