"""What browsers are shown: the page for people, and the two readers of the API's document, all from this machine."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles

STATIC = Path(__file__).parents[1] / "static"
PUBLIC = ("/", "/docs", "/redoc", "/favicon.ico")
router = APIRouter(include_in_schema=False)


@router.get("/")
def show_page() -> FileResponse:
    """The page for people; it holds nothing itself and asks the API as whoever is logged in."""
    return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})


@router.get("/docs")
def show_docs() -> FileResponse:
    """The API's document in Swagger UI."""
    return FileResponse(STATIC / "docs.html")


@router.get("/redoc")
def show_redoc() -> FileResponse:
    """The API's document in ReDoc."""
    return FileResponse(STATIC / "redoc.html")


@router.get("/favicon.ico")
def show_icon() -> RedirectResponse:
    """The icon, for browsers that ask for it by this name."""
    return RedirectResponse("/static/icon.svg")


def mount_files(app: FastAPI) -> None:
    """Serves the page's own files, and those of Swagger UI and ReDoc."""
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.mount("/vendor", StaticFiles(directory=str(files("fastapi_offline") / "static")), name="vendor")
