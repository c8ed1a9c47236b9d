"""The answer to a put does not depend on how its body comes: with its head, behind it, or in chunks."""

import pytest

from granum.testing.conformance.talk import Talk, ask, chunked, request
from granum.wire.digest import XXH3
from granum_node.storage.digest import new_hasher
from integration.lab import NodeProcess

ABSENT, FILE, DIRECTORY, BELOW = "new", "taken/f", "taken", "taken/f/x"
SAME, OTHER = b"hello", b"other!"


def digest_of(body: bytes) -> dict[str, str]:
    hasher = new_hasher(XXH3)
    hasher.update(body)
    return {"Granum_Digest": f"{XXH3}={hasher.hexdigest()}"}


def answers(node: NodeProcess, name: str, body: bytes, headers: dict[str, str]) -> list[int]:
    """Return the statuses of one put whose body comes in each of the three ways, under names of their own where absent."""
    names = [f"/{name}"] * 3 if name != ABSENT else [f"/{name}-{len(body)}-{'-'.join(headers)}-{n}" for n in range(3)]
    found = [ask(node, "PUT", names[0], body, **headers).status]
    with Talk(node) as talk:
        whole = request("PUT", names[1], body, **headers)
        talk.send(whole[: -len(body)])
        assert ask(node, "GET", "/__healthz").status == 200  # by now the head has been read
        talk.send(whole[-len(body) :])
        found.append(talk.reply("PUT").status)
        talk.send(request("PUT", names[2], None, Transfer_Encoding="chunked", **headers) + chunked([body]))
        found.append(talk.reply("PUT").status)
    return found


@pytest.mark.parametrize("name", [ABSENT, FILE, DIRECTORY, BELOW])
@pytest.mark.parametrize("body", [SAME, OTHER])
def test_each_way_gets_the_same_answer(shared: NodeProcess, name: str, body: bytes) -> None:
    ask(shared, "PUT", "/taken/f", SAME)
    receipt, plain, exclusive = {
        ABSENT: (200, 200, 200),
        FILE: (200 if body == SAME else 405, 405, 412),
        DIRECTORY: (405, 405, 412),
        BELOW: (409, 409, 409),
    }[name]
    assert answers(shared, name, body, {}) == [plain] * 3
    assert answers(shared, name, body, {"If_None_Match": "*"}) == [exclusive] * 3
    assert answers(shared, name, body, digest_of(body)) == [receipt] * 3
