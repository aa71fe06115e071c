"""A trained autodecoder for people and jobs: event lists in, latents and rates out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from lexray.errors import LexrayError
from lexray.events.eventlist import Bands, EventList
from lexray.models.autodecoder import Penalties, fit_latents
from lexray.models.grid import GridDecoder
from lexray.models.likelihood import Cells, cells, level, log_likelihood
from lexray.models.photons import BackgroundPhotons, Photons
from lexray.models.representation import dimension, represent
from lexray.models.trainer import Settings

WEIGHTS, DESCRIPTION = "autodecoder.safetensors", "autodecoder.json"
#: Detections fitted at once; enough to fill a core, little enough to stay in its cache's reach.
_BATCH = 256
#: Columns of the `events` table that `photons_of_table` reads.
PHOTON_COLUMNS = (
    "time", "energy", "bands", "gti_start", "gti_stop", "ontime", "exposure", "area", "frame_time",
    "bkg_time", "bkg_energy", "bkg_scale",
)  # fmt: skip
_NO_PHOTONS = np.zeros(0), np.zeros(0, dtype=np.int8)


@dataclass(frozen=True)
class Encoded:
    """Latents of N detections.

    Attributes
    ----------
    latent : f4[N, D]
        The representation: see `lexray.models.representation`.
    log_rate : f4[N, B]
        Log of the mean count rate a band during good time, in log(ct/s), with half a count added.
    nll : f4[N]
        Negative log-likelihood of the photons under the fitted rate, in nats.
    n_steps : int
        Optimiser steps of the fit.
    """

    latent: NDArray[np.float32]
    log_rate: NDArray[np.float32]
    nll: NDArray[np.float32]
    n_steps: int


class Autodecoder:
    """A trained decoder with what it takes to fit it to new detections."""

    def __init__(self, decoder: GridDecoder, start: Tensor, settings: Settings) -> None:
        self.decoder = decoder.eval().requires_grad_(False)
        self.start = start
        self.settings = settings

    @property
    def name(self) -> str:
        """Kind and sizes, as the `latents` table names it."""
        return f"grid-{self.decoder.latent_dim}d-{self.decoder.n_knots}k"

    @property
    def latent_dim(self) -> int:
        """D, numbers in a representation."""
        return dimension(self.n_bands, self.decoder.n_knots)

    @property
    def n_bands(self) -> int:
        """B."""
        return self.decoder.n_bands

    def encode(self, events: Sequence[EventList]) -> Encoded:
        """Fit a latent to each detection.

        Parameters
        ----------
        events : sequence of EventList, length N
            Of B bands each.

        Raises
        ------
        LexrayError
            If a detection has another number of bands, or no good time.
        """
        return self.encode_photons(photons_of(events, self.n_bands))

    def encode_photons(self, photons: Photons) -> Encoded:
        """As `encode`, for N ragged detections."""
        latents, nll = [], []
        for rows in _batches(len(photons)):
            batch = photons.select(rows)
            log_rate, data = self._fit(batch)
            latents.append(represent(log_rate, batch))
            nll.append(-log_likelihood(log_rate, data) + data.counts.sum(1) * batch.duration.log())
        mean_rate = (photons.counts + 0.5).log() - photons.ontime.log()[:, None]
        return Encoded(
            torch.cat([torch.zeros(0, self.latent_dim), *latents]).float().numpy(),
            mean_rate.float().numpy(),
            torch.cat([torch.zeros(0), *nll]).float().numpy(),
            self.settings.fit_steps,
        )

    def rates(
        self, events: Sequence[EventList], bins: int = 256
    ) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Reconstructed rates, fitted to the events given.

        Parameters
        ----------
        events : sequence of EventList
        bins : int
            Equal cells from the first to the last good time.

        Returns
        -------
        list of (edges f8[bins + 1] in s since t_ref, rate f8[B, bins] in ct/s of good time)
            The rate at each cell's centre, gaps included: what would have been seen.
        """
        photons = photons_of(events, self.n_bands)
        out = []
        for rows in _batches(len(photons)):
            batch = photons.select(rows)
            log_rate, _ = self._fit(batch)
            at_centres = _interpolate(log_rate.double(), (torch.arange(bins, dtype=torch.float64) + 0.5) / bins)
            rate = (at_centres - batch.duration.log()[:, None, None]).exp()
            out += [
                (np.linspace(0.0, duration, bins + 1), one.numpy())
                for duration, one in zip(batch.duration.tolist(), rate, strict=True)
            ]
        return out

    def rate(self, events: EventList, bins: int = 256) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Reconstructed rate of one detection: (cell centres f8[bins] in s since t_ref, rate f8[B, bins] in ct/s)."""
        ((edges, rate),) = self.rates([events], bins)
        return (edges[:-1] + edges[1:]) / 2, rate

    def _fit(self, photons: Photons) -> tuple[Tensor, Cells]:
        """Log-rates f4[N, B, K] per unit of scaled time, and the data they were fitted to."""
        s = self.settings
        with _one_thread():
            data = cells(photons, s.n_knots)
            latent = fit_latents(
                self.decoder, data, s.penalties, start=self.start, steps=s.fit_steps, learning_rate=s.fit_learning_rate
            )
            mean, deviation = self.decoder(latent)
        shape = mean[:, None] + deviation
        return shape + level(shape, data)[..., None], data

    def save(self, folder: str | Path) -> None:
        """Write `autodecoder.safetensors` and `autodecoder.json`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"decoder.{name}": value.contiguous() for name, value in self.decoder.state_dict().items()}
        save_file({**tensors, "start": self.start.contiguous()}, folder / WEIGHTS)
        description = {"kind": "grid", "settings": asdict(self.settings)}
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n")


