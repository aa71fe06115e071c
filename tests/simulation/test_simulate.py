"""The simulated archive: reproducible, true to its own rates, complete, and silent about its sources' names."""

import hashlib
import json
import re
from pathlib import Path

import fitsio
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lexray.array_types import Float64s
from lexray.cli.options import split_options
from lexray.errors import ConfigError
from lexray.events.eventlist import GoodTimeIntervals
from lexray.jobs.simulate import JOB
from lexray.simulation.archive import LABELS, simulate_archive
from lexray.simulation.observation import BANDS, PI_OVERFLOW
from lexray.simulation.papers.papers import simulate_papers
from lexray.simulation.source import SimulatedSource, simulate_source
from lexray.simulation.source_classes import CLASSES
from lexray.simulation.spectra import ENERGY, Spectrum, cross_section, zone_shares
from lexray.simulation.true_rate import CELLS, FINE_CELLS, Pulse, TrueRate
from lexray.tables.schemas import RATES, check

N_SOURCES, SEED = 60, 5


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "sky"
    simulate_archive(str(folder), N_SOURCES, SEED)
    return folder


@pytest.fixture(scope="module")
def simulated() -> list[SimulatedSource]:
    """Enough sources for statistics, of another seed than the archive's."""
    return [simulate_source(11, index) for index in range(150)]


def _hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _papers(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "literature.jsonl").read_text().splitlines()]


def test_same_seed_same_bytes(archive: Path, tmp_path: Path) -> None:
    simulate_archive(str(tmp_path / "again"), N_SOURCES, SEED)
    first, second = _hashes(archive), _hashes(tmp_path / "again")
    assert first == second
    assert len([name for name in first if name.endswith(".fits")]) >= N_SOURCES


def test_another_seed_is_another_sky(archive: Path, tmp_path: Path) -> None:
    simulate_archive(str(tmp_path / "other"), 10, SEED + 1)
    ours = set(pq.read_table(archive / "labels.parquet")["source_id"].to_pylist())
    theirs = set(pq.read_table(tmp_path / "other" / "labels.parquet")["source_id"].to_pylist())
    assert not ours & theirs


def test_a_source_does_not_depend_on_how_many_there_are(archive: Path, tmp_path: Path) -> None:
    simulate_archive(str(tmp_path / "small"), 7, SEED)
    large, small = _hashes(archive / "events"), _hashes(tmp_path / "small" / "events")
    assert small.items() <= large.items()
    assert _papers(archive)[: len(_papers(tmp_path / "small"))] == _papers(tmp_path / "small")


def test_simulating_again_replaces_what_was_there(tmp_path: Path) -> None:
    simulate_archive(str(tmp_path / "sky"), 6, 1)
    simulate_archive(str(tmp_path / "sky"), 3, 1)
    simulate_archive(str(tmp_path / "fresh"), 3, 1)
    assert _hashes(tmp_path / "sky") == _hashes(tmp_path / "fresh")


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "real.fits").write_text("precious")
    with pytest.raises(ConfigError, match="not empty"):
        simulate_archive(str(tmp_path), 3, 1)
    assert (tmp_path / "events" / "real.fits").read_text() == "precious"


def test_every_class_occurs_among_any_30_consecutive_sources() -> None:
    names = [simulate_source(3, index).source_class.name for index in range(500, 530)]
    assert set(names) == {c.name for c in CLASSES}


