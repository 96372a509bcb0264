"""What the fictional people write about, one topic a file, in the order in which the topics come up."""

from __future__ import annotations

from streams.demo.topics.allotment import ALLOTMENT
from streams.demo.topics.boat import BOAT
from streams.demo.topics.choir import CHOIR
from streams.demo.topics.everyday import EVERYDAY
from streams.demo.topics.harbour import HARBOUR
from streams.demo.topics.history import HISTORY
from streams.demo.topics.kitchen import KITCHEN
from streams.demo.topics.observatory import OBSERVATORY
from streams.demo.topics.shape import Topic
from streams.demo.topics.weather import WEATHER

TOPICS: tuple[Topic, ...] = (EVERYDAY, KITCHEN, HARBOUR, CHOIR, BOAT, HISTORY, WEATHER, ALLOTMENT, OBSERVATORY)

__all__ = ["TOPICS", "Topic"]
