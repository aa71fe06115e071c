"""Rows that are kept as they are finished: nothing twice, nothing lost, nothing stale."""

import time
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lexray.errors import LexrayError
from lexray.tables import delta
from lexray.tables.row_checkpoints import RowCheckpoints, RowPlan
from lexray.tables.schemas import SUMMARIES


def rows(*triples: tuple[str, str, str]) -> pa.Table:
    return pa.Table.from_pylist(
        [{"source_id": source, "key": key, "summary": text, "status": "ok"} for source, key, text in triples],
        schema=SUMMARIES,
    )


def commit(store: RowCheckpoints, keys: dict[str, str], part: int = 0) -> dict[str, str]:
    delta.commit(store.out, "summaries", store.schema, [store.gather(part, keys)[0]])
    store.remove()
    found = delta.read(store.out, ["source_id", "summary"]).to_pylist()
    assert len({row["source_id"] for row in found}) == len(found)
    return {row["source_id"]: row["summary"] for row in found}


def test_the_newest_row_of_what_was_asked_for_stays(tmp_path: Path) -> None:
    store = RowCheckpoints(str(tmp_path / "out"), SUMMARIES)
    store.write(0, rows(("a", "1", "first"), ("b", "1", "b"), ("gone", "1", "x")))
    store.write(0, rows(("a", "1", "again")))
    store.write(0, rows(("b", "2", "of other papers")))
    store.write(7, rows(("c", "1", "another part's")))
    assert commit(store, {"a": "1", "b": "1", "never": "1"}) == {"a": "again", "b": "b"}


def test_a_row_that_failed_gives_way_to_one_that_did_not(tmp_path: Path) -> None:
    store = RowCheckpoints(str(tmp_path / "out"), SUMMARIES)
    failed = pa.Table.from_pylist(
        [{"source_id": source, "key": "1", "status": "failed", "reason": "engine_error"} for source in ("a", "b")],
        schema=SUMMARIES,
    )
    store.write(0, failed)
    store.write(0, rows(("a", "1", "written")))
    store.write(0, failed)
    assert commit(store, {"a": "1", "b": "1"}) == {"a": "written", "b": None}


def test_a_second_run_finds_the_tables_rows_and_replaces_some(tmp_path: Path) -> None:
    store = RowCheckpoints(str(tmp_path / "out"), SUMMARIES)
    assert store.finished(0, ["source_id", "key"]).num_rows == 0
    store.write(0, rows(("a", "1", "old"), ("b", "1", "b")))
    commit(store, {"a": "1", "b": "1"})
    assert not (tmp_path / "out.rows").exists()
    assert store.finished(0, ["source_id", "key"]).to_pylist() == [
        {"source_id": "a", "key": "1"},
        {"source_id": "b", "key": "1"},
    ]
    store.write(0, rows(("a", "2", "new")))
    assert commit(store, {"a": "2", "b": "1"}) == {"a": "new", "b": "b"}


def test_a_file_that_is_not_whole_is_not_seen(tmp_path: Path) -> None:
    store = RowCheckpoints(str(tmp_path / "out"), SUMMARIES)
    store.write(0, rows(("a", "1", "a")))
    (tmp_path / "out.rows" / "part=0" / "killed.new").write_bytes(b"PAR1 and then nothing")
    assert store.finished(0, ["source_id"])["source_id"].to_pylist() == ["a"]


def test_what_another_run_writes_after_the_gathering_stays(tmp_path: Path) -> None:
    store = RowCheckpoints(str(tmp_path / "out"), SUMMARIES)
    store.write(0, rows(("a", "1", "a")))
    before = time.time_ns()
    store.write(0, rows(("b", "1", "b")))
    store.remove(before)
    assert store.finished(0, ["source_id"])["source_id"].to_pylist() == ["b"]
    store.remove()
    assert not (tmp_path / "out.rows").exists()
    store.remove()


def test_rows_that_do_not_fit_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(LexrayError, match="columns that the table does not have: odd"):
        RowCheckpoints(str(tmp_path / "out"), SUMMARIES).write(0, pa.table({"source_id": ["a"], "odd": [1]}))


