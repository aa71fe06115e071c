"""Tables: what is committed is whole, checked, versioned and readable by plain pyarrow."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from lexray.errors import LexrayError
from lexray.events.arrow import from_table
from lexray.sources import part_of
from lexray.tables import delta, schemas
from lexray.tables.provenance import read_provenance, remove_provenance, write_provenance
from lexray.tables.schemas import EVENTS, SUMMARIES

DIMENSION = 4
LATENTS = schemas.latents(DIMENSION)


def summaries(sources: list[str], text: str = "It spins up.") -> pa.Table:
    return pa.table({"source_id": sources, "summary": [text] * len(sources), "n_papers": [2] * len(sources)})


def latents(n: int) -> pa.Table:
    rows = np.arange(n * DIMENSION, dtype=np.float32).reshape(n, DIMENSION)
    return pa.Table.from_pylist(
        [
            {"detection_id": f"d{i}", "source_id": f"s{i}", "latent": row, "log_rate": [-1.0, 2.0, 0.5], "n_steps": 7}
            for i, row in enumerate(rows)
        ],
        schema=pa.schema([LATENTS.field(n) for n in ("detection_id", "source_id", "latent", "log_rate", "n_steps")]),
    )


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    table, rows = str(tmp_path / "latents"), latents(20)

    delta.write(table, "latents", LATENTS, rows, n_parts=4)
    back = delta.read(table, order="detection_id")

    assert back.schema.field("latent").type == pa.list_(pa.float32(), DIMENSION)
    assert back.num_rows == 20
    sorted_rows = rows.sort_by("detection_id")
    for name in rows.column_names:
        assert back[name].to_pylist() == sorted_rows[name].to_pylist()
    assert set(back["nll"].to_pylist()) == {None}  # a nullable column that nobody gave
    assert back["part"].to_pylist() == [part_of(source, 4) for source in back["source_id"].to_pylist()]


def test_a_table_of_the_first_schema_is_read_with_what_it_lacks_as_null(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = str(tmp_path / "events")
    first = pa.schema([field for field in EVENTS if field.name != "counts_per_frame"])
    with monkeypatch.context() as then:
        then.setattr(delta, "SCHEMA_VERSION", 1)
        delta.write(table, "events", first, pa.table({"detection_id": ["d"], "source_id": ["s"], "frame_time": [3.2]}))
    assert delta.read(table)["counts_per_frame"].to_pylist() == [None]
    assert from_table(delta.read(table, columns=EVENTS.names).slice(0, 0)) == []
    fragments = [delta.write_part(table, EVENTS, 0, pa.table({"detection_id": ["e"], "source_id": ["s"]}))]
    delta.commit_over(table, "events", EVENTS, fragments, 0, ("mark", 1))  # takes the new schema along
    assert delta.read(table).schema.field("counts_per_frame").type == pa.float32()
    assert delta.read_mark(table, "mark") == (1, 1)


def test_a_commit_over_a_version_that_is_no_longer_the_last_fails(tmp_path: Path) -> None:
    table = str(tmp_path / "summaries")
    fragments = [delta.write_part(table, SUMMARIES, 0, summaries([name])) for name in "abc"]
    assert delta.read_mark(table, "mark") == (None, None)
    assert delta.commit_over(table, "summaries", SUMMARIES, fragments[:1], None, ("mark", 5)) == 0
    for over in (None, 7):
        with pytest.raises(LexrayError, match="another run wrote this table"):
            delta.commit_over(table, "summaries", SUMMARIES, fragments[1:2], over, ("mark", 6))
    assert delta.commit_over(table, "summaries", SUMMARIES, fragments[1:2], 0, ("mark", 6)) == 1
    with pytest.raises(LexrayError, match="another run wrote this table"):
        delta.commit_over(table, "summaries", SUMMARIES, fragments[2:], 0, ("mark", 7))
    assert delta.read(table)["source_id"].to_pylist() == ["b"]
    assert delta.dataset(table, 0).to_table()["source_id"].to_pylist() == ["a"]
    assert delta.read_mark(table, "mark") == (1, 6)


def test_units_are_in_the_files(tmp_path: Path) -> None:
    table = str(tmp_path / "latents")
    delta.write(table, "latents", LATENTS, latents(3))
    file = next(iter(delta.part_files(table).values()))[0]
    assert pa.parquet.read_schema(file).field("log_rate").metadata[b"unit"] == b"log(ct/s)"
    assert delta.dataset(table).schema.field("log_rate").metadata[b"unit"] == b"log(ct/s)"


@pytest.mark.parametrize("name", ["EVENTS", "QUARANTINE", "LITERATURE", "SUMMARIES", "RATES"])
def test_columns_that_have_a_unit_name_it(name: str) -> None:
    schema: pa.Schema = getattr(schemas, name)
    physical = {"ra", "dec", "ontime", "exposure", "time", "energy", "gti_start", "bands", "t", "rate", "separation"}
    for field in schema:
        assert (field.name not in physical) or (field.metadata or {}).get(b"unit"), field.name


def test_a_fresh_table_is_plain_parquet(tmp_path: Path) -> None:
    table = tmp_path / "summaries"
    delta.write(str(table), "summaries", SUMMARIES, summaries(["a", "b", "c"]), n_parts=2)
    plain = pyarrow.dataset.dataset(table, partitioning="hive", exclude_invalid_files=True).to_table()
    assert sorted(plain["source_id"].to_pylist()) == ["a", "b", "c"]


def test_what_was_written_and_not_committed_is_not_there(tmp_path: Path) -> None:
    """A driver killed between its workers' writing and its commit leaves the former version."""
    table = str(tmp_path / "summaries")
    delta.write(table, "summaries", SUMMARIES, summaries(["a"]))
    before = delta.version(table)

    delta.write_part(table, SUMMARIES, 0, summaries(["a", "b"]))

    assert delta.read(table)["source_id"].to_pylist() == ["a"]
    assert delta.version(table) == before


