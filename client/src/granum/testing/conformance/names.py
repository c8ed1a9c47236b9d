"""Names in request targets: which are one and the same, which are refused, which characters survive."""

# ruff: noqa: D102 - the name of a test says what it claims

from granum.testing.conformance.talk import Reachable, ask, fresh, put

BAD_NAMES = (
    "..", "%2e%2e", ".%2E", "a%2fb", "a%2Fb", "%00", "a%00b", "%01", "a%0Ab", "a%7F", "a%C2%85", "a%E2%80%A8",
    "a\\b", "a%5Cb", ".granum", "%2egranum", "%zz", "a%", "a%4",
)  # fmt: skip
BAD_AT_THE_TOP = (
    "/__x",
    "/__x/f",
    "//__x/f",
    "/./__x/f",
    "/%5F_x/f",
    "/__status/",
    "/__",
    "/..",
    "/../f",
    "/.granum/f",
)


class NameConformance:
    """How a node reads request targets."""

    def test_percent_encoded_names_are_decoded_once(self, node: Reachable) -> None:
        top = fresh()
        for name in ("a%20b.txt", "f%2Etxt", "%C3%B6.txt", "100%25", "%2525", "q%3Fx%23y", "a%3Ab+c"):
            put(node, f"{top}/{name}", b"1")
        listed = sorted(ask(node, "GET", f"{top}/").listing())
        assert listed == ["%25", "100%", "a b.txt", "a:b+c", "f.txt", "q?x#y", "ö.txt"]

    def test_a_file_is_found_by_each_spelling_of_its_name(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/f.txt", b"hello")
        for spelling in ("f.txt", "f%2Etxt", "%66.txt", "./f.txt", "%2E/f.txt"):
            assert ask(node, "GET", f"{top}/{spelling}").body == b"hello", spelling

    def test_raw_utf8_in_the_request_line_is_read_as_utf8(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/zelle-ä-細胞.txt".encode(), b"hello")
        assert ask(node, "GET", f"{top}/").listing() == {"zelle-ä-細胞.txt": [0, 5]}

    def test_bytes_that_are_not_utf8_are_read_as_latin1(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/".encode() + b"\xe4.txt", b"hello")
        assert ask(node, "GET", f"{top}/%C3%A4.txt").body == b"hello"

    def test_encoded_bytes_that_are_not_utf8_are_read_as_latin1(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/%E4.txt", b"hello")
        assert ask(node, "GET", f"{top}/").listing() == {"ä.txt": [0, 5]}

    def test_double_slashes_are_single_ones(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/a/f", b"hello")
        assert ask(node, "GET", f"{top}//a///f").body == b"hello"

    def test_a_double_slash_at_the_start_is_a_single_one(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"/{top}//a/f", b"hello")
        assert ask(node, "GET", f"{top}/a/f").body == b"hello"

    def test_a_double_slash_at_the_start_names_a_file_in_the_root(self, node: Reachable) -> None:
        name = fresh()
        put(node, f"/{name}", b"hello")
        assert ask(node, "GET", name).body == b"hello"

    def test_the_query_is_no_part_of_a_name(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/q.txt?x=1", b"hello")
        assert ask(node, "GET", f"{top}/").listing() == {"q.txt": [0, 5]}

    def test_the_absolute_form_names_the_same_file(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/f", b"hello")
        assert ask(node, "GET", f"http://localhost{top}/f").body == b"hello"

    def test_bad_names_are_refused_by_put_and_nothing_is_made(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/")
        statuses = {name: ask(node, "PUT", f"{top}/{name}", b"1").status for name in BAD_NAMES}
        assert statuses == dict.fromkeys(BAD_NAMES, 400)
        assert ask(node, "GET", f"{top}/").listing() == {}

    def test_bad_names_of_directories_are_refused_by_put_and_nothing_is_made(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/")
        statuses = {name: ask(node, "PUT", f"{top}/{name}/f", b"1").status for name in BAD_NAMES}
        assert statuses == dict.fromkeys(BAD_NAMES, 400)
        assert ask(node, "GET", f"{top}/").listing() == {}

    def test_bad_names_are_refused_by_get_and_head(self, node: Reachable) -> None:
        top = fresh()
        got = {name: ask(node, "GET", f"{top}/{name}").status for name in BAD_NAMES}
        headed = {name: ask(node, "HEAD", f"{top}/{name}").status for name in BAD_NAMES}
        assert (got, headed) == (dict.fromkeys(BAD_NAMES, 400), dict.fromkeys(BAD_NAMES, 400))

    def test_reserved_names_at_the_top_are_refused(self, node: Reachable) -> None:
        statuses = {target: ask(node, "PUT", target, b"1").status for target in BAD_AT_THE_TOP}
        assert statuses == dict.fromkeys(BAD_AT_THE_TOP, 400)

    def test_names_with_two_underscores_are_plain_ones_below_the_top(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/__x", b"hello")
        assert ask(node, "GET", f"{top}/__x").body == b"hello"

    def test_a_name_of_255_bytes_is_stored(self, node: Reachable) -> None:
        top = fresh()
        put(node, f"{top}/{'x' * 255}", b"1")
        assert ask(node, "GET", f"{top}/").listing() == {"x" * 255: [0, 1]}

    def test_a_name_of_256_bytes_is_414(self, node: Reachable) -> None:
        assert ask(node, "PUT", f"{fresh()}/{'x' * 256}", b"1").status == 414

    def test_a_name_is_measured_in_bytes(self, node: Reachable) -> None:
        assert ask(node, "PUT", f"{fresh()}/{'%C3%B6' * 128}", b"1").status == 414

    def test_a_path_of_64_levels_is_stored(self, node: Reachable) -> None:
        target = fresh() + "/d" * 62 + "/f"
        put(node, target, b"hello")
        assert ask(node, "GET", target).body == b"hello"

    def test_a_path_of_65_levels_is_414(self, node: Reachable) -> None:
        assert ask(node, "PUT", fresh() + "/d" * 63 + "/f", b"1").status == 414

    def test_a_path_of_more_than_4000_bytes_is_414(self, node: Reachable) -> None:
        assert ask(node, "PUT", fresh() + f"/{'x' * 250}" * 16, b"1").status == 414
