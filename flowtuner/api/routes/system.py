"""Health, readiness and the machine itself."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["system"])


@router.get("/health")
def read_health() -> dict[str, str]:
    """Says that the server answers."""
    return {"status": "healthy", "mode": "unified"}
