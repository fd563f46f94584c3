"""The errors a caller can act on, each with the SQLSTATE its client sees.

TuneError
├── ObjectNotFound      42704  unknown model, version or setting
├── UndefinedTable      42P01  no such table
├── UndefinedColumn     42703  no such column
├── WrongObjectType     42809  not a table of the kind that is needed
├── DatatypeMismatch    42804  a column of another type than is needed
├── NameTaken           42710  the name already means something else
├── InvalidArgument     22023  a value the function cannot take
├── NotReady            55000  the object exists but is in the wrong state
├── LimitExceeded       54000  input or batch above a limit
├── NotSupported        0A000  the model cannot do this
├── PermissionDenied    42501  the role may not do this
├── ReadOnlyTransaction 25006  what is needed for this would have to write
├── ParallelMode        25000  called where PL/Python may not run SQL
├── DiskFull            53100  no space for an artifact
├── OutOfMemory         53200  a job needs more memory than it may have
├── QuotaExceeded       53400  as many as are allowed wait or run already
├── QueryCanceled       57014  a wait was ended from outside
├── SystemFault         58000  a process that is needed does not answer or was lost
├── ArtifactDamaged     XX001  a file of a model is not what its manifest says
└── JobFailed           as the job says
"""


class TuneError(Exception):
    """An error with a SQLSTATE, and where possible a statement that mends it."""

    sqlstate = "XX000"

    def __init__(self, message: str, *, detail: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.hint = hint


class ObjectNotFound(TuneError):
    """The named model, version or setting does not exist."""

    sqlstate = "42704"


class UndefinedTable(TuneError):
    """The table does not exist, or no longer."""

    sqlstate = "42P01"


class UndefinedColumn(TuneError):
    """The table has no such column."""

    sqlstate = "42703"


class WrongObjectType(TuneError):
    """The relation is not a table that can be used this way."""

    sqlstate = "42809"


class DatatypeMismatch(TuneError):
    """A column has another type than the operation needs."""

    sqlstate = "42804"


class NameTaken(TuneError):
    """The name is already bound to something else."""

    sqlstate = "42710"


class InvalidArgument(TuneError):
    """An argument has a value the function cannot take."""

    sqlstate = "22023"


class NotReady(TuneError):
    """The object is not in a state that allows the operation."""

    sqlstate = "55000"


class LimitExceeded(TuneError):
    """An input or a batch is larger than the limit that an administrator set."""

    sqlstate = "54000"


class NotSupported(TuneError):
    """The model or its engine cannot do what was asked."""

    sqlstate = "0A000"


class PermissionDenied(TuneError):
    """The calling role lacks the right."""

    sqlstate = "42501"


class ReadOnlyTransaction(TuneError):
    """The function writes, if only to roll it back, and the transaction or the server may not."""

    sqlstate = "25006"


class ParallelMode(TuneError):
    """The call came from a parallel plan, where running SQL would crash the server."""

    sqlstate = "25000"


class DiskFull(TuneError):
    """There is no space left for an artifact."""

    sqlstate = "53100"


class OutOfMemory(TuneError):
    """A job needs more memory than it may have."""

    sqlstate = "53200"


class QuotaExceeded(TuneError):
    """As many as an administrator allows wait or run already."""

    sqlstate = "53400"


class QueryCanceled(TuneError):
    """A cancel or a timeout ended a wait, not what was waited for."""

    sqlstate = "57014"


class SystemFault(TuneError):
    """A process that is needed does not answer or was lost."""

    sqlstate = "58000"


class ArtifactDamaged(TuneError):
    """A model file differs from its manifest."""

    sqlstate = "XX001"


class JobFailed(TuneError):
    """A job that a caller waited for has failed; the error is the job's."""

    def __init__(self, sqlstate: str, message: str, *, detail: str = "", hint: str = "") -> None:
        super().__init__(message, detail=detail, hint=hint)
        self.sqlstate = sqlstate


_BY_STATE: dict[str, type[TuneError]] = {
    kind.sqlstate: kind for kind in TuneError.__subclasses__() if "sqlstate" in vars(kind)
}


def error_of(sqlstate: str, message: str, *, detail: str = "", hint: str = "") -> TuneError:
    """The error that another process has reported, of the class that it has there."""
    kind = _BY_STATE.get(sqlstate)
    if kind is None:
        return JobFailed(sqlstate, message, detail=detail, hint=hint)
    return kind(message, detail=detail, hint=hint)