def load_autodecoder(path: str | Path) -> Autodecoder:
    """Load what `lexray train autodecoder` wrote.

    Parameters
    ----------
    path : path
        The training's folder.

    Raises
    ------
    LexrayError
        If there is no autodecoder there, or one of a kind that this Lexray does not know.
    """
    folder = Path(path)
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
        tensors = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise LexrayError(f"{path}: no autodecoder here ({Path(str(error.filename)).name} is missing)") from None
    if description["kind"] != "grid":
        raise LexrayError(f"{path}: an autodecoder of kind '{description['kind']}', this Lexray knows 'grid'")
    values = dict(description["settings"])
    settings = Settings(**{**values, "penalties": Penalties(**values["penalties"])})
    decoder = settings.decoder()
    decoder.load_state_dict({k.removeprefix("decoder."): v for k, v in tensors.items() if k.startswith("decoder.")})
    return Autodecoder(decoder, tensors["start"], settings)


def photons_of(events: Sequence[EventList], n_bands: int) -> Photons:
    """Ragged tensors of event lists.

    Raises
    ------
    LexrayError
        If a detection has no good time, or not `n_bands` bands.
    """
    for e in events:
        _require(len(e.bands) == n_bands, f"{e.detection_id}: has {len(e.bands)} energy bands, expected {n_bands}")
        _require(len(e.gti) > 0, f"{e.detection_id}: has no good time")
    return Photons(
        _values([e.time for e in events], torch.float64),
        _values([e.band for e in events], torch.int64),
        _offsets([len(e) for e in events]),
        _values([e.gti.start for e in events], torch.float64),
        _values([e.gti.stop for e in events], torch.float64),
        _offsets([len(e.gti) for e in events]),
        _values([e.energy for e in events], torch.float32),
        torch.tensor([[e.bands.edges[0], e.bands.edges[-1]] for e in events]).reshape(-1, 2),
        torch.tensor([e.exposure / e.gti.ontime for e in events], dtype=torch.float32),
        torch.tensor([e.area or [np.nan] * n_bands for e in events], dtype=torch.float32).reshape(-1, n_bands),
        torch.tensor([e.frame_time for e in events], dtype=torch.float32),
        _background_of(events),
        n_bands,
    )


def _background_of(events: Sequence[EventList]) -> BackgroundPhotons:
    inside = [_NO_PHOTONS if e.background is None else e.background.within(e.bands) for e in events]
    return BackgroundPhotons(
        _values([time for time, _ in inside], torch.float64),
        _values([band for _, band in inside], torch.int64),
        _offsets([len(time) for time, _ in inside]),
        torch.tensor([np.nan if e.background is None else e.background.scale for e in events], dtype=torch.float32),
    )


