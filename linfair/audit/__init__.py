"""Audit your own model: who pays when its ReLUs go, why, what repair buys, and what it costs in private inference.

`read_user` takes a Python file with a function, safetensors weights and a data set; `audit` linearizes, repairs and
measures; `write_report` makes one HTML page of it. The command `linfair audit` is all three. The package may be called
like its function: `linfair.audit(subject)`.
"""

import sys
from types import ModuleType

from linfair.audit.caveats import caveats
from linfair.audit.findings import answer
from linfair.audit.network import AuditError, Subject, read_own, read_user
from linfair.audit.report import html, write_report
from linfair.audit.run import Audit, Plan, audit

__all__ = [
    "Audit",
    "AuditError",
    "Plan",
    "Subject",
    "answer",
    "audit",
    "caveats",
    "html",
    "read_own",
    "read_user",
    "write_report",
]


class _Callable(ModuleType):
    def __call__(self, *args: object, **options: object) -> Audit:
        return audit(*args, **options)


sys.modules[__name__].__class__ = _Callable
