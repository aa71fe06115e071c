"""`encode` and `rates`: alone and in one pass; killed runs go on, invalid rows are named, memory is bounded."""

import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from builders import BANDS, ENERGIES, event_list
from lexray.errors import LexrayError
from lexray.evaluation.report.autodecoder import fit_baselines
from lexray.evaluation.scoring import reconstruct, score_part
from lexray.events import validate
from lexray.events.arrow import from_table, to_table
from lexray.events.eventlist import Background, EventList, GoodTimeIntervals
from lexray.inference import encode as encoding
from lexray.inference.autodecoder import Autodecoder
from lexray.inference.photons import photons_of, photons_of_table
from lexray.jobs import encode, rates
from lexray.models.autodecoders.grid.training import GridSettings
from lexray.runtime import map_parts
from lexray.runtime.config import parse
from lexray.runtime.job import JobReport, execute, is_up_to_date
from lexray.runtime.progress import Progress
from lexray.sources import part_of
from lexray.tables import delta
from lexray.tables.part_checkpoints import FinishedPart, PartCheckpoints
from lexray.tables.provenance import read_provenance, write_provenance
from lexray.tables.schemas import EVENTS

N, N_PARTS = 40, 4


def detection(i: int, n: int = 80) -> EventList:
    random = np.random.default_rng(i)
    energy = random.choice(ENERGIES, n)
    time = np.sort(random.uniform(0, 1e4, n))
    background = Background(time[:5], energy[:5], 4.0) if i % 3 == 0 else None
    return event_list(
        time, energy, detection_id=f"d{i:03d}", source_id=f"s{i:03d}", exposure=9e3, background=background
    )


