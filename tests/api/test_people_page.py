"""The page for people, in a real browser: log in, look, steer; by keyboard, light and dark."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from flowtuner.jobs import store
from flowtuner.records.tables import Job, now
from tests.api.conftest import PASSWORD

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
As = Callable[[str], TestClient]
JOB = "0badcafe"


@pytest.fixture
def job(app: FastAPI, local: TestClient) -> str:
    """A run half-way, with a curve, a picture and an upload."""
    home = app.state.settings.home
    picture = home / "pictures" / JOB / "kite.png"
    picture.parent.mkdir(parents=True)
    Image.new("RGB", (32, 32), "orange").save(picture)
    with app.state.database.writing() as session:
        session.add(
            Job(id=JOB, config_name="kites", status=store.RUNNING, started_at=now(), progress={"percent": 50.0})
        )
    for step in range(1, 51):
        tell(app, "training.metric", f"step {step}", data={"step": step, "loss": 1 / step})
    tell(
        app,
        "training.validation",
        "validated",
        title="Validation (step 50)",
        pictures=["kite.png"],
        validation={"prompts": ["a kite"]},
    )
    tell(
        app,
        "publish.status",
        "up",
        data={
            "what": "checkpoint-50",
            "destination": "share",
            "state": "verified",
            "verified": True,
            "uri": "s3://b/50",
        },
    )
    tell(app, "notification", "<b>bold</b> <script>document.title = 'taken'</script>")
    return JOB


def tell(app: FastAPI, type: str, message: str, **body: object) -> None:
    with app.state.database.writing() as session:
        store.add_event(session, session.get_one(Job, JOB), type, message, **body)
    app.state.board.tell(JOB)


@pytest.fixture
def page(address: str) -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    assert chromium, "a browser is needed for this test: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if is_fault(line) else None)
        page.goto(address)
        yield page
        assert faults == []
        browser.close()


def is_fault(line: object) -> bool:
    # A wrong password and an order that is refused are meant to be; ReDoc's own logo is kept out by our policy.
    return line.type == "error" and not any(word in line.text for word in ("401", "400", "redoc"))


def log_in(page: object, name: str = "admin") -> None:
    page.locator("#login [name=username]").fill(name)
    page.locator("#login [name=password]").fill(PASSWORD)
    page.keyboard.press("Enter")


def test_a_run_is_looked_at_and_steered(
    app: FastAPI, as_level: As, job: str, page: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from playwright.sync_api import expect

    as_level("admin")
    page.reload()
    page.locator("#login [name=username]").fill("admin")
    page.locator("#login [name=password]").fill("not the password")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("Invalid username or password")
    log_in(page)
    expect(page.get_by_role("heading", name="kites")).to_be_visible()
    expect(page.locator("#loss-range")).to_contain_text("steps 1 to 50")
    expect(page.locator("#pictures img")).to_have_attribute("alt", "a kite")
    expect(page.locator("#published tr")).to_contain_text("verified")
    assert "<script>" in page.locator("#log").inner_text()
    assert page.title() == "Flowtuner"

    tell(app, "training.metric", "step 51", data={"step": 51, "loss": 0.02})
    expect(page.locator("#loss-range")).to_contain_text("steps 1 to 51")
    tell(app, "notification", "something new")
    expect(page.locator("#log li").last).to_contain_text("something new")

    page.get_by_role("button", name="Validate now").click()
    expect(page.get_by_role("status")).to_contain_text("No active training job")  # this one has no flow run
    page.get_by_role("button", name="Stop").press("Enter")
    expect(page.get_by_role("heading", name="Stop this run?")).to_be_visible()
    page.keyboard.press("Enter")  # the harmless button has the focus
    expect(page.get_by_role("heading", name="Stop this run?")).to_be_hidden()
    page.get_by_role("button", name="Stop").press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("saves a checkpoint and ends")
    with app.state.database.reading() as session:
        assert session.get_one(Job, JOB).detail == "cancel"


def test_everything_is_reached_by_keyboard(as_level: As, job: str, page: object) -> None:
    as_level("admin")
    page.reload()
    log_in(page)
    page.get_by_role("heading", name="kites").wait_for()
    seen = set()
    for _ in range(14):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.textContent.slice(0, 12)"))
    assert {"leave", "validate", "checkpoint", "stop", "log"} <= seen


def test_light_and_dark_differ_and_can_be_read(as_level: As, job: str, page: object, tmp_path: Path) -> None:
    as_level("admin")
    page.reload()
    log_in(page)
    page.get_by_role("heading", name="kites").wait_for()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        ground, ink = page.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        )
        assert contrast(ground, ink) > 7, (scheme, ground, ink)
        page.screenshot(path=tmp_path / f"{scheme}.png", full_page=True)
    assert (tmp_path / "light.png").read_bytes() != (tmp_path / "dark.png").read_bytes()


def test_the_documents_need_no_other_server(page: object, address: str) -> None:
    asked: list[str] = []
    page.on("response", lambda response: asked.append(response.url))
    for path in ("/docs", "/redoc"):
        page.goto(f"{address}{path}")
        page.get_by_text("configurations").first.wait_for()
    assert len(asked) > 5
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


def contrast(one: str, other: str) -> float:
    lights = sorted((lightness(one), lightness(other)), reverse=True)
    return (lights[0] + 0.05) / (lights[1] + 0.05)


def lightness(colour: str) -> float:
    parts = [int(part) / 255 for part in colour[4:-1].split(",")]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
