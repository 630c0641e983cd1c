"""The learned layer: what the JPEG does not know, as latents coded with a context model."""
