"""Bodies of puts: their codings, where they end, and what is decided before they come."""

# ruff: noqa: D102 - the name of a test says what it claims

import gzip

from granum.testing.conformance.talk import Reachable, Talk, ask, chunked, fresh, put, request

BAD_CHUNKS = (
    b"zz\r\nhello\r\n0\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n",
    b"5\nhello\r\n0\r\n\r\n", b"\r\nhello\r\n0\r\n\r\n", b"10000000000000003\r\nhello\r\n0\r\n\r\n",
)  # fmt: skip


class BodyConformance:
    """How a node reads what is put."""

    def test_a_chunked_body_is_stored(self, node: Reachable) -> None:
        top = fresh()
        status = _put_chunked(node, f"{top}/f", chunked([b"hel", b"lo", b"!" * 70_000]))
        assert (status, ask(node, "GET", f"{top}/f").body) == (200, b"hello" + b"!" * 70_000)

    def test_an_empty_chunked_body_is_an_empty_file(self, node: Reachable) -> None:
        top = fresh()
        status = _put_chunked(node, f"{top}/f", chunked([]))
        assert (status, ask(node, "GET", f"{top}/").listing()) == (200, {"f": [0, 0]})

    def test_chunk_extensions_and_trailers_are_no_part_of_the_file(self, node: Reachable) -> None:
        top = fresh()
        coded = chunked([b"hel", b"lo"], extension=';a=b;c="d"', trailer="X-Sum: 1\r\nX-More: 2\r\n")
        status = _put_chunked(node, f"{top}/f", coded)
        assert (status, ask(node, "GET", f"{top}/f").body) == (200, b"hello")

    def test_the_request_behind_a_chunked_body_is_answered(self, node: Reachable) -> None:
        top = fresh()
        head = request("PUT", f"{top}/f", Transfer_Encoding="chunked")
        with Talk(node) as talk:
            talk.send(head, chunked([b"hello"], trailer="X-Sum: 1\r\n"), request("GET", f"{top}/f"))
            assert (talk.reply("PUT").status, talk.reply().body) == (200, b"hello")

    def test_a_refused_chunked_body_is_drained_and_the_connection_stays(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/f", b"first")
        head = request("PUT", f"{top}/f", Transfer_Encoding="chunked")
        with Talk(node) as talk:
            talk.send(head, chunked([b"GET / HTTP/1.1\r\n\r\n"] * 10_000), request("GET", f"{top}/f"))
            assert (talk.reply("PUT").status, talk.reply().body) == (405, b"first")

    def test_bad_chunks_are_400_and_close_and_nothing_is_stored(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/")
        for coded in BAD_CHUNKS:
            with Talk(node) as talk:
                talk.send(request("PUT", f"{top}/f", Transfer_Encoding="chunked"), coded)
                assert (talk.reply("PUT").status, talk.is_closed()) == (400, True), coded
        assert ask(node, "GET", f"{top}/").listing() == {}

    def test_a_put_without_length_is_411_and_closes(self, node: Reachable) -> None:
        with Talk(node) as talk:
            reply = talk.ask("PUT", f"{fresh()}/f")
            assert (reply.status, talk.is_closed()) == (411, True)

    def test_a_gzip_body_is_stored_decoded(self, node: Reachable) -> None:
        top = fresh()
        body = b"hello" * 100_000
        status = ask(node, "PUT", f"{top}/f", gzip.compress(body), Content_Encoding="gzip").status
        assert (status, ask(node, "GET", f"{top}/f").body == body) == (200, True)

    def test_a_chunked_gzip_body_is_stored_decoded(self, node: Reachable) -> None:
        top = fresh()
        coded = gzip.compress(b"hello")
        status = _put_chunked(node, f"{top}/f", chunked([coded[:7], coded[7:]]), Content_Encoding="gzip")
        assert (status, ask(node, "GET", f"{top}/f").body) == (200, b"hello")

    def test_bad_gzip_is_400_and_nothing_is_stored_and_the_connection_stays(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/")
        whole = gzip.compress(b"hello" * 1000)
        flipped = whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:]  # the checksum
        with Talk(node) as talk:
            for body in (b"not gzip", whole[:-4], flipped):
                assert talk.ask("PUT", f"{top}/f", body, Content_Encoding="gzip").status == 400, body[:20]
            assert talk.ask("GET", f"{top}/").listing() == {}

    def test_another_coding_is_415_and_nothing_is_stored_and_the_connection_stays(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/")
        with Talk(node) as talk:
            for coding in ("br", "deflate", "zstd", "gzip, gzip"):
                assert talk.ask("PUT", f"{top}/f", b"hello", Content_Encoding=coding).status == 415, coding
            assert talk.ask("GET", f"{top}/").listing() == {}

    def test_a_put_that_expects_100_continue_gets_it_then_the_receipt(self, node: Reachable) -> None:
        top = fresh()
        whole = request("PUT", f"{top}/f", b"hello", Expect="100-continue")
        with Talk(node) as talk:
            talk.send(whole[:-5])
            interim = talk.interim()
            talk.send(whole[-5:])
            assert (interim, talk.reply("PUT").status) == (100, 200)
        assert ask(node, "GET", f"{top}/f").body == b"hello"

    def test_a_condemned_put_that_expects_100_continue_gets_the_final_status_and_closes(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/f", b"first")
        wrong = {f"{top}/f": 405, f"{top}/f/below": 409, f"{top}/%00": 400, f"{top}/{'x' * 256}": 414}
        for target, status in wrong.items():
            with Talk(node) as talk:
                talk.send(request("PUT", target, b"hello", Expect="100-continue")[:-5])
                reply = talk.reply("PUT")
                assert (reply.interim, reply.status, talk.is_closed()) == ((), status, True), target

    def test_another_expectation_is_417(self, node: Reachable) -> None:
        assert ask(node, "PUT", f"{fresh()}/f", b"hello", Expect="200-ok").status == 417


def _put_chunked(node: Reachable, target: str, coded: bytes, **headers: str) -> int:
    head = request("PUT", target, None, Transfer_Encoding="chunked", **headers)
    with Talk(node) as talk:
        talk.send(head, coded)
        return talk.reply("PUT").status
