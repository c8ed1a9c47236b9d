"""Every error that granum raises, and how each travels over HTTP.

One family, split by whose fault it is: the caller's, the node's, the network's. The docstring of a class is the sentence
that the command line prints when the error carries no text of its own: what happened, what to do.

The two tables at the end are inverse to each other: a node answers an error with `status_of`, a client turns a status back
into the same error with `error_for`. No other module of granum knows a status code for a failure.
"""

from collections.abc import Mapping


class GranumError(Exception):
    """Something failed in granum."""

    def __init__(self, message: str = "") -> None:
        """Carry *message*, or the docstring of the class when it is empty."""
        super().__init__(message or (type(self).__doc__ or "").strip())


# -- the caller's fault ----------------------------------------------------------------------------------------------


class BadRequest(GranumError, ValueError):
    """The node could not understand the request; check the program that sent it."""


class BadPath(BadRequest):
    """This is not a valid cluster path; use plain names separated by '/', without '..' and without reserved names."""


class PathTooLong(BadPath):
    """The path or one of its names is too long; a name has at most 255 bytes, a path 4,000 bytes and 64 levels."""


class BadLocator(GranumError, ValueError):
    """This is not a cluster address; write granum://CLUSTER/path, or granum:///path for any cluster."""


class BadListing(GranumError, ValueError):
    """The node answered with something that is not a directory listing; is there really a node at this address?"""


class BadFrame(GranumError, ValueError):
    """The bytes are not a readable PZF frame; the file is damaged or of another format."""


class BadMovie(GranumError, ValueError):
    """The file is not a readable movie; supported are .dax with its .inf, .tif and .npy."""


class WrongFrame(GranumError, ValueError):
    """The frame does not fit its series; all frames of a series have one shape and one dtype."""


class BadConfig(GranumError, ValueError):
    """The configuration is not usable; correct the named setting."""


class Closed(GranumError, ValueError):
    """This is closed already; open or create it again."""


class NotAllowed(GranumError, PermissionError):
    """The node does not allow this; ask the person who looks after it."""


class NotStored(GranumError, FileNotFoundError):
    """There is no such file or directory in the cluster; check the name, and whether all nodes are there with 'granum nodes'."""


class AlreadyStored(GranumError, FileExistsError):
    """The name is taken; granum stores a name once and never changes it, so choose another name."""


class NotADirectory(GranumError, NotADirectoryError):
    """A part of the path is a file, so nothing can lie below it; choose another directory."""


class IsADirectory(GranumError, IsADirectoryError):
    """The path is a directory, not a file; name a file in it, or list it."""


class PreconditionFailed(GranumError, ValueError):
    """What is stored is not what the request made its condition; look at what is there before you go on."""


class DigestMismatch(BadRequest):
    """The bytes do not have the digest that was sent with them, so nothing is stored; send them again."""


class TooSlow(BadRequest):
    """The request arrived too slowly, so the node gave it up; look at the network, then send it again."""


class Misdirected(BadRequest):
    """The node does not answer to this name; use one of its own, or have the name added to its setting 'names'."""


class LengthRequired(BadRequest):
    """The put does not say how long its body is; send Content-Length, or chunked transfer coding."""


class BodyTooLarge(BadRequest):
    """The file is larger than this node accepts; store it in parts."""


class HeadTooLarge(BadRequest):
    """The request line or its headers are too long; send fewer or shorter headers."""


class UnsupportedCoding(BadRequest):
    """The node knows no such content or transfer coding; send the bytes as they are, or gzip."""


class UnmetExpectation(BadRequest):
    """The node cannot meet this expectation; send 'Expect: 100-continue' or none."""


class UnsupportedVerb(BadRequest):
    """A node knows GET, HEAD and PUT only; nothing is changed or removed through it."""


class UnsupportedVersion(BadRequest):
    """The node does not speak this version of HTTP; use HTTP/1.1."""


class OverflowUnusable(GranumError, OSError):
    """The overflow on this machine cannot be written or read; look at its disk, or choose another with 'overflow_dir'."""


class OverflowInUse(OverflowUnusable):
    """A running program holds this overflow and delivers it by itself; wait for that program, or end it."""


# -- the node's fault ------------------------------------------------------------------------------------------------


