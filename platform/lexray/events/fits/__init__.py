"""From the bytes of a FITS event file to columns: headers, tables, good time intervals, times."""
