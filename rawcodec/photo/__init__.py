"""Photo files: raws and JPEGs to arrays, and arrays to TIFF and DNG."""
