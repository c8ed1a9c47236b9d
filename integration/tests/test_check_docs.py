"""The documents' check: it passes what is true, and it can fail."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tools import check_docs, markdown, tree
from tools.check_docs import Mismatch, Tally
from tools.markdown import BadDocument


def checked(tmp_path: Path, text: str) -> Tally:
    """Run a page with the check's own code and return what it counted."""
    page = tmp_path / "page.md"
    page.write_text(textwrap.dedent(text), encoding="utf-8")
    tally = Tally()
    check_docs.check_document(str(page), "page.md", tally)
    return tally


def running(word: str) -> bool:
    """Tell whether a process with *word* in its command line is there."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in process.read_bytes():
                return True
        except OSError:
            continue
    return False


# -- what is true passes ---------------------------------------------------------------------------------------------


def test_a_command_that_prints_what_the_page_shows_passes(tmp_path: Path) -> None:
    """Output is compared without its blank edges, and counted."""
    assert checked(tmp_path, "```console\n$ echo one; echo two\none\ntwo\n```\n").commands == 1


def test_the_shell_of_a_page_lives_from_block_to_block(tmp_path: Path) -> None:
    """A directory and a variable made in one block are there in the next."""
    page = """\
        ```console
        $ mkdir made && cd made && colour=blue
        ```

        ```console
        $ echo $colour in $(basename "$PWD")
        blue in made
        ```
        """
    assert checked(tmp_path, page).commands == 2


def test_a_page_stands_in_the_checkout_as_its_reader_does(tmp_path: Path) -> None:
    """The environment can be activated and files are there; new ones stay out of the checkout."""
    page = "```console\n$ . .venv/bin/activate\n$ command -v python\n.../bin/python\n```\n"
    page += "```console\n$ head -c 5 LICENSE > copy; wc -c < copy\n5\n```\n"
    assert checked(tmp_path, page).commands == 3
    assert not os.path.exists(os.path.join(tree.ROOT, "copy"))


def test_dots_stand_for_anything_even_nothing(tmp_path: Path) -> None:
    """Sizes, ports and times may change without the page being wrong."""
    page = "```console\n$ echo took 17 ms\ntook ... ms\n$ true\n...\n$ printf 'a\\nb\\nc\\n'\na\n...\nc\n```\n"
    assert checked(tmp_path, page).commands == 3


def test_a_command_goes_on_over_several_lines(tmp_path: Path) -> None:
    """After a backslash, and after the shell's own second prompt."""
    page = "```console\n$ echo one \\\n    two\none two\n$ cat <<END\n> three\n> END\nthree\n```\n"
    assert checked(tmp_path, page).commands == 2


def test_a_daemon_is_waited_for_and_ended_with_its_page(tmp_path: Path) -> None:
    """It prints late, answers the next command, keeps its log to itself, and is gone afterwards."""
    daemon = f"{sys.executable} -c \"import time; time.sleep(.3); print('up', flush=True); time.sleep(60)\" {tmp_path.name}-one &"
    page = f"```console\n$ {daemon}\nup\n$ kill -0 $! && echo still there\nstill there\n```\n"
    assert checked(tmp_path, page).commands == 2
    assert not running(f"{tmp_path.name}-one")


def test_a_daemon_that_ignores_the_polite_signal_is_ended_too(tmp_path: Path) -> None:
    """Nothing that a page started outlives it, not even when the page fails."""
    daemon = f"(trap '' TERM; exec sleep 61.{os.getpid()}) &"
    with pytest.raises(Mismatch):
        checked(tmp_path, f"```console\n$ {daemon}\n$ false\n```\n")
    assert not running(f"61.{os.getpid()}")


def test_a_snippet_runs_beside_the_commands_and_its_output_counts(tmp_path: Path) -> None:
    """It sees the files and variables of the page's shell."""
    page = """\
        ```console
        $ echo hello > greeting.txt; export WHO=you
        ```

        ```python
        import os
        print(open("greeting.txt").read().strip(), os.environ["WHO"])
        ```

        <!-- check: output -->
        ```text
        hello you
        ```
        """
    tally = checked(tmp_path, page)
    assert (tally.commands, tally.snippets) == (1, 1)


def test_a_skipped_block_is_counted_with_its_reason(tmp_path: Path) -> None:
    """What is not run is not forgotten."""
    page = "<!-- check: skip installs packages -->\n```console\n$ false\n```\n"
    assert checked(tmp_path, page).skipped == ["page.md:3 installs packages"]


def test_a_page_that_needs_an_absent_program_is_skipped_with_its_name(tmp_path: Path) -> None:
    """A bare machine checks what it can and says what it cannot."""
    page = "<!-- check: needs sh no-such-program -->\n\n# Title\n\n```console\n$ false\n```\n"
    assert checked(tmp_path, page).skipped == ["page.md, the whole page: no-such-program not installed"]


def test_a_block_that_needs_an_absent_program_is_skipped_alone(tmp_path: Path) -> None:
    """The rest of its page is run."""
    page = "<!-- check: needs no-such-program -->\n```console\n$ false\n```\nthen\n```console\n$ true\n```\n"
    tally = checked(tmp_path, page)
    assert (tally.commands, tally.skipped) == (1, ["page.md:3 no-such-program not installed"])


def test_a_page_whose_programs_are_there_is_run(tmp_path: Path) -> None:
    """'needs' is no way around the check."""
    with pytest.raises(Mismatch, match="exit status"):
        checked(tmp_path, "<!-- check: needs sh -->\n\n# Title\n\n```console\n$ false\n```\n")


