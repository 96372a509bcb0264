"""``POST /v1/feedback``: what somebody thinks of an answer that this server gave."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field, model_validator

from pipeline.arrival.people import PeopleKey
from pipeline.times import utc_now
from registry.answer_ids import AnswerIds
from registry.feedback import Rating, Said, note
from streams.server.context import ServerContext
from streams.server.errors import ERRORS, ApiError
from streams.server.wire import Wire

USER = "user"
"""The kind under which the name of somebody who gives feedback is hashed."""


class FeedbackAsked(Wire):
    """``id`` is that of the answer. Either a thumb, or the reply as it should have been, which says ``down`` as well."""

    id: str = Field(min_length=1, max_length=300, description="the id of the answer")
    rating: Literal["up", "down"] | None = None
    correction: str | None = Field(default=None, min_length=1, max_length=100_000, description="the reply as it should be")
    user: str | None = Field(default=None, min_length=1, max_length=300, description="who says so; kept as a keyed hash")

    @model_validator(mode="after")
    def _says_something(self) -> FeedbackAsked:
        if self.rating is None and self.correction is None:
            raise ValueError("give a rating or a correction")
        if self.rating == "up" and self.correction is not None:
            raise ValueError("an answer that is corrected was not good as it was: leave out rating")
        return self


class FeedbackTaken(BaseModel):
    """``model`` is who wrote the answer; ``noted`` is false when the same was said before."""

    id: str
    model: str
    rating: Rating
    noted: bool


def issuer(context: ServerContext) -> AnswerIds:
    """Gives answers the ids that feedback names them by."""
    return AnswerIds(PeopleKey.read(context.home.people_key), context.mailbox)


def router(context: ServerContext) -> APIRouter:
    """Feedback, kept for good."""
    routes = APIRouter(prefix="/v1", tags=["feedback"], responses=ERRORS)
    key = PeopleKey.read(context.home.people_key)
    ids = issuer(context)

    @routes.post("/feedback")
    def give_feedback(asked: FeedbackAsked) -> FeedbackTaken:
        """Rate an answer, or correct it. The same again changes nothing; something else counts from then on."""
        model = ids.model_of(asked.id)
        if model is None:
            raise ApiError(404, "this server gave no answer of that id", param="id", code="answer_not_found")
        rating: Rating = "corrected" if asked.correction is not None else asked.rating or "down"
        user_key = None if asked.user is None else key.of(USER, asked.user)
        said = Said(asked.id, context.mailbox, model, rating, asked.correction, user_key)
        with context.storeroom.writing() as store:
            noted = note(store, said, utc_now())
        return FeedbackTaken(id=asked.id, model=model, rating=rating, noted=noted)

    return routes
