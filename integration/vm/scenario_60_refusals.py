"""What must be refused: writing anywhere on union or share, NFS for machines that are not the gateway, old SMB, guests."""

from integration.vm.board import expect, scenario
from integration.vm.lab import Lab
from integration.vm.places import CIFS, STORE, UNION, branch, mount_share, smbclient
from integration.vm.scenario_10_reading import SERIES, stored_series

FRAME = f"{SERIES}.pcs/frame00000.pzf"
# Each tries to change something and must end with an error. The three opens are three ways into a file that exists.
WRITES = (
    "touch {top}/new",
    "mkdir {top}/newdir",
    "rm -f {top}{frame} && ! test -e {top}{frame}",
    "mv {top}{frame} {top}{frame}.moved",
    "chmod 777 {top}{frame}",
    "ln {top}{frame} {top}/link",
    "dd if=/dev/zero of={top}{frame} bs=1 count=1 conv=notrunc,nocreat",
    "dd if=/dev/zero of={top}{frame} bs=1 count=1 conv=notrunc,nocreat oflag=append",
    "truncate -s 0 {top}{frame}",
)


@scenario("writes refused", claims="nobody, root included, changes anything on union, branch or share", bound_s=180)
def writes_refused(lab: Lab) -> str:
    """Try it with root's power, on each way in."""
    stored_series(lab)
    mount_share(lab)
    tried = 0
    for machine, top in ((lab.gateway, UNION), (lab.gateway, branch(lab.nodes[0])), (lab.client, CIFS)):
        frame = FRAME
        if top == branch(lab.nodes[0]):
            name = lab.run(machine, f"sudo ls {top}{SERIES}.pcs | grep ^frame | head -n 1").strip()
            frame = f"{SERIES}.pcs/{name}"
        before = lab.run(machine, f"sudo sha256sum {top}{frame}")
        for write in WRITES:
            if top == CIFS and write.startswith("chmod"):
                continue  # the kernel keeps to itself what the share has no notion of
            done = lab.try_run(machine, f"sudo sh -c '{write.format(top=top, frame=frame)}'")
            expect(done.returncode != 0, f"{machine.name}: '{write.format(top=top, frame=frame)}' was let through")
            tried += 1
        expect(lab.run(machine, f"sudo sha256sum {top}{frame}") == before, f"{machine.name}: {top}{frame} has changed")
    for command in ("put /etc/hostname new", "mkdir newdir", f"del {FRAME[1:]}", f"rename {FRAME[1:]} moved"):
        done = lab.try_run(lab.client, smbclient(lab, command))
        expect("NT_STATUS_" in done.stdout + done.stderr, f"smbclient '{command}' was let through")
        tried += 1
    return f"{tried}/{tried} ways refused"


@scenario("strangers refused", claims="NFS for the gateway only; no SMB1, SMB2 or guest", bound_s=180)
def strangers_refused(lab: Lab) -> str:
    """Try it from the client machine, which may put and get over HTTP."""
    for node in lab.nodes:
        mount = f"sudo timeout 40 mount -t nfs4 -o ro,soft,timeo=50,retrans=1,retry=0 {node.address}:{STORE} /mnt"
        done = lab.try_run(lab.client, mount, timeout_s=60)
        expect(done.returncode != 0, f"{node.name} let the client machine mount its store")
    for options in ("--max-protocol=NT1", "--max-protocol=SMB2_10"):
        done = lab.try_run(lab.client, smbclient(lab, "ls", "--option='client min protocol = NT1'", options))
        expect(done.returncode != 0, f"smbclient {options} was let in")
    for guest in ("--no-pass", "--user=nobody%", "--user=guest%guest"):
        done = lab.try_run(lab.client, f"smbclient //{lab.gateway.address}/granum {guest} -c ls")
        expect(done.returncode != 0, f"smbclient {guest} was let in")
    lab.run(lab.client, smbclient(lab, "ls"))  # or all of this would prove nothing
    return f"{len(lab.nodes)} exports, 2 old protocols, 3 guests refused; the user is let in"
