"""The one engine: whatever is trained is a stage (`Stages`), computed once and kept in a store (`ResultStore`)."""

from linfair.engine.stages import Stages, Student, Teacher
from linfair.engine.store import ResultStore, Tables
