"""What Prefect's page of a run shows: a reader of the event log, drawn in a thread of its own."""
