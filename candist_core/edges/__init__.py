"""The rim: the only sockets, disks, Great Expectations and plots."""
