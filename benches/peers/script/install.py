"""Builds Remuda, and puts the peers at pinned versions into a folder that git ignores."""

import subprocess
import sys

from script.places import HERE, PEERS, ROOT
from script.say import say

PYTHON_PEERS = ["mosec==0.9.8", "pebble==5.2.3", "loky==3.7.0"]
NODE_PEERS = ["piscina@5.3.2"]
DEBIAN_PEERS = ["parallel=20221122+ds-2", "nats-server=2.9.10-1+b3"]
# Those from crates.io are pinned by the manifests and the lock of this folder's workspace.


def build(places):
    """Remuda, the bench of its rings, and this folder's workspace."""
    ours = ["--target-dir", str(places.target)]
    run(["cargo", "build", "--profile", places.profile, "-p", "remuda", *ours], ROOT)
    run(["cargo", "bench", "--profile", places.profile, "-p", "remuda-shm", "--bench", "figures", "--no-run", *ours], ROOT)
    run(["cargo", "build", "--release", "--locked", "--target-dir", str(places.peers_target)], HERE)


def install(needs):
    """The peers that the chosen rows need."""
    PEERS.mkdir(exist_ok=True)
    installers = {"python": python, "node": node, "debian": debian}
    for need in sorted(needs):
        names, installer = {"python": PYTHON_PEERS, "node": NODE_PEERS, "debian": DEBIAN_PEERS}[need], installers[need]
        folder = PEERS / need
        marker = folder / "installed"
        if marker.exists() and marker.read_text().split() == names:
            continue
        say("installing " + " ".join(names))
        folder.mkdir(exist_ok=True)
        try:
            installer(folder, names)
        except (subprocess.CalledProcessError, OSError) as error:
            # Its rows will say that they did not run; the others do.
            say(f"not installed: {error}")
            continue
        marker.write_text("\n".join(names))


def python(folder, names):
    run([sys.executable, "-m", "venv", str(folder)])
    run([str(folder / "bin/pip"), "install", "-q", *names])


def node(folder, names):
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    run(["npm", "install", "--silent", *names], folder)


def debian(folder, names):
    """Packages taken apart in the folder: nothing is installed on the machine."""
    # apt reads as a user of its own where it can; a folder it can't write to is only a warning.
    run(["apt-get", "download", "-q", *names], folder)
    for package in folder.glob("*.deb"):
        run(["dpkg", "-x", package.name, "."], folder)


def run(command, folder=HERE):
    subprocess.run(command, cwd=folder, check=True)
