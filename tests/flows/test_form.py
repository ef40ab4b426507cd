"""The form that Prefect's UI shows for a run."""

from __future__ import annotations

from flows.form import FIRST, form_schema


def test_the_usual_options_come_first_and_nothing_is_preset() -> None:
    schema = form_schema()
    fields = schema["properties"]
    assert tuple(fields)[: len(FIRST)] == FIRST
    assert not any("default" in field for field in fields.values())
    assert "Default: 4e-07." in fields["learning_rate"]["description"]
    assert (schema["required"], schema["additionalProperties"]) == ([], True)


def test_options_without_an_effect_are_left_out() -> None:
    fields = form_schema()["properties"]
    assert "push_to_hub" not in fields
    assert {"use_ema", "gradient_checkpointing", "caption_dropout_probability"} <= fields.keys()
