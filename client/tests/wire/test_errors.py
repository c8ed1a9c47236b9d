"""The error family and its two tables."""

import pytest

from granum.wire import errors
from granum.wire.errors import (
    AlreadyStored,
    BadPath,
    BadRequest,
    GranumError,
    NodeError,
    NoSpace,
    NotReceipted,
    NotStored,
    OnSomeNodes,
    Partial,
    StoreLocked,
    error_for,
    status_of,
    word_of,
)

STATUSES = {
    400: "BadRequest",
    403: "NotAllowed",
    404: "NotStored",
    405: "AlreadyStored",
    408: "TooSlow",
    409: "NotADirectory",
    411: "LengthRequired",
    412: "PreconditionFailed",
    413: "BodyTooLarge",
    414: "PathTooLong",
    415: "UnsupportedCoding",
    417: "UnmetExpectation",
    421: "Misdirected",
    422: "DigestMismatch",
    429: "OverQuota",
    431: "HeadTooLarge",
    500: "NodeError",
    501: "UnsupportedVerb",
    503: "NodeBusy",
    505: "UnsupportedVersion",
    507: "NoSpace",
}
FAMILY = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GranumError)]


@pytest.mark.parametrize(("status", "name"), STATUSES.items())
def test_a_status_means_one_error(status: int, name: str) -> None:
    assert type(error_for(status)).__name__ == name


@pytest.mark.parametrize(("status", "name"), STATUSES.items())
def test_an_error_is_said_by_the_status_that_means_it(status: int, name: str) -> None:
    assert status_of(getattr(errors, name)()) == status


def test_the_statuses_above_are_all_that_have_an_error_of_their_own() -> None:
    """No other status is read as anything but the two general errors."""
    others = {type(error_for(status)) for status in range(300, 600) if status not in STATUSES}
    assert others == {BadRequest, NodeError}


@pytest.mark.parametrize(("status", "kind"), [(300, BadRequest), (499, BadRequest), (502, NodeError), (599, NodeError)])
def test_an_unknown_status_is_named(status: int, kind: type[GranumError]) -> None:
    error = error_for(status)
    assert (type(error), str(error)) == (kind, f"unexpected status {status}")


def test_the_words_of_the_node_are_kept() -> None:
    assert str(error_for(404, "there is no file /a")) == "there is no file /a"


@pytest.mark.parametrize(("status", "word", "name"), [(500, "corrupt", "Corrupt")])
def test_a_word_beside_the_status_means_one_error(status: int, word: str, name: str) -> None:
    error = error_for(status, "", word)
    assert (type(error).__name__, status_of(error), word_of(error)) == (name, status, word)


@pytest.mark.parametrize(("status", "word"), [(500, ""), (500, "unheard"), (404, "corrupt"), (599, "corrupt")])
def test_a_word_that_is_unknown_or_does_not_fit_the_status_says_nothing(status: int, word: str) -> None:
    assert type(error_for(status, "", word)) is type(error_for(status))
    assert word_of(error_for(status, "", word)) == ""


@pytest.mark.parametrize(
    ("error", "status"), [(BadPath("x"), 400), (StoreLocked(), 500), (KeyError("x"), 500), (OSError(), 500)]
)
def test_an_error_without_a_status_has_that_of_its_nearest_base(error: BaseException, status: int) -> None:
    assert status_of(error) == status


@pytest.mark.parametrize("kind", FAMILY, ids=lambda kind: kind.__name__)
def test_every_error_says_what_happened_and_what_to_do(kind: type[GranumError]) -> None:
    """The docstring is what the command line prints: one sentence on one line, its second half for the person who reads it."""
    text = (kind.__doc__ or "").strip()
    assert (text[:1].isupper(), text.endswith((".", "?")), "\n" in text) == (True, True, False)
    assert kind is GranumError or "; " in text


@pytest.mark.parametrize(
    "kind", [kind for kind in FAMILY if not issubclass(kind, OnSomeNodes)], ids=lambda kind: kind.__name__
)
def test_an_error_without_text_speaks_its_docstring(kind: type[GranumError]) -> None:
    assert (str(kind()), str(kind("other"))) == (kind.__doc__, "other")


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (NotStored(), FileNotFoundError),
        (AlreadyStored(), FileExistsError),
        (BadPath(), ValueError),
        (NoSpace(), OSError),
        (errors.NotADirectory(), NotADirectoryError),
        (errors.IsADirectory(), IsADirectoryError),
        (errors.NotAllowed(), PermissionError),
        (errors.NodeUnreachable(), ConnectionError),
        (errors.NodeTimeout(), TimeoutError),
    ],
)
def test_an_error_is_caught_as_the_builtin_that_callers_know(error: GranumError, builtin: type[Exception]) -> None:
    assert isinstance(error, builtin)


def test_a_failure_on_some_nodes_names_each_with_its_cause() -> None:
    error = Partial("/run1 may be incomplete", {"b:2": NodeError("no answer"), "a:1": NodeError("closed")})
    assert str(error) == "/run1 may be incomplete; a:1: closed; b:2: no answer"


def test_missing_receipts_carry_their_paths() -> None:
    error = NotReceipted("1 put has no receipt", ["/run1/f"], {"a:1": NodeError("closed")})
    assert (error.paths, list(error.causes)) == (["/run1/f"], ["a:1"])
