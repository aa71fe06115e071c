"""Where real observations come from: catalogues through TAP, files through HTTP."""
