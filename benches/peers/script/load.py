"""The load of lines against a server that runs, and what a job of it costs the server's process."""

import dataclasses
import json
import subprocess
import time

from script.places import ROOT
from script.processes import cpu_seconds, filled

TIMEOUT_S = 120
# After it, a server has closed what a load had opened.
CLOSING_S = 0.05


@dataclasses.dataclass
class Load:
    """`count` is of connections."""

    places: object
    socket: str
    # What the socket's name is filled with.
    names: dict
    calls: int
    count: int = 1
    options: tuple = ()

    def __post_init__(self):
        # Workers that start would be counted, too: the first calls wait for them.
        self.run("--in-flight", 256, "--calls", 2000)

    def run(self, *options):
        command = [self.places.peer("load"), "lines", "--to", self.socket, *options]
        done = subprocess.run(filled(command, self.names), cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S)
        if done.returncode != 0:
            raise ValueError(done.stderr[-400:])
        return json.loads(done.stdout)

    def whole(self):
        return self.run("--connections", self.count, *self.options, "--calls", self.calls)

    def opening(self):
        """As many connections, with a call for each in all."""
        return self.run("--connections", self.count, *self.options, "--calls", self.count)

    def each(self, used):
        """What a job costs by `used(work)`, which does the work and gives what it cost. Opening connections
        isn't a job's cost: what that costs is measured, the second time it is done, and taken away."""
        few = 0
        if self.count > 1:
            self.opening()
            few = used(self.opening)
        return (used(self.whole) - few) / (self.calls - (self.count if self.count > 1 else 0))

    def cpu_us(self, pid):
        """A job's processor time, and what the load said."""
        said = []

        def used(work):
            before = cpu_seconds(pid)
            said.append(work())
            time.sleep(CLOSING_S)
            return (cpu_seconds(pid) - before) * 1e6

        cost = self.each(used)
        return cost, said[-1]
