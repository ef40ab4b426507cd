"""What holds for the house as a whole: names, imports, the map, sizes."""

import ast
import importlib.util
import re
import subprocess
import sys
from importlib.metadata import entry_points, packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("flowtuner", "flows", "tasks", "blocks")
SOURCES = sorted(
    path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if path.parent.name != "versions"  # migrations are written by Alembic and never changed again
)
HARD_FILE_LINES = 500
HARD_FUNCTION_LINES = 80


@pytest.mark.parametrize("package", PACKAGES)
def test_nobody_else_owns_our_generic_names(package):
    assert set(packages_distributions().get(package, ["flowtuner"])) == {"flowtuner"}
    found = importlib.util.find_spec(package)
    assert Path(found.submodule_search_locations[0]).resolve().parent == ROOT


def test_the_prefect_server_can_be_imported():
    # The newest fastapi that pip resolves without our pin keeps it from starting.
    done = subprocess.run(
        [sys.executable, "-c", "import prefect.server.api.server"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_map_in_the_readme_has_a_line_for_every_module():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [str(path) for path in SOURCES if path.name != "__init__.py" and f"{path.name} " not in readme]
    assert missing == []


def test_every_module_says_in_one_sentence_what_it_is():
    silent = [str(path) for path in SOURCES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert silent == []


def test_files_and_functions_stay_readable():
    long = [f"{path}: {len(lines)} lines" for path in SOURCES if len(lines := _lines(path)) > HARD_FILE_LINES]
    for path in SOURCES:
        for node in ast.walk(ast.parse("\n".join(_lines(path)))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                long += [f"{path}: {node.name} has {length} lines"] if length > HARD_FUNCTION_LINES else []
    assert long == []


@pytest.mark.parametrize("name", ["flowtuner", "simpletuner", "simpletuner-train"])
def test_the_commands_are_installed_under_all_their_names(name):
    (command,) = entry_points(group="console_scripts", name=name)
    assert callable(command.load())


def test_the_makefile_names_every_target_people_rely_on():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test", "test-all", "check", "bench", "serve", "deploy"):
        assert re.search(rf"^{target}: \$\(STAMP\)$", makefile, re.MULTILINE), target


def test_the_tested_set_is_exact_and_has_no_torchvision():
    lines = [
        line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    assert "torch==2.13.0" in lines
    assert not any(line.lower().startswith("torchvision") for line in lines)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()
