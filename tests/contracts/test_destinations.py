"""What every installed destination must be, whoever wrote it; a new one is tested the day it is added."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.blocks.core import Block

from flowtuner.publishing.registry import check_entries, known_destinations

DESTINATIONS = sorted(known_destinations().items())


@pytest.fixture(params=[kind for _, kind in DESTINATIONS], ids=[name for name, _ in DESTINATIONS])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_it_is_found_by_its_own_name() -> None:
    assert [name for name, _ in DESTINATIONS] == [kind.provider for _, kind in DESTINATIONS]


def test_no_two_go_by_the_same_name() -> None:
    names = [name for _, kind in DESTINATIONS for name in (kind.provider, *kind.aliases)]
    assert len(names) == len(set(names))


def test_its_block_explains_itself_in_prefects_form(kind: type[Block]) -> None:
    assert kind.get_description()
    for name, field in kind.model_fields.items():
        assert field.description, f"{name} has no description"
        assert field.description.endswith("."), f"the description of {name} has no full stop"


def test_its_block_shows_how_it_is_used(kind: type[Block]) -> None:
    example = kind.get_code_example() or ""
    assert f"import {kind.__name__}" in example
    assert f'= {kind.__name__}.load("BLOCK_NAME")' in example


def test_its_secrets_are_those_that_prefect_hides(kind: Any) -> None:
    hidden = {name.partition(".")[0] for name in kind.model_json_schema()["secret_fields"]}
    assert hidden == set(kind.secret_keys)


def test_an_unknown_key_and_an_empty_entry_are_mistakes(kind: Any) -> None:
    assert check_entries([{"provider": kind.provider}])
    [fault] = check_entries([{"provider": kind.provider, "block": "x", "canary": "canary-value"}])
    assert "canary-value" not in str(fault)
    assert check_entries([{"provider": f" {kind.provider.upper()} ", "block": "x"}]) == []
