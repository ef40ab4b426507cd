"""`flowtuner deploy`: registers block types, the work pool and the deployments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flowtuner.cli.arguments import make_parser
from flowtuner.cli.exits import Exit
from flowtuner.cli.output import tell, write
from flowtuner.cli.reach import require_answer
from flowtuner.jobs.settings import find_api_url


def run(argv: Sequence[str]) -> int:
    """Registers everything on the configured Prefect server; doing it again changes nothing."""
    parser = make_parser("deploy", "Registers block types, work pool and deployments on the configured server.")
    parser.add_argument("--working-dir", metavar="FOLDER", type=Path, help="where config/ is (default: here)")
    parser.add_argument("--pool", default="flowtuner", help="the work pool (default: %(default)s)")
    known = parser.parse_args(argv)
    api_url = find_api_url()
    if not api_url:
        tell(
            "flowtuner: no Prefect server is configured. Set PREFECT_API_URL, or choose a profile of Prefect's, "
            "or run `flowtuner server`, which starts one and deploys to it."
        )
        return Exit.CONFIGURATION
    require_answer(api_url)

    from flowtuner.jobs.deploy import deploy

    report = deploy(known.working_dir, known.pool)
    write(f"Deployed to {report.api_url}, work pool {report.work_pool}:")
    for name in report.deployments:
        write(f"  {name}")
    write(f"Block types: {', '.join(report.block_types)}")
    write(f"A worker runs them: prefect worker start --pool {report.work_pool}")
    return Exit.OK
