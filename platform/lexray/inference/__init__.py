"""A trained model on tables: encoding, reconstruction and projection."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "autodecoder": ["Autodecoder", "Encoded", "load_autodecoder"],
        "encode": ["encoder", "write_tables"],
        "photons": ["photons_of", "photons_of_table"],
        "project": ["ProjectedTable", "load_towers"],
    },
)