class NodeError(GranumError):
    """The node failed; its log says why."""


class Corrupt(NodeError):
    """The file is damaged on its node: its bytes are not those that were put; who looks after the node finds it in quarantine."""


class NodeBusy(NodeError):
    """The node does not take writes at the moment; try again later or on another node."""


class OverQuota(NodeBusy):
    """Your address has put as much as the node takes of one address for now; try again later or on another node."""


class NoSpace(NodeError, OSError):
    """The node has no room left; free some or add a node."""


class StoreUnusable(NodeError):
    """The store cannot be used; check that its directory exists and that the node may write there."""


class StoreLocked(StoreUnusable):
    """Another node already serves this store; stop that one first, or choose another directory."""


# -- the network's fault ---------------------------------------------------------------------------------------------


class NodeUnreachable(GranumError, ConnectionError):
    """The node does not answer; is it running, and is the network between here and there in order?"""


class NodeTimeout(NodeUnreachable, TimeoutError):
    """The node did not answer in time; try again, and look at the network and the node's load if it stays so."""


class NoNode(GranumError, ConnectionError):
    """No node was found; start one with 'granum serve DIR'."""


class OnSomeNodes(GranumError):
    """Some nodes failed; each is named with its own cause."""

    def __init__(self, message: str, causes: Mapping[str, BaseException]) -> None:
        """Carry *causes*: node name -> what went wrong there. Each cause is appended to *message*."""
        self.causes = dict(causes)
        lines = [f"{name}: {cause}" for name, cause in sorted(self.causes.items())]
        super().__init__("; ".join([message, *lines]))


class Partial(OnSomeNodes):
    """A known node did not answer, so the answer may be incomplete; the nodes missing are named."""


class NotReceipted(OnSomeNodes):
    """Some puts have no receipt; they may or may not be stored."""

    def __init__(self, message: str, paths: list[str], causes: Mapping[str, BaseException]) -> None:
        """Carry *paths*, the cluster path of every put without a receipt, and *causes* by node name."""
        self.paths = list(paths)
        super().__init__(message, causes)


# -- the two tables --------------------------------------------------------------------------------------------------

_ERRORS: Mapping[int, type[GranumError]] = {
    400: BadRequest,
    403: NotAllowed,
    404: NotStored,
    405: AlreadyStored,  # PYME's answer to a second put, and the only meaning granum gives it
    408: TooSlow,
    409: NotADirectory,
    411: LengthRequired,
    412: PreconditionFailed,
    413: BodyTooLarge,
    414: PathTooLong,
    415: UnsupportedCoding,
    417: UnmetExpectation,
    421: Misdirected,
    422: DigestMismatch,
    429: OverQuota,
    431: HeadTooLarge,
    500: NodeError,
    501: UnsupportedVerb,
    503: NodeBusy,
    505: UnsupportedVersion,
    507: NoSpace,
}
_STATUSES: Mapping[type[GranumError], int] = {error: status for status, error in _ERRORS.items()}
# Errors that share the status of a more general one; a word in a header of the answer tells them apart.
WORD = "granum-error"
_WORDS: Mapping[str, type[GranumError]] = {"corrupt": Corrupt}
_WORD_OF: Mapping[type[BaseException], str] = {error: word for word, error in _WORDS.items()}


def status_of(error: BaseException) -> int:
    """Return the HTTP status that says *error*: that of its class or of the nearest base class, else 500."""
    for kind in type(error).__mro__:
        if kind in _STATUSES:
            return _STATUSES[kind]
    return 500


def word_of(error: BaseException) -> str:
    """Return the word that tells *error* from others with its status; '' when the status says it all."""
    return _WORD_OF.get(type(error), "")


def error_for(status: int, message: str = "", word: str = "") -> GranumError:
    """Return the error that an HTTP *status* of 300 or more means, with the *word* in its header WORD, '' for none.

    An unknown status becomes BadRequest or NodeError; an unknown word says nothing.
    """
    kind = _ERRORS.get(status)
    if kind is not None and issubclass(_WORDS.get(word, GranumError), kind):
        kind = _WORDS[word]
    if kind is None:
        kind = BadRequest if status < 500 else NodeError
        message = message or f"unexpected status {status}"
    return kind(message)
