"""What a directory holds."""

from pathlib import Path

from granum_node.storage.store import Store
from granum_node.storage.usage import measure


def test_files_at_every_depth_count_and_links_do_not(tmp_path: Path) -> None:
    (tmp_path / "lab/a/b").mkdir(parents=True)
    (tmp_path / "other").write_bytes(bytes(1000))
    (tmp_path / "lab/f").write_bytes(bytes(1))
    (tmp_path / "lab/a/b/g").write_bytes(bytes(20))
    (tmp_path / "lab/link").symlink_to(tmp_path / "other")
    (tmp_path / "lab/around").symlink_to(tmp_path)
    store = Store.open(str(tmp_path))
    try:
        assert measure(store.tree, "lab") == (21, 2)
    finally:
        store.close()


def test_a_directory_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    try:
        assert measure(store.tree, "lab") == (0, 0)
    finally:
        store.close()
