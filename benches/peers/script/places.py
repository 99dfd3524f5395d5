"""Where things are, and how a command is shown to a reader."""

import os
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent.parent
ROOT = HERE.parent.parent
PROGRAMS = HERE / "programs"
PEERS = HERE / ".peers"
RESULTS = HERE / ".results"
DOCS = ROOT / "docs"
PAGE = DOCS / "performance.md"


class Places:
    """The programs that are measured, as they were built."""

    def __init__(self, target, peers_target, profile):
        self.target = pathlib.Path(target or ROOT / "target")
        self.peers_target = pathlib.Path(peers_target or HERE / "target")
        self.profile = profile
        self.remuda = str(self.target / profile / "remuda")

    def peer(self, name):
        """A program of this folder's own workspace."""
        return str(self.peers_target / "release" / name)

    def figures(self):
        """The bench of remuda-shm, which is built under a name with a hash in it."""
        deps = self.target / self.profile / "deps"
        built = [path for path in deps.glob("figures-*") if not path.suffix]
        # Where it isn't built, its row will say so.
        return str(max(built, key=os.path.getmtime, default=deps / "figures"))

    def shown(self, words):
        """A command without the folders that only this machine has."""
        return " ".join(self._word(str(word)) for word in words)

    def _word(self, word):
        if word == sys.executable:
            return "python3"
        for folder in (self.target / self.profile, self.peers_target / "release"):
            if word.startswith(f"{folder}/"):
                return re.sub("-[0-9a-f]{16}$", "", pathlib.Path(word).name)
        word = word.replace(f"{ROOT}/", "").replace("{folder}", "$DIR").replace("{port}", "$PORT")
        return f"'{word}'" if not word or set(word) & set(" |>;&*") else word


PEER_PYTHON = str(PEERS / "python/bin/python")
PEER_NODE = str(PEERS / "node")
PARALLEL = str(PEERS / "debian/usr/bin/parallel")
NATS_SERVER = str(PEERS / "debian/usr/sbin/nats-server")