def test_a_commit_replaces_the_content_and_keeps_the_former_version(tmp_path: Path) -> None:
    table = str(tmp_path / "summaries")
    first = delta.write(table, "summaries", SUMMARIES, summaries(["a"]), n_parts=4)
    before, reader = delta.version(table), delta.dataset(table)
    second = delta.write(table, "summaries", SUMMARIES, summaries(["b", "c"]), n_parts=4)

    assert second == first + 1
    assert sorted(delta.read(table)["source_id"].to_pylist()) == ["b", "c"]
    assert delta.version(table) != before
    assert reader.to_table()["source_id"].to_pylist() == ["a"]  # whoever read on is not disturbed
    assert pa.table(DeltaTable(table, version=first).get_add_actions())["num_records"].to_pylist() == [1]


def test_an_empty_table_is_a_table(tmp_path: Path) -> None:
    table = str(tmp_path / "latents")
    delta.commit(table, "latents", LATENTS, [])
    back = delta.read(table, ["detection_id", "latent"])
    assert back.num_rows == 0
    assert back.schema.field("latent").type == pa.list_(pa.float32(), DIMENSION)
    assert delta.part_files(table) == {}


@given(st.lists(st.text("abcXYZ _01", min_size=1, max_size=8), min_size=1, max_size=30), st.integers(1, 8))
@settings(max_examples=15, deadline=None)
def test_each_row_is_in_the_part_that_owns_its_source(
    tmp_path_factory: pytest.TempPathFactory, sources: list[str], n_parts: int
) -> None:
    table = str(tmp_path_factory.mktemp("t") / "summaries")
    delta.write(table, "summaries", SUMMARIES, summaries(sources), n_parts)
    files = delta.part_files(table)

    found = [
        source for part in files for source in delta.read(table, ["source_id"], parts=[part])["source_id"].to_pylist()
    ]
    assert sorted(found) == sorted(sources)
    assert set(files) == {part_of(source, n_parts) for source in sources}
    for part, paths in files.items():
        assert {part_of(s, n_parts) for p in paths for s in pa.parquet.read_table(p)["source_id"].to_pylist()} == {part}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"summary": ["x"]}, "required column 'source_id' is missing"),
        ({"source_id": [None, "a"]}, "'source_id' has 1 nulls"),
        ({"source_id": ["a"], "sumary": ["x"]}, "columns that the table does not have: sumary"),
        ({"source_id": ["a"], "n_papers": [2**40]}, "column 'n_papers' is int64, not int32"),
        ({"source_id": ["a"], "bibcodes": [3]}, "column 'bibcodes' is int64"),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, rows: dict[str, list[object]], message: str) -> None:
    with pytest.raises(LexrayError, match=message):
        delta.write_part(str(tmp_path / "summaries"), SUMMARIES, 0, pa.table(rows))


def test_a_vector_of_another_length_is_refused(tmp_path: Path) -> None:
    rows = pa.table(
        {"detection_id": ["d"], "source_id": ["s"], "latent": pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2))}
    )
    with pytest.raises(LexrayError, match="column 'latent'"):
        delta.write_part(str(tmp_path / "latents"), LATENTS, 0, rows)


def test_a_newer_schema_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = str(tmp_path / "summaries")
    monkeypatch.setattr(delta, "SCHEMA_VERSION", schemas.SCHEMA_VERSION + 1)
    delta.write(table, "summaries", SUMMARIES, summaries(["a"]))
    monkeypatch.undo()
    with pytest.raises(LexrayError, match=rf"schema version {schemas.SCHEMA_VERSION + 1}.*update Lexray"):
        delta.read(table)


def test_a_table_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(LexrayError, match="there is no table here; run the job that writes it first"):
        delta.read(str(tmp_path / "absent"))


def test_a_parquet_file_is_read_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "labels.parquet"
    pa.parquet.write_table(pa.table({"source_id": ["a"], "class": ["AGN"]}), file)
    assert delta.read(str(file)).to_pylist() == [{"source_id": "a", "class": "AGN"}]
    (tmp_path / "labels.csv").write_text("source_id,class\n")
    with pytest.raises(LexrayError, match=r"labels.csv: neither a table nor a Parquet file"):
        delta.read(str(tmp_path / "labels.csv"))


def test_versions_of_inputs_change_with_their_content(tmp_path: Path) -> None:
    folder = tmp_path / "events"
    assert delta.version(str(folder)) == "absent"
    folder.mkdir()
    file = folder / "one.fits"
    file.write_bytes(b"1")
    one = delta.version(str(folder))
    assert one == delta.version(str(folder))
    assert delta.version(str(folder / "*.fits")) != "absent"
    assert delta.version(str(folder / "*.evt")) == "absent"
    (folder / "two.fits").write_bytes(b"2")
    assert delta.version(str(folder)) != one
    assert not delta.is_table(str(file))


def test_provenance_is_kept_beside_the_output_and_taken_back(tmp_path: Path) -> None:
    out = str(tmp_path / "model")
    assert read_provenance(out) is None
    write_provenance(out, {"fingerprint": "abc"})
    assert read_provenance(out) == {"fingerprint": "abc"}
    assert delta.version(out) == "abc"
    remove_provenance(out)
    remove_provenance(out)
    assert read_provenance(out) is None
