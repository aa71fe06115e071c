"""From the bytes of a FITS event file to columns: headers, tables, good time intervals, times."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "binary_table": ["BinaryTable"],
        "compressed_table": ["open_table"],
        "gti": ["GoodTimes", "GoodTimesByDetector", "read_good_times"],
        "gzip_stream": ["unpack"],
        "headers": ["Buffer", "Hdu", "Header", "scan"],
        "time_system": ["TimeSystem"],
    },
)
