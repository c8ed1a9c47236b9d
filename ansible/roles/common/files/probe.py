"""Say, as one JSON document, what a machine is like before anything on it is changed.

It runs from standard input under the machine's own Python (3.9 or newer), with the standard library alone, and changes
nothing. One program instead of ten tasks: each task costs a connection. Arguments: the data disk's mount point, the address
that is to be advertised, the interpreter that granum is to run on, the networks that may talk to nodes, as JSON.
"""

import ipaddress
import json
import os
import platform
import shutil
import socket
import struct
import subprocess
import sys
import time

PREFIX = "/opt/granum"
COMPLETE = ".complete"  # the last file of an installation
SENTINEL = ".granum-disk"  # on the data disk, so that an unmounted one is told from an empty one
MDNS = ("224.0.0.251", 5353)
HEARD_WITHIN_S = 2  # the kernel hands our own datagram back at once, unless something drops it


def main(disk, address, python, networks):
    """Print what is found."""
    current = os.path.join(PREFIX, "current")
    print(
        json.dumps(
            {
                "now": time.time(),
                "systemd": os.path.isdir("/run/systemd/system"),
                "python": version_of(python),
                "machine": platform.machine(),
                "versions": [name for name in listed(PREFIX) if os.path.exists(os.path.join(PREFIX, name, COMPLETE))],
                "current": os.path.basename(os.path.realpath(current)) if os.path.islink(current) else "",
                "disk_is_mount": os.path.ismount(disk),
                "disk_is_known": os.path.exists(os.path.join(disk, SENTINEL)),
                "disk_free": free(disk),
                "opt_free": free("/opt"),
                "configured": os.path.exists("/etc/granum/node.yaml"),
                "firewalld": os.path.exists("/run/firewalld"),
                "multicast": multicast(address),
                "access": access(address, json.loads(networks)),
            }
        )
    )


def access(address, networks):
    """Return what nodes let *address* do, 'rw', 'ro' or nothing: the narrowest of the *networks* that it lies in counts."""
    own = [(ipaddress.ip_network(each["cidr"], strict=False), each["access"]) for each in networks]
    own = [(network.prefixlen, may) for network, may in own if address and ipaddress.ip_address(address) in network]
    return max(own, key=lambda pair: pair[0])[1] if own else ""


def version_of(python):
    """Return '3.11' and the like; '' when there is no such interpreter yet."""
    if shutil.which(python) is None:
        return ""
    command = (python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
    said = subprocess.run(command, check=False, capture_output=True, text=True)
    return said.stdout.strip()


def listed(directory):
    """Return the names in *directory*; none when it is not there."""
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def free(path):
    """Return the bytes that are free where *path* lies, or will lie."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def multicast(address):
    """Send an mDNS query from *address* and wait for it to come back; return '', or why it did not."""
    question = b"\x0a_pyme-http\x04_tcp\x05local\x00"
    query = struct.pack("!6H", 0, 0, 1, 0, 0, 0) + question + struct.pack("!2H", 12, 1)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            end.bind(("", MDNS[1]))
            interface = socket.inet_aton(address)
            end.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(MDNS[0]) + interface)
            end.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
            end.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
            end.settimeout(HEARD_WITHIN_S)
            end.sendto(query, MDNS)
            until = time.monotonic() + HEARD_WITHIN_S
            while time.monotonic() < until:
                if question in end.recvfrom(9000)[0]:
                    return ""
    except OSError as error:
        return str(error)
    return "only other packets came"


if __name__ == "__main__":
    main(*sys.argv[1:])
