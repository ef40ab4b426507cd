"""Environments on their way."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from flowtuner.api.schemas.incoming import Incoming

Kind = Literal["model", "dataloader", "webhook", "lycoris"]
Name = Annotated[str, Field(min_length=1, max_length=120)]


class NewEnvironment(Incoming):
    """An environment that is asked for."""

    name: Name
    model_family: str
    model_flavour: str | None = None
    model_type: str = "lora"
    lora_type: str | None = None
    description: str | None = None
    example: str | None = None
    dataloader_path: str | None = None
    create_dataloader: bool = True


class ConfigUpdate(Incoming):
    """New options for an environment: all of them."""

    name: str | None = None
    config: dict[str, Any]
    description: str | None = None
    tags: list[str] | None = None


class NewConfig(ConfigUpdate):
    """An environment made from options alone, or brought back from an export."""

    name: Name


class NewName(Incoming):
    """The name of a copy, or the new name."""

    new_name: Name


class DataloaderWish(Incoming):
    """A dataloader file to be made anew."""

    path: str | None = None
    include_defaults: bool = True
    replace: bool = False


class ConfigReply(BaseModel):
    """One environment."""

    name: str
    config: dict[str, Any]
    metadata: dict[str, Any]
    config_type: str = "model"


class ConfigList(BaseModel):
    """Environments, or what else lies in `config/`."""

    configs: list[dict[str, Any]]
    active: str | None
    count: int
    config_type: str
