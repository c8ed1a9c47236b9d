"""Connections: order, pipelining, what keeps them and what ends them, and requests that are no HTTP."""

# ruff: noqa: D102 - the name of a test says what it claims

from granum.testing.conformance.talk import Reachable, Talk, ask, fresh, put, request

LARGE = 8 << 20  # bytes
PUTS_MANY = 1000
BAD_FRAMING = (
    b"PUT /f HTTP/1.1\r\nHost: n\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    b"PUT /f HTTP/1.1\r\nHost: n\r\nContent-Length: -5\r\n\r\nhello",
    b"PUT /f HTTP/1.1\r\nHost: n\r\nContent-Length: +5\r\n\r\nhello",
    b"PUT /f HTTP/1.1\r\nHost: n\r\nContent-Length: 0x5\r\n\r\nhello",
    b"PUT /f HTTP/1.1\r\nHost: n\r\nContent-Length: 5_0\r\n\r\nhello",
    b"PUT /f HTTP/1.1\r\nHost: n\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nhello",
    b"PUT /f HTTP/1.1\r\nHost: n\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"PUT /f HTTP/1.0\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"GET /f HTTP/1.1\r\nHost: n\r\nHost: m\r\n\r\n",
    b"GET /f HTTP/1.1\r\nHost: n\r\nA: b\r\n folded\r\n\r\n",
    b"GET /f HTTP/1.1\r\nHost: n\r\nNo colon\r\n\r\n",
    b"GET /f HTTP/1.1\r\nHost: n\r\nSpace : b\r\n\r\n",
    b"GET /f HTTP/1.1\r\nHost: n\r\nA: b\x00c\r\n\r\n",
    b"GET  /f HTTP/1.1\r\nHost: n\r\n\r\n",
    b"GET /f g HTTP/1.1\r\nHost: n\r\n\r\n",
    b"GET /f\r\nHost: n\r\n\r\n",
    b"GET /f JUNK/1.1\r\nHost: n\r\n\r\n",
    b"(GET) /f HTTP/1.1\r\nHost: n\r\n\r\n",
)


class ConnectionConformance:
    """How a node treats a connection."""

    def test_pipelined_requests_in_one_segment_are_answered_in_order(self, node: Reachable) -> None:
        target = f"{fresh()}/f"
        with Talk(node) as talk:
            talk.send(request("PUT", target, b"first"), request("PUT", target, b"second"), request("GET", target))
            replies = [talk.reply("PUT"), talk.reply("PUT"), talk.reply()]
        assert [reply.status for reply in replies] == [200, 405, 200]
        assert replies[2].body == b"first"

    def test_a_thousand_pipelined_puts_are_all_stored(self, node: Reachable) -> None:
        top = fresh()
        with Talk(node) as talk:
            talk.send(*(request("PUT", f"{top}/{number:04}", b"%d" % number) for number in range(PUTS_MANY)))
            statuses = [talk.reply("PUT").status for _ in range(PUTS_MANY)]
            assert statuses == [200] * PUTS_MANY
            talk.send(*(request("GET", f"{top}/{number:04}") for number in range(PUTS_MANY)))
            assert [talk.reply().body for _ in range(PUTS_MANY)] == [b"%d" % number for number in range(PUTS_MANY)]
        assert len(ask(node, "GET", f"{top}/").listing()) == 1000

    def test_pipelined_gets_of_large_files_arrive_whole(self, node: Reachable) -> None:
        top = fresh()
        bodies = [bytes([number]) * LARGE for number in range(3)]
        for number, body in enumerate(bodies):
            put(node, f"{top}/{number}", body)
        with Talk(node) as talk:
            talk.send(*(request("GET", f"{top}/{number}") for number in range(3)))
            assert [talk.reply().body == body for body in bodies] == [True, True, True]

    def test_an_error_with_its_body_read_keeps_the_connection(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/f", b"first")
        body = b"GET / HTTP/1.1\r\n\r\n" * 10_000  # if it were not drained, it would be answered
        asked = {"/f": 405, "/f/below": 409, "/%00": 400, f"/{'x' * 256}": 414, "/f/": 405}
        with Talk(node) as talk:
            for name, status in asked.items():
                assert talk.ask("PUT", top + name, body).status == status
                assert talk.ask("GET", f"{top}/f").body == b"first"

    def test_a_missing_file_keeps_the_connection(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/f", b"first")
        with Talk(node) as talk:
            assert [talk.ask("GET", f"{top}/{name}").status for name in ("no", "f", "no/", "f")] == [404, 200, 404, 200]

    def test_other_verbs_are_501_and_change_nothing_and_keep_the_connection(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/f", b"first")
        verbs = ("DELETE", "POST", "PATCH", "MOVE", "TRACE", "get", "put")
        with Talk(node) as talk:
            assert [talk.ask(verb, f"{top}/f", b"hello").status for verb in verbs] == [501] * len(verbs)
            assert talk.ask("GET", f"{top}/f").body == b"first"

    def test_a_request_without_host_is_answered(self, node: Reachable) -> None:
        target = f"{fresh()}/f"
        head = f"PUT {target} HTTP/1.1\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n"
        with Talk(node) as talk:
            talk.send(head.encode(), b"hello")
            assert talk.reply("PUT").status == 200
            talk.send(f"GET {target} HTTP/1.1\r\n\r\n".encode())
            assert talk.reply().body == b"hello"

    def test_http_1_0_is_answered_and_closed(self, node: Reachable) -> None:
        target = f"{fresh()}/f"
        put(node, target, b"hello")
        with Talk(node) as talk:
            talk.send(f"GET {target} HTTP/1.0\r\n\r\n".encode())
            assert (talk.reply().body, talk.is_closed()) == (b"hello", True)

    def test_connection_close_is_obeyed(self, node: Reachable) -> None:
        target = f"{fresh()}/f"
        put(node, target, b"hello")
        with Talk(node) as talk:
            assert (talk.ask("GET", target, Connection="close").body, talk.is_closed()) == (b"hello", True)

    def test_a_client_that_ends_sending_still_gets_its_answer(self, node: Reachable) -> None:
        target = f"{fresh()}/f"
        put(node, target, b"hello")
        with Talk(node) as talk:
            talk.send(request("GET", target))
            talk.end_sending()
            assert (talk.reply().body, talk.is_closed()) == (b"hello", True)

    def test_a_request_may_arrive_byte_by_byte(self, node: Reachable) -> None:
        target = f"{fresh()}/f"
        with Talk(node) as talk:
            for byte in request("PUT", target, b"hello"):
                talk.send(bytes([byte]))
            assert talk.reply("PUT").status == 200
        assert ask(node, "GET", target).body == b"hello"

    def test_a_request_whose_end_cannot_be_told_is_400_and_closes(self, node: Reachable) -> None:
        for raw in BAD_FRAMING:
            with Talk(node) as talk:
                talk.send(raw)
                assert (talk.reply("PUT").status, talk.is_closed()) == (400, True), raw[:80]

    def test_a_head_that_is_too_large_is_431_and_closes(self, node: Reachable) -> None:
        with Talk(node) as talk:
            talk.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ", b"x" * 70_000, b"\r\n\r\n")
            assert (talk.reply().status, talk.is_closed()) == (431, True)

    def test_one_bad_connection_does_not_disturb_another(self, node: Reachable) -> None:
        target = f"{fresh()}/f"
        put(node, target, b"hello")
        with Talk(node) as good, Talk(node) as bad:
            before = good.ask("GET", target).body
            bad.send(BAD_FRAMING[0])
            assert (bad.reply("PUT").status, before, good.ask("GET", target).body) == (400, b"hello", b"hello")
