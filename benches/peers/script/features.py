"""What the binary can do, by what its help says: a row may be older or younger than that."""

import functools
import subprocess


class Features:
    def __init__(self, remuda):
        self.remuda = remuda

    @functools.cache
    def help(self, command):
        try:
            return subprocess.run([self.remuda, command, "--help"], capture_output=True, text=True).stdout
        except OSError:
            # Not built yet: rows are only named.
            return ""

    def rings(self):
        """Whether callers reach a pool by rings."""
        return "shm:" in self.help("bench")
