"""GET and HEAD: files, listings, redirects, endpoints, and the headers of every reply."""

# ruff: noqa: D102 - the name of a test says what it claims

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

from granum.testing.conformance.talk import Reachable, Reply, Talk, ask, fresh, put


class ReadingConformance:
    """What a node answers to those who read."""

    def test_a_file_is_answered_with_its_bytes_and_length(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/f.txt", b"hello")
        reply = ask(node, "GET", f"{top}/f.txt")
        assert (reply.status, reply.headers["content-length"], reply.body) == (200, "5", b"hello")

    def test_head_of_a_file_has_the_headers_of_get(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/f.txt", b"hello")
        assert _told_by_head(node, f"{top}/f.txt") == _told_by_get(node, f"{top}/f.txt")

    def test_head_of_a_listing_has_the_headers_of_get(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/f.txt", b"hello")
        assert _told_by_head(node, f"{top}/") == _told_by_get(node, f"{top}/")

    def test_head_of_a_directory_without_slash_has_the_headers_of_get(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/")
        assert _told_by_head(node, top) == _told_by_get(node, top)

    def test_head_of_a_missing_file_has_the_headers_of_get(self, node: Reachable) -> None:
        missing = fresh()
        assert _told_by_head(node, missing) == _told_by_get(node, missing)

    def test_content_type_follows_the_extension(self, node: Reachable) -> None:
        top = fresh()
        names = ("a.json", "a.txt", "a.pzf", "a.h5r", "a")
        for name in names:
            put(node, f"{top}/{name}", b"1")
        answered = [ask(node, "GET", f"{top}/{name}").headers["content-type"].partition(";")[0] for name in names]
        octets = "application/octet-stream"
        assert answered == ["application/json", "text/plain", octets, octets, octets]

    def test_last_modified_is_a_date_not_in_the_future(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/f", b"1")
        headers = ask(node, "GET", f"{top}/f").headers
        assert parsedate_to_datetime(headers["last-modified"]) <= parsedate_to_datetime(headers["date"])

    def test_an_empty_file_is_answered_with_length_0(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/empty", b"")
        reply = ask(node, "GET", f"{top}/empty")
        assert (reply.status, reply.headers["content-length"], reply.body) == (200, "0", b"")

    def test_a_part_of_a_file_is_206_and_says_which(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/f", b"hello.")
        replies = [ask(node, "GET", f"{top}/f", Range=wanted) for wanted in ("bytes=2-4", "bytes=4-", "bytes=0-99")]
        assert [(reply.status, reply.headers["content-range"], reply.body) for reply in replies] == [
            (206, "bytes 2-4/6", b"llo"),
            (206, "bytes 4-5/6", b"o."),
            (206, "bytes 0-5/6", b"hello."),
        ]

    def test_a_part_behind_the_end_is_416_and_says_the_size(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/f", b"hello.")
        reply = ask(node, "GET", f"{top}/f", Range="bytes=6-7")
        assert (reply.status, reply.headers["content-range"]) == (416, "bytes */6")

    def test_a_file_names_the_digest_of_its_bytes(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/f", b"first light\n")
        reply = ask(node, "GET", f"{top}/f")
        assert reply.headers["granum-digest"] == "xxh3-128=3bc103bd753460ea501629d3e770ada3"

    def test_a_directory_without_slash_is_redirected(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/one/")
        reply = ask(node, "GET", f"{top}/one")
        answered = (reply.status, reply.headers["location"], reply.headers["content-length"], reply.body)
        assert answered == (301, f"{top}/one/", "0", b"")

    def test_a_redirect_names_the_directory_in_normal_form(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/b%20%C3%B6/")
        reply = ask(node, "GET", f"/{top}//./b%20%C3%B6")
        assert (reply.status, reply.headers["location"]) == (301, f"{top}/b%20%C3%B6/")

    def test_a_listing_maps_names_to_exactly_flags_and_size(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/f.txt", b"hello")
        put(node, f"{top}/sub/a", b"1")
        put(node, f"{top}/sub/b", b"2")
        put(node, f"{top}/sub/deep/c", b"3")
        reply = ask(node, "GET", f"{top}/")
        assert reply.status == 200
        assert reply.headers["content-type"] == "application/json; charset=utf-8"
        assert reply.listing() == {"f.txt": [0, 5], "sub/": [1, 3]}

    def test_dot_files_and_index_html_are_listed_like_any_other(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/.zattrs", b"{}")
        put(node, f"{top}/index.html", b"<p>")
        assert ask(node, "GET", f"{top}/").listing() == {".zattrs": [0, 2], "index.html": [0, 3]}

    def test_the_root_has_a_listing(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/f", b"1")
        assert ask(node, "GET", "/").listing()[f"{top[1:]}/"] == [1, 1]

    def test_a_directory_with_metadata_has_the_flag_of_a_series(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/run/metadata.json", b"{}")
        assert ask(node, "GET", f"{top}/").listing() == {"run/": [3, 1]}

    def test_a_series_with_events_has_the_flag_of_a_complete_one(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/run/metadata.json", b"{}")
        put(node, f"{top}/run/events.json", b"[]")
        assert ask(node, "GET", f"{top}/").listing() == {"run/": [7, 2]}

    def test_a_missing_file_is_404(self, node: Reachable) -> None:
        assert ask(node, "GET", f"{fresh()}/f").status == 404

    def test_a_missing_directory_is_404(self, node: Reachable) -> None:
        assert ask(node, "GET", f"{fresh()}/").status == 404

    def test_a_file_with_trailing_slash_is_404(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/f", b"1")
        assert ask(node, "GET", f"{top}/f/").status == 404

    def test_a_name_below_a_file_is_404(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/f", b"1")
        assert ask(node, "GET", f"{top}/f/below").status == 404

    def test_status_is_a_json_object(self, node: Reachable) -> None:
        reply = ask(node, "GET", "/__status")
        assert (reply.status, type(reply.listing())) == (200, dict)

    def test_healthz_says_ok(self, node: Reachable) -> None:
        reply = ask(node, "GET", "/__healthz")
        assert (reply.status, reply.body) == (200, b"ok\n")

    def test_every_reply_names_server_date_and_the_one_node_id(self, node: Reachable) -> None:
        replies = _one_of_each(node, fresh())
        assert sorted(replies) == [200, 301, 400, 404, 405, 409, 411, 414, 415, 501]
        assert [status for status, reply in replies.items() if not reply.headers.get("server")] == []
        assert {parsedate_to_datetime(reply.headers["date"]).tzinfo for reply in replies.values()} == {UTC}
        assert len({reply.headers["granum-node"] for reply in replies.values()}) == 1

    def test_an_error_is_one_sentence_of_plain_text(self, node: Reachable) -> None:
        errors = [reply for status, reply in _one_of_each(node, fresh()).items() if status >= 400]
        assert {reply.headers["content-type"].partition(";")[0] for reply in errors} == {"text/plain"}
        assert [reply.body for reply in errors if len(reply.body.decode().splitlines()) != 1] == []

    def test_no_error_tells_a_path_of_the_host(self, node: Reachable) -> None:
        top = fresh()
        for status, reply in _one_of_each(node, top).items():
            text = reply.body.decode()
            beyond = re.sub(rf"{top}[^\s'\"]*", "", text)  # the cluster path that the client itself named
            assert status < 400 or re.search(r"/\w", beyond) is None, text


def _told_by_get(node: Reachable, target: str) -> tuple[int, dict[str, str]]:
    return _without_date(ask(node, "GET", target))


def _told_by_head(node: Reachable, target: str) -> tuple[int, dict[str, str]]:
    with Talk(node) as talk:
        talk.send(f"HEAD {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        reply = talk.reply("HEAD")
        assert talk.is_closed(), "HEAD was answered with a body"
    return _without_date(reply)


def _without_date(reply: Reply) -> tuple[int, dict[str, str]]:
    return reply.status, {name: value for name, value in reply.headers.items() if name not in {"date", "connection"}}


def _one_of_each(node: Reachable, top: str) -> dict[int, Reply]:
    put(node, f"{top}/f", b"1")
    replies = [
        ask(node, "GET", f"{top}/f"),
        ask(node, "GET", top),
        ask(node, "GET", f"{top}/missing"),
        ask(node, "GET", f"{top}/%00"),
        ask(node, "PUT", f"{top}/f", b"2"),
        ask(node, "PUT", f"{top}/f/below", b"2"),
        ask(node, "PUT", f"{top}/unsized"),
        ask(node, "PUT", f"{top}/{'x' * 256}", b"2"),
        ask(node, "PUT", f"{top}/coded", b"2", Content_Encoding="br"),
        ask(node, "DELETE", f"{top}/f"),
    ]
    return {reply.status: reply for reply in replies}
