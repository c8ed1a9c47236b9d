"""What is found out before a series is written: whether its name is free, where its overflow is, and what the options mean."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from granum.cluster import Cluster
from granum.streaming.overflow import Overflow
from granum.streaming.streamer import PENDING_MAX
from granum.transfer import Receipt
from granum.wire.errors import AlreadyStored, BadConfig, NotADirectory, NotStored, Partial
from granum.wire.paths import ClusterPath


def settings(streamer_options: Mapping[str, Any]) -> Mapping[str, bool]:
    """Return what the options of the streamer mean for when a frame is taken in."""
    choices = {streamer_options.get("on_full"), streamer_options.get("overflow_full")}
    return {
        # A frame that may be refused is refused to the call that hands it over, so nothing is promised before.
        "encodes_ahead": "raise" not in choices and streamer_options.get("pending_max", PENDING_MAX) >= PENDING_MAX,
        "keeps": streamer_options.get("on_full") == "raise",
    }


def tell(listeners: Iterable[Callable[[Receipt], None]], receipt: Receipt) -> None:
    """Tell each of *listeners* of *receipt*."""
    for listener in listeners:
        listener(receipt)


def overflow_of(
    cluster: Cluster, series: ClusterPath, top: str | None, options: Mapping[str, Any] | None
) -> Overflow | None:
    """Return the overflow of *series* below the directory *top*; None without one. Raises BadConfig."""
    if top is None:
        if options is not None:
            raise BadConfig("overflow_options are for an overflow; name its directory with overflow_dir")
        return None
    reactor, nodes = cluster.reactor, [node.host for node in cluster.roster.nodes()]
    pool = reactor.getThreadPool()
    return Overflow.create(
        top, cluster=cluster.roster.cluster, nodes=nodes, series=series, reactor=reactor, pool=pool, **(options or {})
    )


async def check_free(cluster: Cluster, directory: ClusterPath) -> None:
    """Raise AlreadyStored when a node has *directory*; one that does not answer must not keep a camera waiting."""
    try:
        await cluster.listdir(directory)
    except (NotStored, Partial):
        return
    except NotADirectory:
        pass
    raise AlreadyStored(f"{directory} is stored already; choose another name")
