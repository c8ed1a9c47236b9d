#!/bin/bash
# Make the root file system of a lab's machines from Debian packages: root.sh DIRECTORY
# Leaves DIRECTORY/root.tar. Virtual machines (box.sh) and the containers of ansible/extensions/molecule are made of it.
# Needs root, and mmdebstrap.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: root.sh DIRECTORY}
suite=bookworm
mkdir -p "$out"
out=$(cd "$out" && pwd)

((EUID == 0)) || { echo "root: it takes root to make a file system with devices in it" >&2; exit 1; }

# Made already, from this very recipe?
recipe=$(cat "$here/root.sh" "$here/packages.txt" | sha256sum | cut -d' ' -f1)
if [[ -f $out/root.tar && $(cat "$out/root.recipe" 2>/dev/null) == "$recipe" ]]; then
  exit 0
fi

scratch=$(mktemp -d "$out/making.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

cat >"$scratch/customize" <<'HOOK'
#!/bin/sh
set -eu
root=$1
: >"$root/etc/resolv.conf"
: >"$root/etc/machine-id"
echo 'UseDNS no' >"$root/etc/ssh/sshd_config.d/lab.conf"
# A machine serves what the roles say, not what happens to be installed.
for unit in nfs-server rpcbind.service rpcbind.socket rpc-statd nfs-blkmap smbd nmbd samba-ad-dc winbind nftables \
  e2scrub_all.timer apt-daily.timer apt-daily-upgrade.timer man-db.timer dpkg-db-backup.timer fstrim.timer; do
  chroot "$root" systemctl disable "$unit" 2>/dev/null || true
done
HOOK
chmod +x "$scratch/customize"

echo "root: unpacking Debian $suite"
packages=$(sed 's/#.*//' "$here/packages.txt" | xargs | tr ' ' ',')
mmdebstrap --variant=minbase --include="$packages" --customize-hook="$scratch/customize" \
  --aptopt='Acquire::Languages "none"' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --quiet \
  "$suite" "$scratch/root.tar" ${GRANUM_DEBIAN_MIRROR:+"$GRANUM_DEBIAN_MIRROR"}
mv "$scratch/root.tar" "$out/"
echo "$recipe" >"$out/root.recipe"
echo "root: $out/root.tar, $(du -h "$out/root.tar" | cut -f1)"
