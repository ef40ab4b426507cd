"""Options about what a run tells: trackers, webhooks, logs."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from flowtuner.options.fields import Section, match_choice, option

TRACKERS = ("none", "all", "simpletuner", "tensorboard", "wandb", "swanlab", "comet_ml", "custom-tracker")


class TrackingOptions(Section):
    """Who is told about a run."""

    report_to: str = option(
        "none",
        f"Trackers, one or several with commas: {', '.join(TRACKERS)}. Built so far: tensorboard "
        "(`flowtuner[trackers]`), wandb (`flowtuner[wandb]`) and comet_ml (`flowtuner[comet]`); `all` means those "
        "of them that are installed.",
        built=["none", "tensorboard", "wandb", "comet_ml", "all"],
    )
    tracker_project_name: str = option(
        "simpletuner", "Project in W&B or Comet.", aliases=["project_name"], env=["TRACKER_PROJECT_NAME"]
    )
    tracker_run_name: str = option("simpletuner-testing", "Name of the run in W&B or Comet.", env=["TRACKER_RUN_NAME"])
    tracker_image_layout: Literal["gallery", "table"] = option(
        "gallery", "How pictures are shown there.", accepted=True
    )
    logging_dir: Path | None = option(None, "Where trackers write; empty: `logs` in output_dir.", path="created")
    webhook_config: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Webhooks, `discord` or `raw`: a list, one object, inline JSON, or a path to JSON.",
        json_schema_extra={"aliases": ["webhooks_config"]},
    )
    webhook_reporting_interval: int | None = option(
        None, "Seconds between progress reports to webhooks; empty: as they come.", ge=1
    )
    print_filenames: bool = option(False, "Logs the file names of each batch.", accepted=True)
    print_sampler_statistics: bool = option(False, "Logs how often files were drawn.", accepted=True)
    debug_aspect_buckets: bool = option(False, "Logs how pictures were sorted.", accepted=True)
    debug_dataset_loader: bool = option(False, "Logs how datasets were read.", accepted=True)

    @field_validator("report_to")
    @classmethod
    def _check_trackers(cls, text: str) -> str:
        names = [str(match_choice(name.strip(), TRACKERS, {})) for name in text.split(",")]
        unknown = [name for name in names if name not in TRACKERS]
        if unknown:
            raise PydanticCustomError(
                "choice",
                "knows no {name}",
                {"name": repr(unknown[0]), "allowed": ", ".join(TRACKERS)},
            )
        return ",".join(names)
