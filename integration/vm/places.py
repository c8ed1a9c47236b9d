"""Where the roles put things on the machines, and the commands that reach the share from the client machine."""

from integration.vm.lab import Lab
from integration.vm.topology import Machine

STORE = "/srv/granum/data"
UNION = "/srv/granum/union"
CIFS = "/mnt/granum"
SHARE = "granum"
AUTH = "$HOME/smb.auth"  # the shell of the guest says where that is
PORT = 15348
UNIT = "granum-node.service"


def branch(node: Machine) -> str:
    """Return where the gateway has the NFS mount of *node*."""
    return f"/srv/granum/branches/{node.name}"


def url(node: Machine, path: str) -> str:
    """Return where *path* is on *node*."""
    return f"http://{node.address}:{PORT}{path}"


def serves(node: Machine, timeout_s: int = 5) -> str:
    """Return the script that succeeds when *node* answers."""
    return f"curl -sf -o /dev/null --max-time {timeout_s} {url(node, '/__healthz')}"


def write_auth(lab: Lab) -> None:
    """Leave the credentials of the share on the client machine, for its user alone."""
    text = f"username={lab.credentials.user}\npassword={lab.credentials.password}\n"
    lab.run(lab.client, f"umask 077 && cat > {AUTH}", stdin=text.encode())


def smbclient(lab: Lab, commands: str, *options: str) -> str:
    """Return the script that gives *commands* to smbclient, on the client machine."""
    return f"smbclient //{lab.gateway.address}/{SHARE} -A {AUTH} {' '.join(options)} -c '{commands}'"


def mount_share(lab: Lab) -> None:
    """Mount the share on the client machine, as cifs, when it is not."""
    options = f"credentials={AUTH},vers=3.0,actimeo=1,soft"
    mount = f"sudo mount -t cifs //{lab.gateway.address}/{SHARE} {CIFS} -o {options}"
    lab.run(lab.client, f"sudo mkdir -p {CIFS} && (mountpoint -q {CIFS} || {mount})")


def sums(directory: str) -> str:
    """Return the script that prints the SHA-256 of every frame's file in *directory*, which only root and granum may read."""
    return f"sudo sh -c 'cd {directory} && sha256sum frame*.pzf'"
