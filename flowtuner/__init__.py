"""Flowtuner fine-tunes diffusion models as Prefect flows."""

__version__ = "0.1.0"
