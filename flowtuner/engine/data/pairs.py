"""Pairs: which pictures of conditioning datasets belong to a trained one, found by their relative file names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from flowtuner.engine.data.buckets import make_plan, turn_size
from flowtuner.engine.data.sample import Plan, Quarantined, Sample, Size
from flowtuner.engine.data.settings import DatasetSettings
from flowtuner.engine.data.spool import Lookup

ASPECT_TOLERANCE = 0.03
"""How far the shapes of a strict pair may differ: a pixel or two of rounding, where one was reduced in size."""


class ReferenceSet:
    """One conditioning dataset: its settings, and what is known of each of its files."""

    def __init__(self, settings: DatasetSettings, root: str, is_strict: bool, facts: Lookup) -> None:
        self._settings = settings
        self._root = root
        self._is_strict = is_strict
        self._facts = facts

    def match(self, sample: Sample, relative: str, size: Size) -> Sample | str:
        """The reference of a picture (turned size `size`) as a sample, or why there is none."""
        wanted = os.path.join(self._root, relative)
        # An edit is often saved in another format: the name decides, its suffix only where two have the same name.
        exact = self._facts.get(wanted)
        found = (wanted, exact) if exact is not None else self._facts.find(wanted)
        if found is None:
            return f"dataset {self._settings.id} holds no {relative} to go with it"
        path, facts = found
        if isinstance(facts, str):
            return f"its reference {path} cannot be used: {facts}"
        content, width, height, orientation, *face = facts
        if not self._is_strict:
            plan = make_plan((width, height), orientation, content, self._settings.crop, *face)
            return Sample(self._settings.id, path, content, (), plan)
        own = turn_size((width, height), orientation)
        if abs(own[0] * size[1] / (own[1] * size[0]) - 1) > ASPECT_TOLERANCE:
            return (
                f"its reference {path} has another shape ({own[0]}x{own[1]} for {size[0]}x{size[1]}); "
                "conditioning_type reference_loose takes such pairs"
            )
        # The same part of the same picture, whatever the sizes of the files.
        return Sample(self._settings.id, path, content, (), Plan(orientation, sample.plan.resize, sample.plan.crop))


def add_references(sample: Sample, root: str, size: Size, sets: Sequence[ReferenceSet]) -> Sample | Quarantined:
    """The sample with one reference of each set; one that is missing leaves the pair out."""
    relative = sample.path.removeprefix(root)
    references = [one.match(sample, relative, size) for one in sets]
    for reference in references:
        if isinstance(reference, str):
            return Quarantined(sample.path, reference)
    return replace(sample, references=tuple(one for one in references if isinstance(one, Sample)))