@pytest.fixture(scope="module")
def autodecoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A decoder as it is before its training: it costs nothing and encodes as any other."""
    settings = GridSettings(latent_dim=4, n_knots=16, width=8, fit_steps=5)
    folder = tmp_path_factory.mktemp("model") / "autodecoder"
    Autodecoder(settings, settings.decoder().state_dict(), torch.zeros(4)).save(folder)
    return str(folder)


@pytest.fixture
def events(tmp_path: Path) -> str:
    table = str(tmp_path / "events")
    delta.write(table, "events", EVENTS, to_table([detection(i) for i in range(N)]), n_parts=N_PARTS)
    return table


def run(job: Any, events: str, autodecoder: str, out: Path, **keys: object) -> JobReport:
    values = {"events": events, "autodecoder": autodecoder, "out": str(out), "workers": 1, **keys}
    return execute(job.JOB, parse(job.JOB.config, values), Progress())


def content(table: str | Path) -> dict[str, Any]:
    return delta.read(str(table)).drop_columns(["part"]).sort_by("detection_id").to_pydict()


# --- one pass -------------------------------------------------------------------------------------------------------


@pytest.mark.ray
def test_one_pass_writes_both_tables_as_each_job_writes_its_own(
    ray_session: None, events: str, autodecoder: str, tmp_path: Path
) -> None:
    run(encode, events, autodecoder, tmp_path / "latents")
    run(rates, events, autodecoder, tmp_path / "rates", bins=32)
    both, both_rates = str(tmp_path / "both"), str(tmp_path / "both_rates")
    keys = {"events": events, "autodecoder": autodecoder, "out": both, "rates": both_rates, "bins": 32, "workers": 1}
    config = parse(encode.EncodeConfig, keys)
    assert execute(encode.JOB, config, Progress()).counts == {
        "detections": N,
        "left_out": 0,
        "rates": 3 * N,
    }
    assert content(both) == content(tmp_path / "latents")
    order = [("detection_id", "ascending"), ("band", "ascending")]
    one, other = (delta.read(path).sort_by(order) for path in (both_rates, str(tmp_path / "rates")))
    assert one.equals(other)

    assert is_up_to_date(encode.JOB, config)
    provenance = read_provenance(both_rates)
    assert provenance is not None
    assert (provenance["report"]["out"], provenance["report"]["version"]) == (both_rates, delta.version(both_rates))
    write_provenance(both_rates, provenance | {"fingerprint": "of another job that has written over it"})
    assert not is_up_to_date(encode.JOB, config)
    write_provenance(both_rates, provenance)
    assert is_up_to_date(encode.JOB, config)
    shutil.rmtree(both_rates)
    assert not is_up_to_date(encode.JOB, config)


# --- runs that were killed ------------------------------------------------------------------------------------------


@pytest.mark.ray
def test_a_killed_run_goes_on_and_the_table_is_that_of_an_undisturbed_one(
    ray_session: None, events: str, autodecoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "latents"
    run(encode, events, autodecoder, undisturbed)

    def recording(folder: Path, fails_in: int | None) -> Callable[..., map_parts.PartFunction]:
        def make(*arguments: Any) -> map_parts.PartFunction:
            function = encoder(*arguments)

            def call(rows: pa.Table) -> map_parts.MappedRows:
                part = part_of(rows["source_id"][0].as_py(), N_PARTS)
                if part == fails_in:
                    raise LexrayError("the power went off")
                with (folder / "done").open("a") as file:
                    file.write(f"{part} ")
                return function(rows)

            return call

        return make

    encoder = encoding.encoder
    parts = list(delta.part_files(events))
    monkeypatch.setattr(encoding, "encoder", recording(tmp_path, fails_in=parts[-1]))
    with pytest.raises(Exception, match="the power went off"):
        run(encode, events, autodecoder, out)
    assert not delta.is_table(str(out))  # nothing of it is visible
    done = (tmp_path / "done").read_text().split()
    assert set(done) == {str(part) for part in parts[:-1]}

    again = tmp_path / "again"
    again.mkdir()
    monkeypatch.setattr(encoding, "encoder", recording(again, fails_in=None))
    report = run(encode, events, autodecoder, out)
    assert (again / "done").read_text().split() == [str(parts[-1])]
    assert report.counts == {"detections": N, "left_out": 0}
    assert content(out) == content(undisturbed)
    assert not Path(f"{out}.part_checkpoints").exists()


def test_part_checkpoints_are_of_one_output_of_the_same_inputs(tmp_path: Path) -> None:
    out = str(tmp_path / "table")
    schema = pa.schema([("x", pa.int64())])
    checkpoints = PartCheckpoints([out], ["v1"])
    fragments = [delta.write_part(out, schema, part, pa.table({"x": [part]})) for part in range(3)]
    parts = [FinishedPart([fragment], {f"d{fragment.part}": "has no exposure"}) for fragment in fragments]
    for number, part in enumerate(parts):
        checkpoints.write(number, part)
    assert PartCheckpoints([out], ["v1"]).finished() == dict(enumerate(parts))

    (tmp_path / "table" / fragments[1].path).unlink()  # written, and lost since
    (tmp_path / "table" / fragments[2].path).write_bytes(b"torn")
    assert PartCheckpoints([out], ["v1"]).finished() == {0: parts[0]}
    assert PartCheckpoints([out], ["v2"]).finished() == {}
    assert PartCheckpoints([out], ["v1"]).finished() == {}  # dropped by the run of other inputs

    checkpoints = PartCheckpoints([out], ["v1"])
    checkpoints.write(0, parts[0])
    assert PartCheckpoints([out, f"{out}2"], ["v1"]).finished() == {}  # and by one that writes another table, too
    checkpoints = PartCheckpoints([out], ["v1"])
    checkpoints.write(0, parts[0])
    assert PartCheckpoints([out], ["v1"], from_scratch=True).finished() == {}
    checkpoints.remove()
    assert list(tmp_path.iterdir()) == [tmp_path / "table"]


_BAD_PHOTONS = "has an event without a time, or outside its energy bands"
_BAD_GOOD_TIME = "has good-time intervals that are backward, out of order or before 0 s, or that overlap"


# --- invalid rows -----------------------------------------------------------------------------------------------------


def invalid_rows() -> tuple[pa.Table, dict[str, str]]:
    """A table of ordinary, nearly empty and impossible detections, and what is wrong with the last."""
    rows = to_table([detection(i) for i in range(9)] + [detection(10, n=0), detection(11, n=1)]).to_pylist()
    rows[0]["exposure"] = 0.0
    rows[1]["gti_start"], rows[1]["gti_stop"] = [], []
    rows[2]["gti_start"], rows[2]["gti_stop"] = [5.0], [5.0]
    rows[3]["time"][7] = math.nan
    rows[4]["energy"][0] = 20.0
    rows[5]["bands"] = [0.5, 7.0]
    rows[6]["bkg_scale"] = None
    rows[7]["exposure"] = None
    return pa.Table.from_pylist(rows, EVENTS), {
        "d000": "has no exposure",
        "d001": "has no good time",
        "d002": "has no good time",
        "d003": _BAD_PHOTONS,
        "d004": _BAD_PHOTONS,
        "d005": "has not 3 energy bands",
        "d006": "has a background without times, or without a scale",
        "d007": "has no exposure",
    }


def test_what_is_wrong_with_a_row_is_said_of_it_and_of_no_other() -> None:
    rows, wrong = invalid_rows()
    assert validate.faults(rows, 3) == wrong
    for i in range(rows.num_rows):  # alone as in company
        name = rows["detection_id"][i].as_py()
        assert validate.faults(rows.slice(i, 1), 3) == {key: value for key, value in wrong.items() if key == name}
    headers = {name: why for name, why in wrong.items() if name not in ("d003", "d004", "d006")}
    assert validate.faults(rows.select(validate.HEADER_COLUMNS), 3) == headers
    assert validate.faults(validate.without(rows, wrong), 3) == {}
    assert validate.faults(rows.slice(0, 0), 3) == {}


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"bands": [0.5, 1.2, 1.2, 7.0]}, "has energy bands whose edges do not increase from above 0 keV"),
        ({"bands": [0.5, 2.0, 1.2, 7.0]}, "has energy bands whose edges do not increase from above 0 keV"),
        ({"bands": [0.5, 2.0, 2.000001, 7.0]}, "has energy bands whose edges do not increase from above 0 keV"),
        ({"bands": [0.0, 1.2, 2.0, 7.0]}, "has energy bands whose edges do not increase from above 0 keV"),
        ({"bands": [0.5, 1.2, None, 7.0]}, "has energy bands whose edges do not increase from above 0 keV"),
        ({"area": [100.0, 200.0]}, "has not one effective area a band"),
        ({"area": [100.0, 200.0, None]}, "has not one effective area a band"),
        ({"area": [100.0, 200.0, math.nan]}, None),
        ({"gti_start": [0.0, 5e3]}, "has good-time intervals without both ends"),
        ({"gti_start": [0.0, 5e3], "gti_stop": [9e3, 1e4]}, _BAD_GOOD_TIME),
        ({"gti_start": [5e3, 0.0], "gti_stop": [1e4, 5e3]}, _BAD_GOOD_TIME),
        ({"gti_start": [0.0, 7e3], "gti_stop": [1e4, 6e3]}, _BAD_GOOD_TIME),
        ({"gti_start": [-5.0], "gti_stop": [1e4]}, _BAD_GOOD_TIME),
        ({"gti_start": [0.0, 5e3], "gti_stop": [5e3, 1e4]}, None),
        ({"time": [3.0, 2.0, 9e3]}, "has events out of order of their times"),
        ({"time": [3.0, 3.0, 9e3]}, None),
        ({"time": [0.0, 5e3, 1.001e4]}, "has an event outside its good time"),
        ({"time": [-1.0, 5e3, 1e4]}, "has an event outside its good time"),
        ({"time": [0.0, 4e3, 1e4 + 1e-3], "gti_start": [0.0, 6e3], "gti_stop": [4e3, 1e4]}, None),
        (
            {"time": [0.0, 5e3, 1e4], "gti_start": [0.0, 6e3], "gti_stop": [4e3, 1e4]},
            "has an event outside its good time",
        ),
    ],
)
def test_a_row_that_no_model_can_take_is_found_beside_any_other(changes: dict[str, Any], wrong: str | None) -> None:
    """Rows that pass can be read, and their photons are those of the events table."""
    rows = to_table([detection(i, n=3) for i in range(4)]).to_pylist()
    rows[0]["gti_start"], rows[1]["gti_stop"] = [], [5.0, 1e4]  # odd themselves
    rows[2] |= changes
    found = validate.faults(pa.Table.from_pylist(rows, EVENTS), 3)
    others = "has good-time intervals without both ends"
    expected = {"d000": others, "d001": others, "d002": wrong}
    assert found == {name: why for name, why in expected.items() if why is not None}
    fine = validate.without(pa.Table.from_pylist(rows, EVENTS), found)
    assert torch.equal(photons_of_table(fine, 3).time, photons_of(from_table(fine), 3).time)


@given(
    gaps=st.lists(st.tuples(st.floats(1e-3, 1e4), st.floats(1e-3, 1e4)), min_size=1, max_size=5),
    t_ref=st.floats(0, 1e9),
    share=st.floats(0, 1),
)
def test_photons_on_the_edges_of_good_times_are_usable(
    gaps: list[tuple[float, float]], t_ref: float, share: float
) -> None:
    """Both were moved by the same `t_ref`, as `ingest` does."""
    edges = t_ref + np.cumsum(np.array(gaps).ravel())
    gti = GoodTimeIntervals(edges[::2], edges[1::2])
    assume(len(gti))
    time = np.sort(np.concatenate([gti.start, gti.start + share * (gti.stop - gti.start), gti.stop]))
    zero = gti.start[0]
    energy = np.full(len(time), 1.0, dtype=np.float32)
    events = EventList(
        "d", "s", time[gti.contains(time)] - zero, energy[gti.contains(time)], gti.shift(-zero), BANDS, 1.0
    )
    assume(len(events.gti))
    assert validate.faults(to_table([detection(0), events, detection(1)]), 3) == {}


@pytest.mark.ray
@pytest.mark.parametrize("job", [encode, rates])
def test_detections_that_cannot_be_encoded_are_left_out_and_named(
    ray_session: None, job: Any, autodecoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, wrong = invalid_rows()
    delta.write(str(tmp_path / "events"), "events", EVENTS, rows, n_parts=2)
    out = tmp_path / "out"
    report = run(job, str(tmp_path / "events"), autodecoder, out, max_bad_fraction=0.9)
    assert report.counts["detections"] == 3
    assert report.counts["left_out"] == len(wrong)
    assert set(content(out)["detection_id"]) == {"d008", "d010", "d011"}
    said = " ".join(capsys.readouterr().err.split())
    assert "refused 8 of 11 inputs: events: detection d000 has no exposure; events: detection d001 has no" in said
    assert f"and 5 more; see {out}.quarantine" in said
    quarantined = delta.read(report.refusals)["detail"].to_pylist()
    assert quarantined == [f"detection {name} {why}" for name, why in wrong.items()]


def test_detections_that_cannot_be_encoded_are_not_evaluated_either(autodecoder: str, tmp_path: Path) -> None:
    rows, wrong = invalid_rows()
    events = str(tmp_path / "events")
    delta.write(events, "events", EVENTS, rows, n_parts=1)
    assert validate.usual_bands(events) == 3
    models = {"autodecoder": partial(reconstruct, autodecoder)}
    scores, left_out = score_part(events, 0, 3, rows["source_id"].to_pylist(), models, None, 0)
    assert left_out == wrong
    assert [score.detection_id for score in scores] == ["d008", "d011"]  # d010 has no photons
    assert all("autodecoder" in score.log_likelihood for score in scores)
    baselines, said, left_out = fit_baselines(events, [*wrong, "d008"], 0)
    assert left_out == wrong
    assert set(baselines) == {"kernel", "total_variation"}
    assert said[-1].endswith("on 1 training detections.")


# --- parts that do not fit ------------------------------------------------------------------------------------------


@pytest.mark.ray
def test_a_part_is_read_in_slices_and_comes_back_in_order(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, out = str(tmp_path / "events"), str(tmp_path / "out")
    events = [detection(i, n=50) for i in reversed(range(30))]
    delta.write(table, "events", EVENTS, to_table(events), n_parts=2)
    schema = pa.schema([("detection_id", pa.string()), ("n_events", pa.int32()), ("slice_rows", pa.int64())])

    def make() -> map_parts.PartFunction:
        map_parts._READ_ROWS, map_parts._SLICE_EVENTS = 2, 150  # in the worker's process only

        def count(rows: pa.Table) -> map_parts.MappedRows:
            rows = rows.append_column("slice_rows", pa.array([rows.num_rows] * rows.num_rows))
            return map_parts.MappedRows([rows], {f"slice {rows['detection_id'][0]}": "is none"})

        return count

    with Progress().task("rows") as task:
        output = map_parts.OutputTable(out, "counted", schema, ["detection_id"])
        refused = map_parts.map_parts(table, [output], make, task, 1, columns=schema.names[:2], sliced=True)
    assert len(refused) >= 30 / 4
    assert list(refused) == sorted(refused)
    for part in range(2):
        rows = delta.read(out, parts=[part])
        expected = sorted(e.detection_id for e in events if part_of(e.source_id, 2) == part)
        assert rows["detection_id"].to_pylist() == expected
        assert max(rows["slice_rows"].to_pylist()) == 4  # two batches of two rows: the first 150 events or more
