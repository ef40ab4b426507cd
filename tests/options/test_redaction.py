"""What is hidden of options, and that nothing else is."""

import pytest

from flowtuner.options import hide_secrets
from flowtuner.options.config import TrainingConfig
from flowtuner.options.redaction import HIDDEN, PUBLIC, SECRET
from flowtuner.publishing.registry import known_destinations


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"tokn": "canary", "acces_key": "canary"}, {"tokn": HIDDEN, "acces_key": HIDDEN}),
        ({"request_headers": {"X-Team": "canary"}}, {"request_headers": HIDDEN}),
        ("https://user:canary@host/path", "https://***@host/path"),
        ("https://canary@host/path", "https://***@host/path"),
        ("https://host/c?sv=1&sig=canary&se=2", "https://host/c?sv=1&sig=***&se=2"),
        ("https://host/c?X-Amz-Signature=canary", "https://host/c?X-Amz-Signature=***"),
    ],
)
def test_credentials_are_hidden_wherever_they_stand(value, shown):
    assert hide_secrets([{"entry": value}]) == [{"entry": shown}]


@pytest.mark.parametrize(
    "value", ["a photo of user@host", "https://host/path?dl=0", "s3://bucket/run", "user@host:/share", "{env:TOKEN}"]
)
def test_what_is_no_credential_is_shown(value):
    assert hide_secrets({"path": value}) == {"path": value}


def test_no_name_is_taken_for_a_mistyped_credential():
    names = {
        *TrainingConfig.model_fields,
        *(name for kind in known_destinations().values() for name in kind.model_fields),
    }
    hidden = {name for name in names if hide_secrets({name: "x"}) != {name: "x"}}
    assert hidden == {name for name in names if SECRET.search(name) and not PUBLIC.search(name)}
