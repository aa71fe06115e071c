"""Rows that are kept as they are finished: nothing twice, nothing lost, nothing stale."""

import time
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lexray.errors import LexrayError
from lexray.tables import delta
from lexray.tables.row_checkpoints import RowCheckpoints
from lexray.tables.schemas import SUMMARIES


def rows(*triples: tuple[str, str, str]) -> pa.Table:
    return pa.Table.from_pylist(
        [{"source_id": source, "key": key, "summary": text, "status": "ok"} for source, key, text in triples],
        schema=SUMMARIES,
    )


def commit(store: RowCheckpoints, keys: dict[str, str], part: int = 0) -> dict[str, str]:
    delta.commit(store.out, "summaries", store.schema, [store.gather(part, keys)])
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
