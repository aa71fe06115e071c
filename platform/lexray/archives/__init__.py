"""Archives of X-ray observations: what they hold, how it is downloaded, and a manifest of it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "csc": ["Catalogue", "Detection", "aperture_radius", "canonical_name", "fetch_product"],
        "downloads": ["Downloads"],
        "manifest": ["DownloadManifest"],
    },
)