def test_files_hold_every_event_and_the_usual_header(archive: Path) -> None:
    files = sorted((archive / "events").glob("*.fits"))
    seen = 0
    for index in range(12):
        source = simulate_source(SEED, index)
        for o, events in zip(source.observations, source.event_lists(), strict=True):
            path = archive / "events" / f"acisf{o.obs_id}.fits"
            assert path == files[seen]
            seen += 1
            with fitsio.FITS(path) as fits:
                rows, gti = fits["EVENTS"].read(), fits["GTI"].read()
                header = fits["EVENTS"].read_header()
            assert rows.dtype.names == ("time", "ccd_id", "x", "y", "energy", "pi", "grade")
            np.testing.assert_array_equal(rows["time"], o.time)
            assert np.all(np.diff(rows["time"]) >= 0)
            assert header["TSTART"] - 1e-6 < rows["time"][0] <= rows["time"][-1] < header["TSTOP"] + 1e-6
            # Reading the file as `ingest` does gives the same detection.
            intervals = GoodTimeIntervals(gti["START"], gti["STOP"])
            kept = intervals.contains(rows["time"]) & (rows["pi"] < PI_OVERFLOW)
            kept &= BANDS.index(rows["energy"] / np.float32(1000)) >= 0
            np.testing.assert_array_equal(rows["time"][kept] - gti["START"][0], events.time)
            np.testing.assert_array_equal(rows["energy"][kept] / np.float32(1000), events.energy)
            assert header["TELESCOP"] == "CHANDRA"
            assert header["INSTRUME"] == "ACIS"
            assert header["SRCNAME"] == source.source_id
            assert header["OBS_ID"] == o.obs_id
            assert header["TIMESYS"] == "TT"
            assert header["TIMEREF"] == "LOCAL"
            assert header["MJDREF"] == 50814
            assert header["TIMEDEL"] == 3.2
            assert header["ONTIME"] == pytest.approx(intervals.ontime)
            assert header["EXPOSURE"] == pytest.approx(header["ONTIME"] * header["DTCOR"])
            assert header["EXPOSURE"] == pytest.approx(events.exposure)
            for name in (
                "OBI_NUM",
                "DETNAM",
                "OBJECT",
                "RA_TARG",
                "DEC_TARG",
                "RA_NOM",
                "DEC_NOM",
                "RA_PNT",
                "DATE-OBS",
            ):
                assert header[name] is not None
            for column, name in ((3, "x"), (4, "y")):
                assert header[f"TTYPE{column}"] == name
                assert header[f"TCUNI{column}"] == "deg"
    assert seen >= 12


def test_sky_pixels_lead_back_to_the_source(archive: Path) -> None:
    from astropy.wcs import WCS

    for index in range(6):
        source = simulate_source(SEED, index)
        for o in source.observations:
            path = archive / "events" / f"acisf{o.obs_id}.fits"
            h = fitsio.read_header(path, "EVENTS")
            wcs = WCS(naxis=2)
            wcs.wcs.ctype = [h["TCTYP3"], h["TCTYP4"]]
            wcs.wcs.crval = [h["TCRVL3"], h["TCRVL4"]]
            wcs.wcs.crpix = [h["TCRPX3"], h["TCRPX4"]]
            wcs.wcs.cdelt = [h["TCDLT3"], h["TCDLT4"]]
            ra, dec = wcs.wcs_pix2world(o.pointing.x, o.pointing.y, 1)
            assert float(dec) == pytest.approx(source.dec, abs=1e-6)
            assert float(ra) == pytest.approx(source.ra, abs=1e-6 / np.cos(np.radians(source.dec)))


def test_ingest_has_something_to_drop(simulated: list[SimulatedSource]) -> None:
    observations = [o for s in simulated for o in s.observations]
    energy = np.concatenate([o.energy for o in observations])
    assert np.any(energy < 500)
    assert np.any((energy > 7000) & (energy < 14_000))
    assert np.any(np.concatenate([o.pi for o in observations]) == PI_OVERFLOW)
    assert any(np.any(~o.gti.contains(o.time)) for o in observations)
    usable = np.concatenate([o.usable for o in observations])
    assert 0.85 < np.mean(usable) < 1.0


def test_pi_follows_energy(simulated: list[SimulatedSource]) -> None:
    for o in simulated[0].observations:
        below = o.pi < PI_OVERFLOW
        assert np.all(np.abs((o.pi[below] - 0.5) * 14.6 - o.energy[below]) <= 7.3001)
        assert np.all(o.energy[~below] > 1023 * 14.6)


def test_a_third_of_the_observations_have_gaps_of_5_to_40_percent(simulated: list[SimulatedSource]) -> None:
    observations = [o for s in simulated for o in s.observations]
    lost = np.array([1 - o.gti.ontime / o.rate.duration for o in observations]).round(9)
    assert 0.25 < np.mean(lost > 0) < 0.42
    assert np.all(lost[lost > 0] >= 0.05)
    assert np.all(lost <= 0.40)
    assert all(8e3 - 1 <= o.rate.duration <= 60e3 + 1 for o in observations)


