"""Engines: one batched forward pass over images, whatever runs the model."""
