"""Options about publishing: where results go besides output_dir."""

from typing import Any, Literal

from pydantic import Field

from flowtuner.options.fields import Section, option


class PublishingOptions(Section):
    """Where results are published."""

    publishing_config: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Destinations, each with a provider: a list, one object, inline JSON, or a path to JSON.",
        json_schema_extra={"env": ["PUBLISHING_CONFIG"]},
    )
    push_to_hub: bool = option(
        False, "Publishes the trained model on the Hugging Face Hub.", accepted=True, env=["PUSH_TO_HUB"]
    )
    push_checkpoints_to_hub: bool = option(
        False, "Publishes every checkpoint there too.", accepted=True, env=["PUSH_CHECKPOINTS"]
    )
    push_to_hub_background: bool = option(
        False, "Uploads while training goes on; Flowtuner always does.", accepted=True, env=["PUSH_TO_HUB_BACKGROUND"]
    )
    hub_model_id: str | None = option(None, "Repository on the Hub: owner/name.", accepted=True, env=["HUB_MODEL_NAME"])
    model_card_private: bool = option(True, "Makes a new repository private.", accepted=True)
    model_card_safe_for_work: bool = option(
        False, "Leaves out the tag `not-for-all-audiences`.", accepted=True, env=["MODEL_CARD_SAFE_FOR_WORK"]
    )
    model_card_note: str | None = option(None, "A note for the model card.", accepted=True)
    post_upload_script: str | None = option(
        None,
        "Command run after each upload; may contain {remote_checkpoint_path} and others.",
        accepted=True,
        env=["POST_UPLOAD_SCRIPT"],
    )
    ephemeral: Literal["auto", "yes", "no"] = option(
        "auto",
        "Whether this machine is thrown away after the run; such a run needs a destination. auto: looks.",
        values={"true": "yes", "false": "no"},
    )
