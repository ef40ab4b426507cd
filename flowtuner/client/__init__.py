"""The HTTP API from Python: `Client` asks a server, `Refused` says why it would not."""

from flowtuner.client.client import Client
from flowtuner.client.connection import Refused, Unreachable
from flowtuner.client.models import Checkpoint, Event, Job, Queue, Status, Submission, Verdict

__all__ = [
    "Checkpoint",
    "Client",
    "Event",
    "Job",
    "Queue",
    "Refused",
    "Status",
    "Submission",
    "Unreachable",
    "Verdict",
]
