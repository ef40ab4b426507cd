"""Users, for administrators."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from sqlalchemy import select

from flowtuner.api.auth import accounts
from flowtuner.api.deps import DatabaseDep, Requires
from flowtuner.api.errors import refusals
from flowtuner.api.schemas.auth import NewMember, Success, UserChange, UserView
from flowtuner.records.tables import User

router = APIRouter(tags=["users"], dependencies=[Depends(Requires("admin.users"))])


@router.get("/api/users", responses=refusals(401, 403))
def list_users(database: DatabaseDep) -> dict[str, list[UserView]]:
    """All users."""
    with database.reading() as session:
        return {"users": [UserView.of(user) for user in session.scalars(select(User).order_by(User.id))]}


@router.post("/api/users", status_code=201, responses=refusals(400, 401, 403))
def create_user(wanted: NewMember, database: DatabaseDep) -> UserView:
    """Makes a user."""
    with database.writing() as session:
        return UserView.of(accounts.create_user(session, wanted, is_admin=wanted.is_admin, levels=wanted.level_names))


@router.get("/api/users/{user_id}", responses=refusals(401, 403, 404))
def read_user(user_id: int, database: DatabaseDep) -> UserView:
    """One user."""
    with database.reading() as session:
        return UserView.of(accounts.find_user(session, user_id))


@router.patch("/api/users/{user_id}", responses=refusals(400, 401, 403, 404))
def change_user(user_id: int, change: UserChange, database: DatabaseDep) -> UserView:
    """Changes a user; a new password or a deactivation ends the user's sessions."""
    with database.writing() as session:
        return UserView.of(accounts.change_user(session, user_id, change))


@router.delete("/api/users/{user_id}", responses=refusals(400, 401, 403, 404))
def delete_user(user_id: int, database: DatabaseDep) -> Success:
    """Removes a user."""
    with database.writing() as session:
        accounts.delete_user(session, user_id)
    return Success()
