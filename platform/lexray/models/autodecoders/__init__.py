"""Models of an event list's Poisson rate: `splitnet`, `grid` and `resnet`, with the same files for each."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "calibration": ["Calibration", "calibrate"],
        "learner": ["Precision", "Schedule", "cosine", "keyed_generator"],
        "likelihood": ["cell_counts"],
        "photons": ["BackgroundPhotons", "Photons"],
        "reconstructor": ["Reconstructor"],
        "representation": ["variability"],
        "sampler": ["InMemoryParts", "PartSize"],
        "state": ["TrainingDiverged"],
        "trainer": ["AutodecoderTrainer"],
    },
)
