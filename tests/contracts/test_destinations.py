"""What every installed destination must be, whoever wrote it; a new one is tested the day it is added."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites import BlockStandardTestSuite

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


@pytest.mark.parametrize("block", [kind for _, kind in DESTINATIONS], ids=[name for name, _ in DESTINATIONS])
class TestBlocks(BlockStandardTestSuite):
    """What Prefect asks of every block: description, example, picture, a sentence for each field."""

    @pytest.fixture
    def block(self, request: pytest.FixtureRequest) -> type[Block]:
        kind: type[Block] = request.param
        return kind


def test_its_secrets_are_those_that_prefect_hides(kind: Any) -> None:
    hidden = {name.partition(".")[0] for name in kind.model_json_schema()["secret_fields"]}
    assert hidden == set(kind.secret_keys)


def test_an_unknown_key_and_an_empty_entry_are_mistakes(kind: Any) -> None:
    assert check_entries([{"provider": kind.provider}])
    [fault] = check_entries([{"provider": kind.provider, "block": "x", "canary": "canary-value"}])
    assert "canary-value" not in str(fault)
    assert check_entries([{"provider": f" {kind.provider.upper()} ", "block": "x"}]) == []