def test_counts_are_poisson_about_the_integral_of_the_true_rate(simulated: list[SimulatedSource]) -> None:
    drawn, expected = [], []
    for source in simulated:
        for o, events in zip(source.observations, source.event_lists(), strict=True):
            drawn.append(np.bincount(events.band, minlength=3))
            good = events.gti.exposure(np.linspace(0, events.duration, 257))
            expected.append(o.true_rate @ good)
            np.testing.assert_allclose(expected[-1], o.rate.expected[1:4], rtol=1e-9)
    n, mu = np.array(drawn).ravel(), np.array(expected).ravel()
    enough = mu > 5
    chi_square = np.sum((n - mu)[enough] ** 2 / mu[enough])
    assert stats.chi2.sf(chi_square, np.count_nonzero(enough)) > 1e-3
    assert stats.chi2.cdf(chi_square, np.count_nonzero(enough)) > 1e-3


def expected_before(rate: TrueRate, time: Float64s, zone: int) -> Float64s:
    """Expected counts of a zone until each time, Λ(t) of the time-rescaling theorem; linear in a fine cell."""
    edges = np.linspace(0, rate.duration, FINE_CELLS + 1)
    at_edges = np.cumsum([0.0, *(rate.cells(FINE_CELLS)[zone] * rate.gti.exposure(edges))])
    return np.interp(rate.gti.good_time_before(time), rate.gti.good_time_before(edges), at_edges)


def test_time_rescaled_events_are_uniform(simulated: list[SimulatedSource]) -> None:
    p_values = []
    for source in simulated:
        for o, events in zip(source.observations, source.event_lists(), strict=True):
            for band in range(3):
                time = events.time[events.band == band]
                if len(time) < 20:
                    continue
                total = o.rate.expected[1 + band]
                p_values.append(stats.kstest(expected_before(o.rate, time, 1 + band) / total, "uniform").pvalue)
    assert len(p_values) > 300
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3


def test_the_rescaling_test_would_notice_a_wrong_rate(simulated: list[SimulatedSource]) -> None:
    """Against a constant rate the events of flaring sources are far from uniform."""
    flaring = [s for s in simulated if s.variation.kind == "flare"]
    p_values = [
        stats.kstest(e.gti.good_time_before(e.time) / e.gti.ontime, "uniform").pvalue
        for s in flaring
        for e in s.event_lists()
        if len(e) > 300
    ]
    assert len(p_values) > 10
    assert np.median(p_values) < 1e-6


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), index=st.integers(0, 10**6))
def test_any_source_is_whole(seed: int, index: int) -> None:
    source = simulate_source(seed, index)
    labels = source.labels
    assert 1 <= len(source.observations) <= 3
    assert len({o.obs_id for o in source.observations}) == len(source.observations)
    assert re.fullmatch(r"LXR J\d{6}\.\d[+-]\d{6}", source.source_id)
    assert set(labels) | {"has_literature"} == set(LABELS.names)
    assert all(-1 <= labels[name] <= 1 for name in ("hr_ms", "hr_hm", "hr_hs"))
    assert np.isfinite(labels["log_lx"])
    for o, events in zip(source.observations, source.event_lists(), strict=True):
        assert np.all(o.true_rate > 0)
        assert len(events) == np.count_nonzero(o.usable)
        assert np.all(events.gti.contains(events.time))
        assert events.gti.start[0] == 0
    for paper in simulate_papers(source, seed):
        said = f"{paper['title']} {paper['abstract']}"
        assert not re.search(r"[<>{}|]|\bnan\b|  ", said), said