def photons_of_table(rows: pa.Table, n_bands: int) -> Photons:
    """As `photons_of`, for rows of the `events` table with the columns `PHOTON_COLUMNS`.

    The lists' values and offsets are taken as they are; there is no loop over rows, but one over the few sets of bands.
    """
    time, offsets = _ragged(rows["time"])
    energy, _ = _ragged(rows["energy"])
    start, gti_offsets = _ragged(rows["gti_start"])
    stop, _ = _ragged(rows["gti_stop"])
    edges, edge_offsets = _ragged(rows["bands"])
    _require(bool(np.all(np.diff(edge_offsets) == n_bands + 1)), f"events: a row has not {n_bands} energy bands")
    _require(bool(np.all(np.diff(gti_offsets) > 0)), "events: a row has no good time")
    edges = edges.reshape(-1, n_bands + 1)
    band = _bands_of(energy, offsets, edges)
    _require(not np.any(band < 0), "events: a photon lies outside its row's energy bands")
    area = rows["area"].fill_null([np.nan] * n_bands)
    return Photons(
        torch.from_numpy(np.array(time)),
        torch.from_numpy(band),
        torch.from_numpy(offsets),
        torch.from_numpy(np.array(start)),
        torch.from_numpy(np.array(stop)),
        torch.from_numpy(gti_offsets),
        torch.from_numpy(np.array(energy)),
        torch.from_numpy(edges[:, [0, -1]].copy()),
        torch.from_numpy((_numbers(rows["exposure"]) / _numbers(rows["ontime"])).astype(np.float32)),
        torch.from_numpy(_ragged(area)[0].astype(np.float32).reshape(-1, n_bands)),
        torch.from_numpy(_numbers(rows["frame_time"]).astype(np.float32)),
        _background_of_table(rows, edges),
        n_bands,
    )


def _background_of_table(rows: pa.Table, edges: NDArray[np.floating]) -> BackgroundPhotons:
    time, offsets = _ragged(rows["bkg_time"].fill_null([]))
    energy, _ = _ragged(rows["bkg_energy"].fill_null([]))
    band = _bands_of(energy, offsets, edges)
    before = np.concatenate([[0], np.cumsum(band >= 0)])
    return BackgroundPhotons(
        torch.from_numpy(time[band >= 0]),
        torch.from_numpy(band[band >= 0]),
        torch.from_numpy(before[offsets]),
        torch.from_numpy(_numbers(rows["bkg_scale"]).astype(np.float32)),
    )


def _bands_of(
    energy: NDArray[np.floating], offsets: NDArray[np.int64], edges: NDArray[np.floating]
) -> NDArray[np.int64]:
    """Band of each photon, i8[P], by its row's `edges` f[N, B + 1]; −1 outside them."""
    sets, which = np.unique(edges, axis=0, return_inverse=True)
    owner = np.repeat(which, np.diff(offsets))
    band = np.empty(len(energy), dtype=np.int64)
    for i, one in enumerate(sets):
        band[owner == i] = Bands(tuple(one.tolist())).index(energy[owner == i])
    return band


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """A column's values, NaN where null."""
    values: NDArray[np.float64] = column.cast(pa.float64()).fill_null(np.nan).to_numpy()
    return values


def _ragged(column: pa.ChunkedArray) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    offsets = array.offsets.to_numpy().astype(np.int64)
    values = array.values.to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]]
    return values, offsets - offsets[0]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """A fit is a hundred steps on small matrices: waiting for a second thread costs many times what it does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _batches(n: int) -> Iterator[Tensor]:
    for first in range(0, n, _BATCH):
        yield torch.arange(first, min(first + _BATCH, n))


def _values(arrays: Sequence[NDArray[np.generic]], kind: torch.dtype) -> Tensor:
    return torch.from_numpy(np.concatenate([np.zeros(0), *arrays])).to(kind)


def _offsets(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)


def _interpolate(log_rate: Tensor, position: Tensor) -> Tensor:
    """Log-rate f[N, B, K] at positions f[M] in scaled time: f[N, B, M]."""
    x = position * (log_rate.shape[-1] - 1)
    left = x.floor().long().clamp(max=log_rate.shape[-1] - 2)
    return torch.lerp(log_rate[..., left], log_rate[..., left + 1], (x - left).expand_as(log_rate[..., left]))


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise LexrayError(message)
