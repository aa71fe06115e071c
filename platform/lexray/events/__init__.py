"""Event lists: the photons of one source in one observation, their light curve and their spectrum."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "arrow": ["from_table", "to_table"],
        "count_spectrum": ["CountSpectrum", "counted"],
        "eventlist": ["Bands", "EventList", "Float64s", "GoodTimeIntervals"],
        "lightcurve": ["LightCurve", "background_rate", "light_curve", "poisson_interval"],
        "missions": ["bands_by_mission"],
        "reader": ["ReadOptions", "read_content", "read_events", "unreadable"],
        "segments": ["Segmentation"],
        "validate": ["faults", "refusals", "usual_bands", "without"],
    },
)