@settings(max_examples=40, deadline=None)
@given(
    period=st.floats(3, 5e4),
    amplitude=st.floats(0, 0.97),
    gap=st.floats(0.0, 0.8),
    n_cells=st.integers(1, CELLS),
)
def test_the_rate_integrates_exactly(period: float, amplitude: float, gap: float, n_cells: int) -> None:
    """The closed-form integral of a pulse across gaps against numerical quadrature."""
    duration = 2e4
    gti = GoodTimeIntervals([0, duration * 0.9], [duration * (0.9 - gap), duration])
    level = np.linspace(0.5, 2.0, FINE_CELLS)[None, :]
    pulse = Pulse(period, amplitude * np.array([[0.8, 0.2]]), np.array([0.3, 1.1]))
    rate = TrueRate(level, gti, pulse)
    cells = np.linspace(0, duration, CELLS + 1)[: n_cells + 1]
    edges = np.linspace(0, cells[-1], 400_001)
    middle = (edges[1:] + edges[:-1]) / 2
    cell = np.minimum((middle / duration * FINE_CELLS).astype(int), FINE_CELLS - 1)
    values = level[0, cell] * pulse.factor(np.zeros(len(middle), dtype=int), middle) * gti.contains(middle)
    numerical = float(np.sum(values * np.diff(edges)))
    assert rate.cells()[0, :n_cells] @ gti.exposure(cells) == pytest.approx(numerical, rel=2e-3, abs=1.0)


def test_true_rates_are_published_on_256_cells(archive: Path) -> None:
    rows = check(pq.read_table(archive / "true_rates.parquet"), RATES, "true_rates")
    first = rows.slice(0, 3).to_pylist()
    source = simulate_source(SEED, 0)
    o = source.observations[0]
    assert [row["band"] for row in first] == [0, 1, 2]
    for band, row in enumerate(first):
        assert row["detection_id"] == f"chandra:{o.obs_id}:acis:{source.source_id}"
        assert row["rate"] == row["lower"] == row["upper"]
        np.testing.assert_allclose(row["rate"], o.true_rate[band], rtol=1e-6)
        np.testing.assert_allclose(row["t"], (np.arange(256) + 0.5) / 256 * o.rate.duration, rtol=1e-6)
    files = len(list((archive / "events").glob("*.fits")))
    assert rows.num_rows == 3 * files
    assert len(set(rows["detection_id"].to_pylist())) == files


def test_labels_have_a_row_a_source_and_units(archive: Path) -> None:
    rows = pq.read_table(archive / "labels.parquet")
    assert rows.schema.names == LABELS.names
    assert rows.num_rows == N_SOURCES
    assert len(set(rows["source_id"].to_pylist())) == N_SOURCES
    assert set(rows["class"].to_pylist()) == {c.name for c in CLASSES}
    assert rows.schema.field("period").metadata[b"unit"] == b"s"
    steady = [not v for v in rows["is_variable"].to_pylist()]
    assert rows.filter(np.array(steady))["amplitude"].null_count == sum(steady)


def test_literature_covers_most_sources(archive: Path) -> None:
    papers = _papers(archive)
    labels = pq.read_table(archive / "labels.parquet").to_pylist()
    number = {row["source_id"]: 0 for row in labels}
    for paper in papers:
        assert list(paper) == ["source_id", "ra", "dec", "bibcode", "arxiv", "year", "title", "abstract"]
        number[str(paper["source_id"])] += 1
    assert {row["source_id"]: row["has_literature"] for row in labels} == {s: n > 0 for s, n in number.items()}
    assert 0.78 <= np.mean([n > 0 for n in number.values()]) < 1
    assert max(number.values()) <= 4
    bibcodes = [str(paper["bibcode"]) for paper in papers]
    assert len(set(bibcodes)) == len(bibcodes)
    assert all(
        len(code) == 19 and code.startswith(str(paper["year"])) for code, paper in zip(bibcodes, papers, strict=True)
    )


def test_abstracts_have_4_to_9_sentences_and_say_different_things(archive: Path) -> None:
    papers = _papers(archive)
    lengths = [len(re.findall(r"[.!?](?= [A-Z]|$)", str(paper["abstract"]))) for paper in papers]
    assert all(4 <= n <= 9 for n in lengths)
    assert len({paper["abstract"] for paper in papers}) == len(papers)
    assert len({paper["title"] for paper in papers}) > 0.6 * len(papers)


def test_papers_never_name_the_source_or_its_position(archive: Path) -> None:
    for paper in _papers(archive):
        said = f"{paper['title']} {paper['abstract']}"
        name = str(paper["source_id"]).removeprefix("LXR ")
        assert "LXR" not in said
        assert name not in said
        assert not re.search(r"J\d{4}", said)
        for degrees in (float(str(paper["ra"])), float(str(paper["dec"]))):
            assert f"{degrees:.2f}" not in said
            assert f"{degrees:.4f}" not in said


