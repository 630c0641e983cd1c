"""The tone layer: how this camera, in this photo, turned raw into JPEG, inverted."""
