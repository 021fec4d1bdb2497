"""Audit your own model: who pays when its ReLUs go, why, what repair buys, and what it costs in private inference.

Start with `read_user`, then `audit` (or call the package: `linfair.audit(subject)`), then `write_report`. On networks
of linfair: `linearize_to` writes files, `read_pair` reads them, `diagnose` and `mitigate` take what it read, `expose`
attacks it.
"""

import sys
import types

from linfair.audit.diagnose import Diagnosis, Pair, diagnose, diagnosis_text, read_pair, read_reduced
from linfair.audit.expose import Exposed, expose, exposed_text
from linfair.audit.linearize import group_table, linearize_to
from linfair.audit.network import AuditError, Subject, read_own, read_user
from linfair.audit.repair import Mitigated, mitigate, mitigated_text
from linfair.audit.report import answer, caveats, html, words, write_report
from linfair.audit.run import Audit, Plan, audit


class _Callable(types.ModuleType):
    def __call__(self, *args: object, **options: object) -> Audit:
        return audit(*args, **options)


sys.modules[__name__].__class__ = _Callable
