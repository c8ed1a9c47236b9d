"""A session: one command's dealings with one cluster, and what became of them.

It opens the cluster that the user chose. An account gathers what went wrong without stopping the command: nodes that did not
answer, and single files that could not be copied. In the end these make the exit status: 1 when anything failed, else 3 when
a node is missing. A command that deals with two clusters has two sessions and one account. What to do with a cluster the
commands decide.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, TypeVar

import click

from granum.cli.options import Choices
from granum.cli.output import remark
from granum.cli.place import Place, one_cluster
from granum.wire.errors import BadConfig, GranumError

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from granum import Cluster as ReactorCluster
    from granum.blocking import Cluster
    from granum.transfer import Transfer

EXIT_FAILED = 1
EXIT_PARTIAL = 3
FAILURES_SHOWN_MAX = 20  # of a directory of 10,000 files that all fail for one reason, as many as fit a terminal
UNDER_WAY_MAX = 16  # files: enough to keep a few nodes busy with small ones
UNDER_WAY_BYTES_MAX = 256 << 20  # files are held in memory whole; one larger than this travels alone

Job = TypeVar("Job")
Result = TypeVar("Result")


class Account:
    """What went wrong in one command, reported as it happens."""

    def __init__(self, choices: Choices) -> None:
        self._choices = choices
        self._missing: dict[str, str] = {}
        self._failures = self._shown = 0

    def failed(self, what: str, error: BaseException) -> None:
        """Report that *what* could not be done; the command goes on."""
        self._failures += 1
        if self._shown < FAILURES_SHOWN_MAX:
            self._shown += 1
            text = error_text(error)
            is_named = what in text or getattr(error, "filename", None)
            remark(text if is_named else f"{what}: {text}")

    def differed(self) -> None:
        """Count a difference that was printed elsewhere as a failure."""
        self._failures += 1
        self._shown += 1

    def warn(self, text: str) -> None:
        """Say something that does not change the exit status."""
        if not self._choices.quiet:
            remark(text)

    def missing(self, causes: Mapping[str, BaseException]) -> None:
        """Note nodes that did not answer, by name."""
        for name, cause in causes.items():
            self._missing.setdefault(name, str(cause))

    def end(self) -> None:
        """Report what was gathered, and end the command with its exit status unless that is 0."""
        if self._failures > self._shown:
            remark(f"and {self._failures - self._shown:,} more")
        for name, cause in sorted(self._missing.items()):
            remark(f"partial: no answer from {cause if name in cause else f'{name}: {cause}'}")
        if self._failures or self._missing:
            raise click.exceptions.Exit(EXIT_FAILED if self._failures else EXIT_PARTIAL)


class Session:
    """An open *cluster* and the *account* of the command that uses it; made by `opened`."""

    def __init__(self, choices: Choices, cluster: "Cluster", account: Account) -> None:
        self.choices = choices
        self.cluster = cluster
        self.account = account
        self.failed, self.warn, self.missing = account.failed, account.warn, account.missing
        self._transfer: Transfer | None = None

    @property
    def transfer(self) -> "Transfer":
        """Transfers with single nodes, on connections of their own; to be used on the reactor's thread."""
        from granum.blocking.thread import reactor_thread  # noqa: PLC0415 - not before there is a cluster
        from granum.transfer import Transfer  # noqa: PLC0415

        if self._transfer is None:
            self._transfer = Transfer(reactor_thread().reactor)
        return self._transfer

    def submit(self, begin: "Callable[[], Awaitable[Result]]") -> Future[Result]:
        """Call *begin* on the reactor's thread; the future gets the result of what it returns."""
        from twisted.internet.defer import Deferred, ensureDeferred  # noqa: PLC0415 - not before there is a cluster

        from granum.blocking.thread import reactor_thread  # noqa: PLC0415

        def begun() -> "Deferred[Result]":
            made = begin()
            return made if isinstance(made, Deferred) else ensureDeferred(made)  # type: ignore[arg-type]

        return reactor_thread().submit(begun)

    def on_reactor(self) -> "ReactorCluster":
        """Return the cluster behind the blocking one, to be used on the reactor's thread."""
        from twisted.internet.defer import succeed  # noqa: PLC0415 - not before there is a cluster

        return self.cluster.call(succeed)

    def close(self) -> None:
        """Close the connections of `transfer`."""
        if self._transfer is not None:
            self.submit(self._transfer.close).result()

    def note_missing_nodes(self) -> None:
        """Note every known node that does not answer: what was asked of the whole cluster may be incomplete."""
        states = self.cluster.nodes()
        self.missing({state.node.name: state.cause for state in states if state.cause is not None})

    def in_parallel(
        self,
        jobs: Iterable[Job],
        begin: "Callable[[ReactorCluster, Job], Awaitable[Result]]",
        size: Callable[[Job], int],
    ) -> Generator[tuple[Job, Future[Result]], None, None]:
        """Yield each of *jobs*, in order, with the future of what was begun for it; *size* is its bytes in memory.

        *begin* is called on the reactor's thread. When the caller stops early, what is under way is cancelled.
        """
        cluster = self.on_reactor()
        under_way: deque[tuple[Job, int, Future[Result]]] = deque()
        weight = 0
        try:
            for job in jobs:
                own = size(job)
                while under_way and (len(under_way) == UNDER_WAY_MAX or weight + own > UNDER_WAY_BYTES_MAX):
                    yield under_way[0][0], under_way[0][2]
                    weight -= under_way.popleft()[1]
                under_way.append((job, own, self.submit(lambda job=job: begin(cluster, job))))  # type: ignore[misc]
                weight += own
            while under_way:
                yield under_way[0][0], under_way[0][2]
                under_way.popleft()
        finally:
            for _, _, future in under_way:
                future.cancel()


@contextmanager
def opened(
    choices: Choices, places: Iterable[Place] = (), *, writes: bool = False, account: Account | None = None
) -> Iterator[Session]:
    """Open the cluster that *places* or *choices* name; on leaving, close it and end the command with its status.

    With an *account*, which is then the caller's to end, the session is one of several. A command that *writes* must know its
    cluster: raises BadConfig when it is not named and there are several. Raises NoNode and what else `granum.connect` does.
    """
    from granum.blocking import connect  # noqa: PLC0415 - Twisted and zeroconf are imported when they are needed

    name = one_cluster(places, choices.cluster)
    expect = choices.expect or 1
    own = Account(choices) if account is None else account
    with (
        connect(name, nodes=choices.nodes, expect=expect, discover=choices.discovery) as cluster,
        closing(Session(choices, cluster, own)) as session,
    ):
        known = [state.node for state in cluster.nodes()]
        if len(known) < expect:
            names = ", ".join(node.name for node in known)
            session.missing({f"{expect - len(known)} of the {expect} expected": GranumError(f"found were {names}")})
        clusters = sorted({node.cluster for node in known if node.cluster})
        if writes and len(clusters) > 1:
            raise BadConfig(f"there are nodes of several clusters: {', '.join(clusters)}; say which with -c NAME")
        yield session
    if account is None:
        own.end()


def error_text(error: BaseException) -> str:
    """Return *error* as one sentence."""
    if isinstance(error, OSError) and not isinstance(error, GranumError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