def test_the_last_command_of_a_failing_block_must_fail(tmp_path: Path) -> None:
    """Its message is compared like any other output."""
    page = "<!-- check: fails -->\n```console\n$ true\n$ cat absent\ncat: absent: No such file or directory\n```\n"
    assert checked(tmp_path, page).commands == 2


def test_a_page_sees_nothing_of_the_configuration_of_who_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Home, temporary directory and granum's own settings are those of a new user."""
    monkeypatch.setenv("GRANUM_CLUSTER", "mine")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/etc")
    page = '```console\n$ echo "[$GRANUM_CLUSTER]"\n[]\n$ ls -A "$HOME" | wc -w\n0\n$ test "$XDG_CONFIG_HOME" != /etc\n```\n'
    assert checked(tmp_path, page).commands == 3


# -- what is not true fails ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("```console\n$ echo one\ntwo\n```", r"page.md:2\n  \$ echo one\n  expected:\n    \| two\n  got:\n    \| one"),
        ("```console\n$ echo surprise\n```", r"expected:\n    \(nothing\)\n  got:\n    \| surprise"),
        ("```console\n$ sh -c 'echo why; exit 3'\nwhy\n```", r"expected 0, got 3; it printed:\n    \| why"),
        ("```console\n$ exit 0\n```", "ended the shell"),
        ("<!-- check: fails -->\n```console\n$ true\n```", "expected an error, got 0"),
        ("```python\nraise SystemExit('broken')\n```", r"page.md:2\n(.|\n)*\| broken"),
        ("```python\nprint(1)\n```\n<!-- check: output -->\n```text\n2\n```", r"expected:\n    \| 2\n  got:\n    \| 1"),
    ],
)
def test_a_page_that_does_not_tell_the_truth_fails(tmp_path: Path, page: str, complaint: str) -> None:
    """The report has the page, the line, the command, what was expected and what came."""
    with pytest.raises(Mismatch, match=complaint):
        checked(tmp_path, page)


def test_a_command_that_hangs_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And does not hang the check."""
    monkeypatch.setattr(check_docs, "COMMAND_S", 0.2)
    with pytest.raises(Mismatch, match=r"took longer than 0.2 s"):
        checked(tmp_path, "```console\n$ sleep 60\n```")


def test_a_daemon_that_never_says_it_is_up_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait for its first words has an end."""
    monkeypatch.setattr(check_docs, "READY_S", 0.2)
    with pytest.raises(Mismatch, match="up"):
        checked(tmp_path, "```console\n$ sleep 60 &\nup\n```")


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("```bash\nrm -rf x\n```", "a ```bash block is not checked"),
        ("```console\nls\n```", "begins with"),
        ("```console\n$ ls\n", "never closed"),
        ("<!-- check: skip -->\n```console\n$ ls\n```", "needs a reason"),
        ("<!-- check: ignore this -->\n```console\n$ ls\n```", "unknown directive"),
        ("<!-- check: fails -->\nwords\n```console\n$ ls\n```", "right above"),
    ],
)
def test_a_page_that_would_escape_the_check_is_refused(tmp_path: Path, page: str, complaint: str) -> None:
    """A typing mistake must not switch a check off."""
    with pytest.raises(BadDocument, match=complaint):
        checked(tmp_path, page)


# -- links -----------------------------------------------------------------------------------------------------------


def test_links_to_files_headings_and_the_outside_pass(tmp_path: Path) -> None:
    """Only those that stay in the repository are counted; code is not read for links."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "other.md").write_text("# The `node`'s life (2)\n# Twice\n# Twice\n<a id='own'></a>\n")
    page = "# Top\n[a](docs/other.md#the-nodes-life-2) [b](#top) [c](docs/) [d](https://example.org/x) `[e](absent)`\n"
    page += "[f](/docs/other.md#twice-1) [g][ref] ![h](docs/other.md#own 'title')\n\n[ref]: docs/other.md\n"
    (tmp_path / "page.md").write_text(page)
    assert check_docs.check_links(str(tmp_path), "page.md") == 6


@pytest.mark.parametrize("link", ["absent.md", "page.md#absent", "#absent", "../outside.md", "/absent"])
def test_a_link_that_leads_nowhere_fails(tmp_path: Path, link: str) -> None:
    """Also one that leads out of the repository to something that happens to be there."""
    (tmp_path / "outside.md").write_text("")
    root = tmp_path / "root"
    root.mkdir()
    (root / "page.md").write_text(f"# Top\n\n[x]({link})\n")
    with pytest.raises(Mismatch, match=r"page.md:3 links to"):
        check_docs.check_links(str(root), "page.md")


def test_headings_in_code_are_no_headings() -> None:
    """A comment in a console block is not a place to link to."""
    assert markdown.anchors("# One\n```console\n$ ls\n# Two\n```\n") == {"one"}


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_did_and_fails_loudly(tmp_path: Path) -> None:
    """One wrong page among right ones: all are run, the report names the wrong one, the status is 1."""
    (tmp_path / "README.md").write_text("```console\n$ echo one\ntwo\n```\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "right.md").write_text("```console\n$ true\n```\n[x](../README.md)\n")
    subprocess.run(("git", "init", "-q"), cwd=tmp_path, check=True)
    program = (
        f"import sys; from tools import check_docs, tree; tree.ROOT = {str(tmp_path)!r}; sys.exit(check_docs.main())"
    )
    ran = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stdout == "docs: 1 commands, 0 snippets, 1 links, 0 skipped, 1 documents FAILED\n"
    assert "docs: FAILED README.md:2\n  $ echo one\n  expected:\n    | two\n  got:\n    | one\n" in ran.stderr