class Texts:
    """Inputs of one part, which count how often each is read."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.texts, self.n_read = texts, dict.fromkeys(texts, 0)

    def parts(self) -> list[int]:
        return [0]

    def count(self, part: int) -> int:
        return len(self.texts)

    def read(self, part: int, sources: Collection[str] | None = None) -> dict[str, str]:
        found = {source: text for source, text in self.texts.items() if sources is None or source in sources}
        for source in found:
            self.n_read[source] += 1
        return found


def run(store: RowCheckpoints, texts: Texts, fails: Collection[str] = (), force: bool = False) -> list[str]:
    """A run whose rows are their texts; returns the sources that it made."""
    plan = RowPlan(texts, lambda source, text: f"{source}/{text}", store, force)
    progress = plan.progress()[0]
    missing = plan.missing(0) if progress.missing else []
    assert (progress.rows, progress.missing) == (len(texts.texts), len(missing))
    for row in missing:
        if row.source_id not in fails:
            store.write(0, rows((row.source_id, row.key, row.made_from)))
    plan.commit("summaries", set(fails))
    assert not Path(f"{store.out}.rows").exists()
    return [row.source_id for row in missing]


def test_inputs_are_read_once_a_run_and_only_what_changed_is_made(tmp_path: Path) -> None:
    store = RowCheckpoints(str(tmp_path / "out"), SUMMARIES)
    texts = Texts({"a": "1", "b": "2", "c": "3"})
    assert run(store, texts) == ["a", "b", "c"]
    assert texts.n_read == {"a": 1, "b": 1, "c": 1}
    version = delta.version(store.out)

    again = Texts(texts.texts)
    assert run(store, again) == []
    assert again.n_read == {"a": 1, "b": 1, "c": 1}
    assert delta.version(store.out) == version, "the table has these rows already"

    changed = Texts({"a": "1", "b": "new"})
    assert run(store, changed) == ["b"]
    assert changed.n_read == {"a": 1, "b": 2}, "to see that it has changed, and to make its row"
    assert delta.read(store.out, ["summary"], order="summary")["summary"].to_pylist() == ["1", "new"]


def test_a_source_that_failed_keeps_the_row_of_the_same_text_and_is_missing_where_it_has_none(tmp_path: Path) -> None:
    store = RowCheckpoints(str(tmp_path / "out"), SUMMARIES)
    run(store, Texts({"a": "1", "b": "2"}))
    assert run(store, Texts({"a": "1", "b": "2", "c": "3"}), fails=["b", "c"], force=True) == ["a", "b", "c"]
    assert delta.read(store.out, ["source_id"], order="source_id")["source_id"].to_pylist() == ["a", "b"]
    assert run(store, Texts({"a": "1", "b": "2", "c": "3"})) == ["c"]


def test_a_failed_row_is_missing_and_says_how_often_it_was_tried(tmp_path: Path) -> None:
    store = RowCheckpoints(str(tmp_path / "out"), SUMMARIES)
    failed = {"source_id": "a", "key": "a/1", "status": "failed", "reason": "engine_error", "attempts": 2}
    store.write(0, pa.Table.from_pylist([failed], schema=SUMMARIES))
    (missing,) = RowPlan(Texts({"a": "1"}), lambda source, text: f"{source}/{text}", store).missing(0)
    assert missing.failed == failed


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("12")), max_size=3), max_size=5))
def test_whatever_was_noted_each_source_has_its_last_row(
    tmp_path_factory: pytest.TempPathFactory, runs: list[list[tuple[str, str]]]
) -> None:
    store = RowCheckpoints(str(tmp_path_factory.mktemp("rows") / "out"), SUMMARIES)
    last = {}
    for number, run in enumerate(runs):
        store.write(0, rows(*((source, key, f"{number}.{i}") for i, (source, key) in enumerate(run))))
        last |= {source: f"{number}.{i}" for i, (source, key) in enumerate(run) if key == "1"}
    assert commit(store, dict.fromkeys("abc", "1")) == last
