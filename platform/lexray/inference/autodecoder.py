"""A trained autodecoder: event lists in, representations and rates out."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeAlias, cast, get_type_hints

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lexray.array_types import Float32s, Float64s
from lexray.errors import LexrayError, one_line
from lexray.events.eventlist import EventList
from lexray.inference.photons import photons_of
from lexray.models.autodecoders.calibration import Calibration, calibrate
from lexray.models.autodecoders.compression import Compression
from lexray.models.autodecoders.grid.decoder import GridDecoder
from lexray.models.autodecoders.grid.inference import GridReconstructor
from lexray.models.autodecoders.grid.training import GridSettings
from lexray.models.autodecoders.learner import Schedule, keyed_generator
from lexray.models.autodecoders.photons import Photons
from lexray.models.autodecoders.reconstructor import Encoding, Reconstruction, Reconstructor
from lexray.models.autodecoders.resnet.decoder import ResnetDecoder
from lexray.models.autodecoders.resnet.inference import ResnetReconstructor
from lexray.models.autodecoders.resnet.training import ResnetSettings
from lexray.models.autodecoders.sampler import InMemoryParts
from lexray.models.autodecoders.splitnet.inference import SplitnetReconstructor
from lexray.models.autodecoders.splitnet.network import SplitNet
from lexray.models.autodecoders.splitnet.training import SplitnetSettings
from lexray.models.autodecoders.trainer import AutodecoderTrainer
from lexray.models.autodecoders.training_range import TrainingRange

WEIGHTS, DESCRIPTION = "autodecoder.safetensors", "autodecoder.json"
#: Name of the autodecoder that comes with Lexray, and its folder.
REFERENCE = "reference"
_REFERENCE_FOLDER = Path(str(files("lexray.models.autodecoders"))) / "reference"
_LOG = logging.getLogger("lexray")
#: Edges f8[bins + 1] in s since t_ref, rate, lower and upper bound f8[B, bins] in ct/s of good time.
RateInCells: TypeAlias = tuple[Float64s, Float64s, Float64s | None, Float64s | None]
#: Settings of each model type.
SETTINGS_OF_TYPE: dict[str, type[Schedule]] = {
    "splitnet": SplitnetSettings,
    "grid": GridSettings,
    "resnet": ResnetSettings,
}
#: Settings by the names under which Lexray 0.1.0 stored them.
_FORMER_SETTINGS = {
    "batch": "batch_size",
    "clip": "grad_clip_norm",
    "warm_up": "warmup_steps",
    "lanes": "part_streams",
    "contaminate": "background_augmentation",
    "fit_stiffness": "fit_tv_weight",
    "lone": "single_detection_weight",
}
#: Most detections that a model of each type is calibrated on; `resnet` would take hours and is not calibrated.
MAX_CALIBRATION = {"splitnet": 4000, "grid": 600, "resnet": 0}
#: With fewer detections nothing is calibrated.
_MIN_CALIBRATION = 50
#: Flag of a detection with a score beyond those of all simulated ones of similar brightness.
ANOMALOUS = "anomalous"


@dataclass(frozen=True)
class Encoded:
    """Representations of N detections.

    Attributes
    ----------
    latent : f4[N, D]
        The representation. Of `splitnet` what the rate shows in five numbers, its features pooled over time,
        compressed where it is calibrated, and those of the spectrum; of `grid` see
        `lexray.models.autodecoders.representation`; of `resnet` the latent itself.
    latent_var : f4[N, D] or None
        Variance of each of its numbers by the chance of counting; None where it is not known.
    log_rate : f4[N, B]
        Log of the mean count rate a band during good time, in log(ct/s), with half a count added.
    nll : f4[N]
        Negative log-likelihood of the photons under the reconstructed rate, in nats.
    anomaly, p_value : f4[N] or None
        See `lexray.models.autodecoders.calibration`; None where it is not known.
    flags : list of tuple of str, or None
        By what each detection is unlike the training's: those of `lexray.models.autodecoders.training_range`, and
        'anomalous' where no simulated detection of similar brightness has so high a score, or none so low a one. None
        where it is not known what the training held.
    n_steps : int
        Optimiser steps of the fit; 0 where there is none.
    """

    latent: Float32s
    latent_var: Float32s | None
    log_rate: Float32s
    nll: Float32s
    anomaly: Float32s | None
    p_value: Float32s | None
    flags: list[tuple[str, ...]] | None
    n_steps: int


class Autodecoder:
    """A trained autodecoder of any type.

    Parameters
    ----------
    settings : Schedule
        Of its type; `SETTINGS_OF_TYPE` has them all.
    network : mapping of str to Tensor
        State dict of the type's network.
    start : f[D], optional
        Mean latent of the training, where there are latents.
    calibration : Calibration, optional
        Variances of its representations and scores of ordinary detections.
    trained_on : TrainingRange, optional
        What its training held.
    device : torch.device, optional

    Attributes
    ----------
    model_type : str
        'splitnet', 'grid' or 'resnet'.
    name : str
        Model type and sizes, as the `latents` table names it.
    latent_dim : int
        D, numbers in a representation.
    n_bands : int
        B.
    has_intervals : bool
        Whether this type of autodecoder has bounds for its rates.
    """

    def __init__(
        self,
        settings: Schedule,
        network: Mapping[str, Tensor],
        start: Tensor | None = None,
        calibration: Calibration | None = None,
        trained_on: TrainingRange | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.settings, self.start, self.calibration, self.trained_on = settings, start, calibration, trained_on
        self._learner = settings.learner()
        self.model_type, self.network = self._learner.model_type, self._learner.network
        self.network.load_state_dict(network)
        compression = None if calibration is None else calibration.compression
        self._model = _reconstructor(settings, self.network, start, device or torch.device("cpu"), compression)
        self.name, self.has_intervals = self._model.name, self._model.has_bounds
        self.latent_dim, self.n_bands = self._model.n_features, self._model.n_bands

    @classmethod
    def fit(cls, events: Sequence[EventList] | Photons, settings: Schedule) -> "Autodecoder":
        """Train on detections in memory, in this process. `lexray train autodecoder` does it on many.

        Parameters
        ----------
        events : sequence of EventList, or Photons
        settings : Schedule
            Such as ``SplitnetSettings(epochs=20)``.

        Raises
        ------
        lexray.models.autodecoders.state.TrainingDiverged
            If the loss is not finite, again and again.
        """
        photons = events if isinstance(events, Photons) else photons_of(events, settings.n_bands)
        trainer = AutodecoderTrainer(settings, InMemoryParts({0: photons}))
        for _ in range(settings.epochs):
            trainer.run_epoch()
        result = trainer.result()
        return cls(settings, result["network"], result["mean_latent"]).calibrated(photons)

    def calibrated(self, photons: Photons) -> "Autodecoder":
        """The same with variances and anomalies, learnt from detections of its training; see `MAX_CALIBRATION`.

        Where it is not known yet what the training held, these are taken for all of it.
        """
        most, found = MAX_CALIBRATION[self.model_type], None
        if min(len(photons), most) >= _MIN_CALIBRATION:
            rows = torch.randperm(len(photons), generator=keyed_generator(self.settings.seed))[:most].sort().values
            found = calibrate(self._model, photons.select(rows), self.settings.seed)
        trained_on = self.trained_on or TrainingRange.of(photons)
        return Autodecoder(self.settings, self.network.state_dict(), self.start, found, trained_on)

    def encode(self, events: Sequence[EventList]) -> Encoded:
        """Represent each detection.

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
        return self._encoded(photons, self._model.encode(photons))

    def _encoded(self, photons: Photons, found: Encoding) -> Encoded:
        in_bands = photons.counts
        counts = in_bands.float()
        variance = anomaly = p_value = None
        flags = None if self.trained_on is None else self.trained_on.flags(photons)
        if self.calibration is not None:
            variance = self.calibration.variance(found.features, counts).numpy()
            score = self.calibration.score(found, counts)
            anomaly, p_value = score.numpy(), self.calibration.p_value(score, counts).numpy()
            if flags is not None:
                alone = self.calibration.is_alone(score, counts).tolist()
                flags = [(*known, ANOMALOUS) if on else known for known, on in zip(flags, alone, strict=True)]
        mean_rate = (in_bands + 0.5).log() - photons.ontime.log()[:, None]
        return Encoded(
            found.features.numpy(),
            variance,
            mean_rate.float().numpy(),
            found.nll.numpy(),
            anomaly,
            p_value,
            flags,
            self._model.n_steps,
        )

    def rates(self, events: Sequence[EventList], bins: int = 256) -> list[tuple[Float64s, Float64s]]:
        """Reconstructed rates of the events given.

        Parameters
        ----------
        events : sequence of EventList
        bins : int
            Equal cells from the first to the last good time.

        Returns
        -------
        list of (edges f8[bins + 1] in s since t_ref, rate f8[B, bins] in ct/s of good time)
            Gaps included: what would have been seen. Where there is a background region, of the source alone.
        """
        return [(edges, rate) for edges, rate, _, _ in self.rates_with_intervals(events, bins, None)]

    def rates_at_full_resolution(self, events: Sequence[EventList]) -> list[tuple[Float64s, Float64s]]:
        """As `rates`, each in the cells that the model has of it, which need not be equal."""
        found = self._model.at_full_resolution(photons_of(events, self.n_bands))
        return [(edges.numpy(), rate.numpy()) for edges, rate in found]

    def rate_intervals(
        self, events: Sequence[EventList], bins: int = 256, level: float = 0.68
    ) -> list[tuple[Float64s, Float64s, Float64s]] | None:
        """Intervals of the rate, in each cell on its own; None where this type of autodecoder has none.

        Parameters
        ----------
        events : sequence of EventList
        bins : int
            As for `rates`.
        level : float
            Probability that the rate lies within.

        Returns
        -------
        list of (edges f8[bins + 1], lower f8[B, bins], upper f8[B, bins])
        """
        if not self.has_intervals:
            return None
        return [
            (edges, a, b)
            for edges, _, a, b in self.rates_with_intervals(events, bins, level)
            if a is not None and b is not None
        ]

    def rates_with_intervals(
        self, events: Sequence[EventList], bins: int = 256, level: float | None = 0.68
    ) -> list[RateInCells]:
        """`rates` and `rate_intervals` at once: (edges, rate, lower, upper).

        The bounds are None where `level` is, or where this type of autodecoder has none.
        """
        photons = photons_of(events, self.n_bands)
        self._warn_of_unlike(photons)
        return _in_cells(photons, bins, self._model.reconstruct(photons, bins, level))

    def _warn_of_unlike(self, photons: Photons) -> None:
        """Log a line where rates alone are asked for, which have no place for the flags of `encode`."""
        raised = [] if self.trained_on is None else [flag for one in self.trained_on.flags(photons) for flag in one]
        if raised:
            counted = ", ".join(f"{flag} {raised.count(flag)}" for flag in sorted(set(raised)))
            _LOG.warning("%s: of %d detections some are unlike its training: %s", self.name, len(photons), counted)

    def encode_with_rates(
        self, events: Sequence[EventList], bins: int = 256, level: float | None = None
    ) -> tuple[Encoded, list[RateInCells]]:
        """`encode` and `rates_with_intervals` from one pass of the network, or one fit."""
        return self.encode_photons_with_rates(photons_of(events, self.n_bands), bins, level)

    def encode_photons_with_rates(
        self, photons: Photons, bins: int, level: float | None
    ) -> tuple[Encoded, list[RateInCells]]:
        """As `encode_with_rates`, for N ragged detections."""
        encoding, rates = self._model.encode_and_reconstruct(photons, bins, level)
        return self._encoded(photons, encoding), _in_cells(photons, bins, rates)

    def rate(self, events: EventList, bins: int = 256) -> tuple[Float64s, Float64s]:
        """Reconstructed rate of one detection: (cell centres f8[bins] in s since t_ref, rate f8[B, bins] in ct/s)."""
        ((edges, rate),) = self.rates([events], bins)
        return (edges[:-1] + edges[1:]) / 2, rate

    def log_prob(self, events: Sequence[EventList]) -> Float64s:
        """Log-likelihood of each detection's photons under the rate reconstructed from them, f8[N] in nats."""
        return -self._model.encode(photons_of(events, self.n_bands)).nll.double().numpy()

    def save(self, folder: str | Path) -> None:
        """Write the weights (`WEIGHTS`) and the description (`DESCRIPTION`)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        if self.start is not None:
            tensors["start"] = self.start
        if self.calibration is not None:
            tensors |= {f"calibration.{name}": value for name, value in self.calibration.tensors().items()}
        if self.trained_on is not None:
            tensors |= {f"trained_on.{name}": value for name, value in self.trained_on.tensors().items()}
        save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, folder / WEIGHTS)
        (folder / DESCRIPTION).write_text(
            json.dumps({"model_type": self.model_type, "settings": asdict(self.settings)}, indent=1) + "\n"
        )


def load_autodecoder(path: str | Path, device: str = "cpu") -> Autodecoder:
    """Load what `lexray train autodecoder` wrote.

    Parameters
    ----------
    path : path
        The training's folder, or 'reference': the one that comes with Lexray.
    device : str
        Where to work: 'cpu' or 'cuda'.

    Raises
    ------
    LexrayError
        If there is no autodecoder there, or one of a type or with settings that this Lexray does not know.
    """
    folder = Path(resolve_autodecoder(str(path)))
    settings = read_settings(path)
    try:
        stored = load_file(folder / WEIGHTS)
    except FileNotFoundError:
        raise LexrayError(f"{path}: no autodecoder here ({WEIGHTS} is missing)") from None
    tensors = {_current_name(name): tensor for name, tensor in stored.items()}
    network, calibration, held = (_under(prefix, tensors) for prefix in ("network", "calibration", "trained_on"))
    try:
        known = Calibration.of_tensors(calibration) if calibration else None
        trained_on = TrainingRange.of_tensors(held) if held else None
        return Autodecoder(settings, network, tensors.get("start"), known, trained_on, torch.device(device))
    except RuntimeError:  # what torch says of weights that do not fit is a page long
        raise LexrayError(f"{path}: its network is that of another version of Lexray; train it again") from None
    except (KeyError, TypeError) as error:
        raise _of_another_version(path, error) from None


def read_settings(path: str | Path) -> Schedule:
    """Settings of what `load_autodecoder` loads, without its weights.

    Raises
    ------
    LexrayError
        As `load_autodecoder`.
    """
    try:
        description = json.loads((Path(resolve_autodecoder(str(path))) / DESCRIPTION).read_text())
    except FileNotFoundError:
        raise LexrayError(f"{path}: no autodecoder here ({DESCRIPTION} is missing)") from None
    if "model_type" not in description:
        _LOG.warning("%s: it has Lexray 0.1.0's names of settings, which are read for one more version", path)
    model_type = description.get("model_type") or description["kind"]
    if model_type not in SETTINGS_OF_TYPE:
        known_types = ", ".join(SETTINGS_OF_TYPE)
        raise LexrayError(f"{path}: an autodecoder of type '{model_type}', this Lexray knows {known_types}")
    try:
        return _settings(model_type, description["settings"])
    except (KeyError, TypeError) as error:
        raise _of_another_version(path, error) from None


def _of_another_version(path: str | Path, error: Exception) -> LexrayError:
    return LexrayError(f"{path}: was written by another version of Lexray ({one_line(error)}); train it again")


def resolve_autodecoder(path: str) -> str:
    """Folder of an autodecoder: its own, or that of 'reference'."""
    return str(_REFERENCE_FOLDER) if path == REFERENCE else path


def _current_name(tensor: str) -> str:
    """A tensor's name; Lexray 0.1.0 stored the uncertainty's as 'doubt'."""
    return ".".join("uncertainty" if part == "doubt" else part for part in tensor.split("."))


def _settings(model_type: str, values: Mapping[str, Any]) -> Schedule:
    given = {_FORMER_SETTINGS.get(name, name): value for name, value in values.items()}
    types = get_type_hints(SETTINGS_OF_TYPE[model_type])
    if "penalties" in types:
        given["penalties"] = types["penalties"](**given["penalties"])
    return SETTINGS_OF_TYPE[model_type](**given)


def _reconstructor(
    settings: Schedule,
    network: torch.nn.Module,
    start: Tensor | None,
    device: torch.device,
    compression: Compression | None,
) -> Reconstructor[Any]:
    name = type(settings).__name__
    if isinstance(settings, SplitnetSettings):
        return SplitnetReconstructor(settings, cast(SplitNet, network), device, compression)
    if start is None:
        raise TypeError(f"{name} needs the mean latent of its training")
    if isinstance(settings, GridSettings):
        return GridReconstructor(settings, cast(GridDecoder, network), start, device)
    if isinstance(settings, ResnetSettings):
        return ResnetReconstructor(settings, cast(ResnetDecoder, network), start, device)
    raise TypeError(f"{name} belongs to no type of autodecoder")


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(f"{prefix}.")}


def _in_cells(photons: Photons, bins: int, found: Reconstruction) -> list[RateInCells]:
    edges = [np.linspace(0.0, duration, bins + 1) for duration in photons.duration.tolist()]
    without = [None] * len(photons)
    lower, upper = (without if bound is None else list(bound.numpy()) for bound in (found.lower, found.upper))
    return list(zip(edges, found.rate.numpy(), lower, upper, strict=True))
