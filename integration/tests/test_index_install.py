"""Installing from a package index, as the roles do where `granum_wheelhouse` is empty: their own tasks, a real pip, an index.

What it writes below /etc, /opt and /usr goes into layers over these, in a mount namespace that ends with it.
"""

import functools
import http.server
import importlib.util
import json
import os
import platform
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.deploy_tools import ENVIRONMENT, ROOT
from tools.environments import INTERPRETER
from tools.wheelhouse import HERE, wheelhouse

# In layers, so that nothing of this machine changes: $1 is where they lie, the rest is the command.
LAYERED = """
set -eu
layers=$1
shift
mount -t tmpfs tmpfs "$layers"
for top in etc opt usr; do
  mkdir "$layers/$top" "$layers/$top.work"
  mount -t overlay overlay -o "lowerdir=/$top,upperdir=$layers/$top,workdir=$layers/$top.work" "/$top"
done
"$@" && status=0 || status=$?
ls /opt/granum/current/.complete && /opt/granum/current/bin/granum --version
exit $status
"""
PLAYBOOK = [
    {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "tasks": [
            {
                "name": "Install granum",
                "ansible.builtin.import_role": {"name": "granum.cluster.common", "tasks_from": "software.yml"},
            }
        ],
    }
]
INSTALL_S = 300

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="layers over /etc, /opt and /usr take root"),
    pytest.mark.skipif(not ENVIRONMENT.exists(), reason="make deploy-tools installs ansible"),
    pytest.mark.skipif(importlib.util.find_spec("ensurepip") is None, reason="the package python3-venv is missing"),
]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with granum's wheel and all that it needs."""
    into = tmp_path_factory.mktemp("wheelhouse")
    (archive,) = wheelhouse((HERE,), platform.machine(), "", tree=False, into=into)
    (into / "content").mkdir()
    subprocess.run(("tar", "-xf", str(archive), "-C", str(into / "content")), check=True)
    return into / "content" / "wheels"


@pytest.fixture
def index(wheels: Path, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """An index of these wheels, as the directory it serves and the URL that pip is given."""
    for wheel in wheels.glob("*.whl"):
        project = re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
        (tmp_path / "simple" / project).mkdir(parents=True, exist_ok=True)
        (tmp_path / "simple" / project / wheel.name).write_bytes(wheel.read_bytes())

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name there
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield tmp_path / "simple", f"http://127.0.0.1:{server.server_address[1]}/simple"
    finally:
        server.shutdown()
        server.server_close()
        serving.join()


def install(url: str, scratch: Path) -> "subprocess.CompletedProcess[str]":
    """Run the role's tasks against the index at *url*; the end of what it prints is what is installed."""
    (scratch / "layers").mkdir()
    (scratch / "play.yml").write_text(json.dumps(PLAYBOOK))
    probed = {"versions": [], "current": "", "python": HERE, "machine": platform.machine()}
    variables = {"granum_wheelhouse": "", "common_probe": probed, "common_python": INTERPRETER}
    ours = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "ANSIBLE_"))}
    # No cache, and no settings of this machine: everything comes from the index, or nothing does.
    environment = ours | {"PIP_INDEX_URL": url, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
    environment["ANSIBLE_CONFIG"] = str(ROOT / "ansible" / "ansible.cfg")
    play = (str(ENVIRONMENT / "bin" / "ansible-playbook"), "-e", json.dumps(variables), str(scratch / "play.yml"))
    command = ("unshare", "--mount", "sh", "-c", LAYERED, "sh", str(scratch / "layers"), *play)
    return subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=ROOT / "ansible", env=environment, timeout=INSTALL_S
    )


def test_granum_installs_from_an_index(index: tuple[Path, str], tmp_path: Path) -> None:
    """The version of this checkout, complete, and nothing of it outside of the layers."""
    done = install(index[1], tmp_path)
    assert done.returncode == 0, done.stdout[-2000:]
    assert done.stdout.splitlines()[-2:] == ["/opt/granum/current/.complete", "granum 0.1.0"]


def test_a_package_that_is_not_what_the_lock_says_is_not_installed(index: tuple[Path, str], tmp_path: Path) -> None:
    """One byte more in one of them."""
    (wheel,) = (index[0] / "click").iterdir()
    with wheel.open("ab") as file:
        file.write(b"\0")
    done = install(index[1], tmp_path)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stdout
    assert ".complete" not in done.stdout.splitlines()[-1]
