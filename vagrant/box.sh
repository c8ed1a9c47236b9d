#!/bin/bash
# Make the box of the virtual-machine lab from Debian packages, where none can be downloaded: box.sh DIRECTORY
# Leaves DIRECTORY/granum.box for vagrant and DIRECTORY/vmlinuz, with which integration/vm tries whether guests run under KVM.
# Needs root, a loop device, and mmdebstrap, extlinux, syslinux-common, fdisk, e2fsprogs, qemu-utils, vagrant.
set -euo pipefail

PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: box.sh DIRECTORY}
image_gib=6
mkdir -p "$out"
out=$(cd "$out" && pwd)

((EUID == 0)) || { echo "box: it takes root to make a file system with devices in it" >&2; exit 1; }

# Made already, from this very recipe?
recipe=$(cat "$here/box.sh" "$here/root.sh" "$here/packages.txt" | sha256sum | cut -d' ' -f1)
if [[ -f $out/granum.box && $(cat "$out/recipe" 2>/dev/null) == "$recipe" ]]; then
  echo "box: $out/granum.box is up to date"
  exit 0
fi

scratch=$(mktemp -d "$out/making.XXXXXX")
loop=
cleanup() {
  ! mountpoint -q "$scratch/root" || umount "$scratch/root"
  [[ -z $loop ]] || losetup -d "$loop"
  rm -rf "$scratch"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

"$here/root.sh" "$out"

# -- the disk: one partition, and a boot loader that a BIOS starts ---------------------------------------------------------

echo "box: making the disk"
truncate -s "${image_gib}G" "$scratch/disk"
echo '2048,,L,*' | sfdisk --quiet "$scratch/disk"
loop=$(losetup --find --show --offset $((2048 * 512)) "$scratch/disk")
# Without the features that extlinux cannot read.
mkfs.ext4 -q -L root -O '^64bit,^metadata_csum' "$loop"
mkdir "$scratch/root"
mount "$loop" "$scratch/root"
tar -C "$scratch/root" --numeric-owner --xattrs --xattrs-include='*' -xf "$out/root.tar"

# -- what vagrant's machines have that containers of the same root file system have not -----------------------------------

root=$scratch/root
key=$(dpkg -L vagrant | sed -n '\|/keys/vagrant\.pub$|p')
chroot "$root" useradd --create-home --shell /bin/bash vagrant
install -d -m 700 "$root/home/vagrant/.ssh"
install -m 600 "$key" "$root/home/vagrant/.ssh/authorized_keys"
chroot "$root" sh -c "chown -R vagrant:vagrant ~vagrant"
echo 'vagrant ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/vagrant"
chmod 440 "$root/etc/sudoers.d/vagrant"
echo 'LABEL=root / ext4 defaults 0 1' >"$root/etc/fstab"
echo granum-box >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 granum-box\n' >"$root/etc/hosts"
printf '[Match]\nName=eth0\n[Network]\nDHCP=yes\nLinkLocalAddressing=no\n' >"$root/etc/systemd/network/90-dhcp.network"
chroot "$root" systemctl --quiet enable systemd-networkd serial-getty@ttyS0

# -- the boot loader, and the kernel for those who start it without one ----------------------------------------------------

cp -L "$scratch/root/vmlinuz" "$scratch/vmlinuz"
kernel=$(readlink "$scratch/root/vmlinuz")
initrd=$(readlink "$scratch/root/initrd.img")
mkdir -p "$scratch/root/boot/extlinux"
cat >"$scratch/root/boot/extlinux/extlinux.conf" <<CONFIG
DEFAULT granum
LABEL granum
  LINUX /$kernel
  INITRD /$initrd
  APPEND root=LABEL=root rw console=ttyS0 net.ifnames=0 mitigations=off
CONFIG
extlinux --install "$scratch/root/boot/extlinux"
umount "$scratch/root"
losetup -d "$loop"
loop=
dd if=/usr/lib/EXTLINUX/mbr.bin of="$scratch/disk" bs=440 count=1 conv=notrunc status=none

# -- the box ---------------------------------------------------------------------------------------------------------------

echo "box: packing"
qemu-img convert -O qcow2 "$scratch/disk" "$scratch/box.img"
echo "{\"provider\": \"libvirt\", \"format\": \"qcow2\", \"virtual_size\": $image_gib}" >"$scratch/metadata.json"
echo 'Vagrant.configure("2") { |config| }' >"$scratch/Vagrantfile"
tar -C "$scratch" -cf "$scratch/granum.box" metadata.json Vagrantfile box.img
mv "$scratch/vmlinuz" "$scratch/granum.box" "$out/"
echo "$recipe" >"$out/recipe"
echo "box: $out/granum.box, $(du -h "$out/granum.box" | cut -f1)"
