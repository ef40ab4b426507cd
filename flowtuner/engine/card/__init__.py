"""The papers of a release: the model card, its pictures, and the options that made it; no secrets, no local paths."""

from flowtuner.engine.card.facts import CardFacts
from flowtuner.engine.card.papers import write_papers

__all__ = ["CardFacts", "write_papers"]
