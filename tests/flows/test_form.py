"""The form that Prefect's UI shows for a run."""

from __future__ import annotations

from typing import Any

import pytest
from prefect import Flow
from prefect.utilities.callables import parameter_schema

from flows.cache import cache
from flows.form import FIRST, NEEDED, form_schema
from flows.publish import publish
from flows.train import train


def test_the_usual_options_come_first_and_nothing_is_preset() -> None:
    schema = form_schema()
    fields = schema["properties"]
    assert tuple(fields)[: len(FIRST)] == FIRST
    assert not any("default" in field for field in fields.values())
    assert "Default: 4e-07." in fields["learning_rate"]["description"]
    assert (schema["required"], schema["additionalProperties"]) == ([], True)


def test_options_without_an_effect_are_left_out() -> None:
    fields = form_schema()["properties"]
    assert "ramtorch" not in fields
    assert {"use_ema", "gradient_checkpointing", "caption_dropout_probability"} <= fields.keys()
    assert "ema_validation" not in fields  # has one choice so far
    assert fields["mixed_precision"]["enum"] == ["no", "fp16", "bf16"]  # not fp8


def test_a_field_is_called_as_in_a_file_and_says_when_it_is_needed() -> None:
    fields = form_schema()["properties"]
    assert fields["output_dir"]["title"] == "output_dir"
    assert fields["output_dir"]["description"].endswith(NEEDED)
    assert NEEDED not in fields["learning_rate"]["description"]


def test_an_empty_field_needs_no_switch_to_none() -> None:
    fields = form_schema()["properties"]
    assert fields["seed"]["type"] == "integer"
    assert [choice["type"] for choice in fields["instance_prompt"]["anyOf"]] == ["string", "array"]


@pytest.mark.parametrize("flow", [train, cache])
def test_the_form_asks_for_the_file_first(flow: Flow[..., Any]) -> None:
    shown = parameter_schema(flow).properties
    assert sorted(shown, key=lambda name: shown[name]["position"])[:3] == ["env", "config_file", "config"]
    assert shown["env"]["description"]


def test_publishing_by_hand_needs_a_path_alone() -> None:
    shown = parameter_schema(publish)
    assert shown.required == ["path"]
    assert all(field["description"] for field in shown.properties.values())
