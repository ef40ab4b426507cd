"""`flowtuner jobs`: a server's jobs from the command line: handed in, watched, steered, cleared away."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from flowtuner.cli.arguments import make_parser
from flowtuner.cli.exits import Exit
from flowtuner.cli.output import tell, write, write_json
from flowtuner.client import Client, Event, Job
from flowtuner.client.models import OVER

QUIET = ("training.metric", "training.progress", "debug")
ENDS: Mapping[str, Exit] = MappingProxyType({"completed": Exit.OK, "cancelled": Exit.PREEMPTED})


def run(argv: Sequence[str]) -> int:
    """Does what the first word says, at the server that SIMPLETUNER_HOST and SIMPLETUNER_PORT name."""
    known = _parser().parse_args(argv)
    with Client(known.server) as client:
        code: int = known.act(client, known)
    return code


def _submit(client: Client, known: argparse.Namespace) -> int:
    if known.dry_run:
        return _preview(client, known)
    labels = dict(label.split("=", 1) for label in known.label)
    done = client.submit(
        known.name,
        no_wait=known.no_wait,
        any_gpu=known.any_gpu,
        for_approval=known.for_approval,
        target=known.target,
        worker_labels=labels,
    )
    if known.json:
        write_json(done.model_dump(mode="json"))
    else:
        write("Job submitted successfully!")
        write(f"  Job ID: {done.job_id}\n  Status: {done.status}")
        if done.queue_position:
            write(f"  Queue Position: {done.queue_position}")
    return _watch(client, done.job_id) if known.follow else Exit.OK


def _preview(client: Client, known: argparse.Namespace) -> int:
    verdict = client.check_environment(known.name)
    queue = client.read_queue()
    for error in verdict.errors:
        write(f"error: {error}")
    for warning in verdict.warnings:
        write(f"warning: {warning}")
    before = queue.total_pending + queue.total_running
    if not verdict.is_valid:
        write(f"'{known.name}' cannot be trained; nothing was submitted")
        return Exit.CONFIGURATION
    write(f"'{known.name}' can be trained. Before it: {before} jobs. Nothing was submitted")
    return Exit.OK


def _list(client: Client, known: argparse.Namespace) -> int:
    jobs = client.list_jobs(known.limit)
    if known.json:
        write_json([job.model_dump(mode="json") for job in jobs])
        return Exit.OK
    rows = [("JOB", "STATUS", "PROGRESS", "CREATED", "CONFIGURATION"), *map(_row, jobs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        write("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return Exit.OK


def _row(job: Job) -> tuple[str, ...]:
    percent = (job.progress or {}).get("percent")
    created = job.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
    return job.job_id, job.status, "" if percent is None else f"{percent:.0f} %", created, job.config_name or ""


def _get(client: Client, known: argparse.Namespace) -> int:
    write_json(client.read_job(known.job).model_dump(mode="json"))
    return Exit.OK


def _status(client: Client, known: argparse.Namespace) -> int:
    status = client.read_status(known.job)
    if known.json:
        write_json(status.model_dump(mode="json", exclude={"config"}))
        return Exit.OK
    progress = status.progress or {}
    where = f", step {progress['step']} of {progress['total_steps']}" if "step" in progress else ""
    write(f"{status.job_id or 'no job'}: {status.status}{where}")
    if status.status == "error":
        write(str((status.job_info or {}).get("error") or ""))
    return Exit.OK


def _logs(client: Client, known: argparse.Namespace) -> int:
    if known.follow:
        return _watch(client, known.job)
    for event in client.read_events(known.job):
        _print(event)
    return Exit.OK


def _watch(client: Client, job_id: str) -> int:
    for event in client.follow(job_id):
        _print(event)
    return ENDS.get(client.read_job(job_id).status, Exit.FAILED)


def _print(event: Event) -> None:
    if event.type not in QUIET:
        write(f"{event.timestamp.astimezone().strftime('%H:%M:%S')}  {event.message}")


def _cancel(client: Client, known: argparse.Namespace) -> int:
    write(f"{known.job}: {client.cancel(known.job)}; a run under way saves a checkpoint first")
    return Exit.OK


def _retry(client: Client, known: argparse.Namespace) -> int:
    write(f"  Job ID: {client.retry(known.job).job_id}")
    return Exit.OK


def _delete(client: Client, known: argparse.Namespace) -> int:
    client.delete(known.job)
    write(f"{known.job} is forgotten; what it trained stays")
    return Exit.OK


def _purge(client: Client, known: argparse.Namespace) -> int:
    over = [job for job in client.list_jobs(1000) if job.status in (known.status or OVER)]
    if not known.yes:
        tell(f"{len(over)} jobs would be forgotten: say --yes")
        return Exit.FAILED
    for job in over:
        client.delete(job.job_id)
    write(f"{len(over)} jobs are forgotten; what they trained stays")
    return Exit.OK


def _validate(client: Client, known: argparse.Namespace) -> int:
    write(f"asked for a validation after the next step (order {client.ask_for_validation(known.job)})")
    return Exit.OK


def _checkpoint(client: Client, known: argparse.Namespace) -> int:
    write(f"asked for a checkpoint after the next step (order {client.ask_for_checkpoint(known.job)})")
    return Exit.OK


Act = Callable[[Client, argparse.Namespace], int]


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("jobs", "Hands jobs to a server and looks after them.")
    parser.add_argument("--server", metavar="URL", help="default: http://SIMPLETUNER_HOST:SIMPLETUNER_PORT")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, act: Act, about: str, *, job: str = "") -> argparse.ArgumentParser:
        each = verbs.add_parser(name, help=about, description=about, allow_abbrev=False)
        each.set_defaults(act=act)
        if job:
            each.add_argument("job", metavar="JOB", nargs="?" if job == "newest" else None, help="the job's id")
        return each

    submit = verb("submit", _submit, "queue an environment")
    submit.add_argument("name", metavar="NAME", help="the environment to train")
    submit.add_argument("-n", "--dry-run", action="store_true", help="check it and say what stands before it")
    submit.add_argument("--no-wait", action="store_true", help="refuse it if it could not start at once")
    submit.add_argument("--any-gpu", action="store_true", help="take whichever GPU is free")
    submit.add_argument("--for-approval", action="store_true", help="ask for more than the limits allow")
    submit.add_argument("-t", "--target", choices=["auto", "local", "worker"], default="auto", help="where it runs")
    submit.add_argument(
        "--label", metavar="NAME=PATTERN", action="append", default=[], help="which workers may have it"
    )
    submit.add_argument("-f", "--follow", action="store_true", help="print its log until it is over")
    submit.add_argument("--json", action="store_true", help="answer as JSON")
    listing = verb("list", _list, "list jobs, newest first")
    listing.add_argument("--limit", type=int, default=50, help="how many (default: 50)")
    listing.add_argument("--json", action="store_true", help="answer as JSON")
    verb("get", _get, "show one job as JSON", job="one")
    status = verb("status", _status, "say where a job stands", job="newest")
    status.add_argument("--json", action="store_true", help="answer as JSON")
    logs = verb("logs", _logs, "print a job's log", job="one")
    logs.add_argument("-f", "--follow", action="store_true", help="until it is over")
    verb("cancel", _cancel, "take a job out of the queue, or have it save and end", job="one")
    verb("retry", _retry, "queue a job that is over once more", job="one")
    verb("delete", _delete, "forget a job that is over", job="one")
    purge = verb("purge", _purge, "forget all jobs that are over")
    purge.add_argument("--status", action="append", choices=OVER, help="only those that ended so")
    purge.add_argument("-y", "--yes", action="store_true", help="do it")
    verb("validate", _validate, "have a run draw its validation pictures now", job="newest")
    verb("checkpoint", _checkpoint, "have a run save a checkpoint now", job="newest")
    return parser
