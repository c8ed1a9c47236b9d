"""The lab of virtual machines: real systemd, NFS, union mount and SMB under the playbook that labs use (`make lab-vm`)."""