def test_papers_use_the_grade_that_the_data_show() -> None:
    """Words for the extremes of hardness are never used of the other extreme."""
    soft, hard = [], []
    for index in range(250):
        source = simulate_source(2, index)
        text = " ".join(f"{p['title']} {p['abstract']}" for p in simulate_papers(source, 2)).lower()
        said_soft = bool(re.search(r"(very|extremely|exceptionally) soft", text))
        said_hard = bool(re.search(r"(very|extremely|exceptionally) hard", text))
        assert not (said_soft and said_hard)
        soft += [source.labels["hr_hs"]] * said_soft
        hard += [source.labels["hr_hs"]] * said_hard
    assert len(soft) > 10
    assert len(hard) > 10
    assert max(soft) < -0.7
    assert min(hard) > 0.7


def test_overall_counts_look_like_an_archive(simulated: list[SimulatedSource]) -> None:
    counts = [len(events) for source in simulated for events in source.event_lists()]
    assert 200 < np.median(counts) < 420
    assert np.percentile(counts, 2) < 40
    assert np.percentile(counts, 98) > 1500


def test_spectra_respond_to_their_parameters() -> None:
    def hardness(spectrum: Spectrum) -> float:
        shares = zone_shares(spectrum.counts()[0])
        assert np.sum(shares[1:4]) == pytest.approx(1.0)
        return float((shares[3] - shares[1]) / (shares[3] + shares[1]))

    assert hardness(Spectrum(nh=3.0, gamma=1.8)) > hardness(Spectrum(nh=0.02, gamma=1.8)) + 0.5
    assert hardness(Spectrum(nh=0.1, gamma=1.0)) > hardness(Spectrum(nh=0.1, gamma=2.5))
    assert hardness(Spectrum(nh=0.1, kt=5.0)) > hardness(Spectrum(nh=0.1, kt=0.5))
    assert hardness(Spectrum(nh=0.1, gamma=1.7, kt_bb=0.15, bb_share=0.9)) < hardness(Spectrum(nh=0.1, gamma=1.7))
    _, absorbed, unabsorbed = Spectrum(nh=1.0, gamma=1.8).counts()
    assert absorbed < unabsorbed


def test_absorption_is_morrison_and_mccammons() -> None:
    """σ E³ at 1 keV is 120.6 + 169.3 − 47.7 in units of 1e-24 cm²."""
    assert cross_section(np.array([1.0]))[0] == pytest.approx(242.2e-24)
    sigma = cross_section(ENERGY)
    assert np.all(sigma > 0)


def test_options_are_the_keys_of_any_job() -> None:
    inputs, overrides = split_options(
        JOB, ["sky", "--sources", "20", "--seed=3", "--max-bad-fraction", "0.1", "--force"]
    )
    assert inputs == ["sky"]
    assert overrides == ["sources=20", "seed=3", "max_bad_fraction=0.1", "force=true"]
    assert split_options(JOB, ["--no-force", "--ray.num-cpus", "2"])[1] == ["force=false", "ray.num_cpus=2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sourcs", "20"], "--sources"),
        (["--sed=1"], "--seed"),
        (["-x"], "unknown option '-x'"),
        (["sky", "--sources"], "--sources needs a value"),
        (["--sources", "--seed", "1"], "--sources needs a value"),
    ],
)
def test_wrong_options_name_the_nearest(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split_options(JOB, arguments)


def test_command_line(cli, tmp_path: Path) -> None:
    out = tmp_path / "sky"
    report = cli.json("simulate", out, "--sources", "12", "--seed", "3")
    assert report["counts"]["sources"] == 12
    assert report["counts"]["files"] == len(list((out / "events").glob("*.fits")))
    assert report["metrics"]["files_per_second"] > 0
    simulate_archive(str(tmp_path / "same"), 12, 3)
    assert _hashes(out / "events") == _hashes(tmp_path / "same" / "events")


def test_command_line_refuses_an_unknown_option(cli, tmp_path: Path) -> None:
    done = cli("simulate", tmp_path / "sky", "--sorces", "12")
    assert done.returncode == 2
    assert "--sources" in done.stderr
    assert not (tmp_path / "sky").exists()
