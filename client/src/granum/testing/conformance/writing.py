"""PUT: new names, taken names, directories, and when others see them."""

# ruff: noqa: D102 - the name of a test says what it claims

from granum.testing.conformance.talk import Reachable, Talk, ask, fresh, put, request

HELLO_DIGEST = "xxh3-128=b5e9c1ad071b3e7fc779cfaa5e523818"
OTHER_DIGEST = "xxh3-128=f1a1ded183edeef2cabd112d58b4f1e9"
LARGE = 8 << 20  # bytes; the size of a large camera frame, far above every buffer on the way


class WritingConformance:
    """What a node answers to those who write."""

    def test_a_put_is_answered_with_200_and_no_body(self, node: Reachable) -> None:
        reply = ask(node, "PUT", f"{fresh()}/f", b"hello")
        assert (reply.status, reply.headers["content-length"], reply.body) == (200, "0", b"")

    def test_a_receipt_says_how_safe_it_is(self, node: Reachable) -> None:
        assert ask(node, "PUT", f"{fresh()}/f", b"1").headers["granum-durability"] in {"relaxed", "commit"}

    def test_the_receipt_of_a_directory_says_how_safe_it_is(self, node: Reachable) -> None:
        assert ask(node, "PUT", f"{fresh()}/", b"").headers["granum-durability"] in {"relaxed", "commit"}

    def test_the_directories_of_a_new_file_are_made(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/a/b/c/f", b"1")
        assert ask(node, "GET", f"{top}/a/b/").listing() == {"c/": [1, 1]}

    def test_a_new_file_is_seen_by_the_next_request(self, node: Reachable) -> None:
        top = fresh()
        with Talk(node) as talk:
            talk.send(request("PUT", f"{top}/f", b"hello"), request("GET", f"{top}/f"), request("GET", f"{top}/"))
            replies = [talk.reply("PUT"), talk.reply(), talk.reply()]
        assert (replies[1].body, replies[2].listing()) == (b"hello", {"f": [0, 5]})

    def test_a_new_subtree_is_seen_at_once_in_a_listing_asked_for_before(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/old", b"1")
        before = ask(node, "GET", f"{top}/").listing()
        put(node, f"{top}/a/b/f", b"1")
        assert (before, ask(node, "GET", f"{top}/").listing()) == ({"old": [0, 1]}, {"old": [0, 1], "a/": [1, 1]})

    def test_a_large_file_comes_back_whole(self, node: Reachable) -> None:
        top = fresh()
        body = bytes(range(256)) * (LARGE // 256)
        put(node, f"{top}/large", body)
        reply = ask(node, "GET", f"{top}/large")
        assert reply.headers["content-length"] == "8388608"
        assert reply.body == body

    def test_a_taken_name_is_405_and_its_bytes_stay(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/f", b"first")
        status = ask(node, "PUT", f"{top}/f", b"second and longer").status
        assert (status, ask(node, "GET", f"{top}/f").body) == (405, b"first")

    def test_a_put_of_the_same_bytes_with_their_digest_is_receipted_again(self, node: Reachable) -> None:
        top = fresh()
        replies = [ask(node, "PUT", f"{top}/f", b"hello", Granum_Digest=HELLO_DIGEST) for _ in range(2)]
        assert [reply.status for reply in replies] == [200, 200]
        assert ask(node, "PUT", f"{top}/f", b"other", Granum_Digest=OTHER_DIGEST).status == 405
        assert ask(node, "GET", f"{top}/f").body == b"hello"

    def test_bytes_that_have_not_the_digest_sent_with_them_are_422_and_not_stored(self, node: Reachable) -> None:
        top = fresh()
        assert ask(node, "PUT", f"{top}/f", b"hello", Granum_Digest=OTHER_DIGEST).status == 422
        assert ask(node, "GET", f"{top}/f").status == 404

    def test_a_put_of_the_same_bytes_is_405_too(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/f", b"same")
        assert ask(node, "PUT", f"{top}/f", b"same").status == 405

    def test_a_put_over_a_directory_is_405_and_it_stays(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/sub/f", b"1")
        status = ask(node, "PUT", f"{top}/sub", b"2").status
        assert (status, ask(node, "GET", f"{top}/sub/").listing()) == (405, {"f": [0, 1]})

    def test_a_put_below_a_file_is_409_and_the_file_stays(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/f", b"first")
        status = ask(node, "PUT", f"{top}/f/below", b"2").status
        assert (status, ask(node, "GET", f"{top}/f").body) == (409, b"first")

    def test_a_put_deep_below_a_file_is_409(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/f", b"first")
        assert ask(node, "PUT", f"{top}/f/a/b", b"2").status == 409

    def test_a_put_with_trailing_slash_makes_a_directory_that_is_seen_at_once(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/old", b"1")
        before = ask(node, "GET", f"{top}/").listing()
        status = ask(node, "PUT", f"{top}/made/", b"").status
        after = ask(node, "GET", f"{top}/").listing()
        assert (before, status, after) == ({"old": [0, 1]}, 200, {"old": [0, 1], "made/": [1, 0]})

    def test_a_new_directory_has_an_empty_listing(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/made/")
        assert ask(node, "GET", f"{top}/made/").listing() == {}

    def test_a_directory_is_made_with_those_above_it(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/a/b/")
        assert ask(node, "GET", f"{top}/").listing() == {"a/": [1, 1]}

    def test_making_a_directory_again_is_405(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/made/")
        assert ask(node, "PUT", f"{top}/made/", b"").status == 405

    def test_making_a_directory_over_a_file_is_405_and_the_file_stays(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/f", b"first")
        status = ask(node, "PUT", f"{top}/f/", b"").status
        assert (status, ask(node, "GET", f"{top}/f").body) == (405, b"first")

    def test_making_a_directory_below_a_file_is_409(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/f", b"first")
        assert ask(node, "PUT", f"{top}/f/sub/", b"").status == 409

    def test_an_unfinished_file_is_not_seen(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/old", b"1")
        with Talk(node) as talk:
            talk.send(request("PUT", f"{top}/f", b"hello")[:-2])
            seen = (ask(node, "GET", f"{top}/f").status, ask(node, "GET", f"{top}/").listing())
            talk.send(b"lo")
            assert (seen, talk.reply("PUT").status) == ((404, {"old": [0, 1]}), 200)

    def test_a_body_cut_short_leaves_nothing_and_a_retry_succeeds(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/old", b"1")
        with Talk(node) as talk:
            talk.send(request("PUT", f"{top}/f", b"x" * 1000)[:-500])
            talk.end_sending()
            assert talk.is_closed()
        left = (ask(node, "GET", f"{top}/f").status, ask(node, "GET", f"{top}/").listing())
        assert (left, ask(node, "PUT", f"{top}/f", b"y" * 1000).status) == ((404, {"old": [0, 1]}), 200)

    def test_of_four_puts_at_once_one_is_stored_and_three_are_405(self, node: Reachable) -> None:
        target = f"{fresh()}/f"
        bodies = [str(number).encode() * 100_000 for number in range(4)]
        with Talk(node) as one, Talk(node) as two, Talk(node) as three, Talk(node) as four:
            talks = (one, two, three, four)
            for talk, body in zip(talks, bodies, strict=True):
                talk.send(request("PUT", target, body)[:-1])
            for talk, body in zip(talks, bodies, strict=True):
                talk.send(body[-1:])
            statuses = [talk.reply("PUT").status for talk in talks]
        assert sorted(statuses) == [200, 405, 405, 405]
        assert ask(node, "GET", target).body == bodies[statuses.index(200)]
