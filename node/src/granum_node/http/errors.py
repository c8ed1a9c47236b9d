"""The one place where the node turns an error into an HTTP answer.

The status comes from the table that client and node share (`granum.wire.errors`); the text is the error's own sentence, which
never holds a path of the host. An error that is not of the family is a defect of the node: it is logged with its traceback
and answered with a neutral 500.
"""

from twisted.logger import Logger
from twisted.python.failure import Failure

from granum.wire.errors import GranumError, NodeError, status_of

_log = Logger()


def status_and_text(error: BaseException) -> tuple[int, bytes]:
    """Return the status and the body that answer *error*."""
    if not isinstance(error, GranumError):
        _log.failure("a request failed unexpectedly", failure=Failure(error))
        error = NodeError("the node failed inside; its log says more")
    return status_of(error), f"{error}\n".encode("utf-8", "replace")
