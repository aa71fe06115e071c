"""From the events of a field to those of one source: apertures, regions, backgrounds and areas."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "csc_products": ["find_csc_products"],
        "detections": ["detect", "finish"],
        "exposed_area": ["ExposedArea"],
        "extract": ["extract_sources"],
        "source_table": ["SourceTable", "read_sources"],
        "wcs": ["Plane"],
    },
)
