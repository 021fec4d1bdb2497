"""The one engine: what studies, audits, repairs and pages train is a stage, computed once and kept in a store.

Start with `Stages`; `ResultStore` says where results and checkpoints lie.
"""

from linfair.engine.stages import Stages, Student, Teacher
from linfair.engine.store import ResultStore, Tables

__all__ = ["ResultStore", "Stages", "Student", "Tables", "Teacher"]
