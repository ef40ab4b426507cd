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
        False, "Publishes the trained model on the Hugging Face Hub, besides publishing_config.", env=["PUSH_TO_HUB"]
    )
    push_checkpoints_to_hub: bool = option(
        False, "Publishes every checkpoint there too, with all that resuming needs.", env=["PUSH_CHECKPOINTS"]
    )
    push_to_hub_background: bool = option(
        False, "Uploads while training goes on; Flowtuner always does.", env=["PUSH_TO_HUB_BACKGROUND"]
    )
    hub_model_id: str | None = option(
        None,
        "Repository on the Hub: owner/name. By default tracker_project_name if it is set, else output_dir's name, in "
        "the namespace of the token's owner.",
        aliases=["push_to_hub_model_id"],
        env=["HUB_MODEL_NAME"],
    )
    push_to_hub_organization: str | None = option(None, "Owner of the repository, if hub_model_id names none.")
    hub_strategy: Literal["end", "every_save", "checkpoint", "all_checkpoints"] | None = option(
        None,
        "What goes to the Hub. end: the final model. every_save: the newest weights too. checkpoint: and the newest "
        "checkpoint, in last-checkpoint. all_checkpoints: and every checkpoint, in checkpoint-N. By default end, or "
        "all_checkpoints with push_checkpoints_to_hub.",
    )
    hub_token: str | None = option(
        None,
        "Token that may write there; better HF_TOKEN, the file of `hf auth login`, or hub_block.",
        aliases=["push_to_hub_token"],
    )
    hub_block: str | None = option(None, "The stored Prefect block (Flowtuner Hugging Face Hub) that holds the token.")
    hub_revision: str | None = option(None, "Branch of the repository; main by default.")
    hub_always_push: bool = option(False, "Sends a checkpoint although another is on its way; Flowtuner always does.")
    hub_allow_existing: bool = option(False, "Whether a repository that holds something else may be written to.")
    model_card_private: bool = option(
        True, "Makes a new repository private; said explicitly, it must be so.", aliases=["hub_private_repo"]
    )
    model_card_safe_for_work: bool = option(
        False, "Leaves out the tag `not-for-all-audiences`.", env=["MODEL_CARD_SAFE_FOR_WORK"]
    )
    model_card_note: str | None = option(None, "A note for the model card.")
    post_upload_script: str | None = option(
        None,
        "Command run after each verified upload; may contain {remote_checkpoint_path} and others.",
        env=["POST_UPLOAD_SCRIPT"],
    )
    script_timeout_seconds: float = option(
        1800.0, "Seconds after which one of these commands (and external validation) is ended.", gt=0
    )
    script_retries: int = option(0, "How often such a command is called again when it fails.", ge=0, le=10)
    ephemeral: Literal["auto", "yes", "no"] = option(
        "auto",
        "Whether this machine is thrown away after the run; such a run needs a destination. auto: looks.",
        values={"true": "yes", "false": "no"},
    )
    hold_on_failure_minutes: float = option(
        15.0,
        "Minutes for which a run stays on such a machine, and tries again, when not everything is published.",
        ge=0,
    )
