"""The sidecar's bytes: container, header, colour tags and entropy coding."""
