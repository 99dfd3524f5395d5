"""A worker process at one end of a socket pair, as a pool would start it, and the pool's end in the test's hand."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import textwrap

SDK = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "remuda.py")
PATIENCE_SECONDS = 30  # only a failing test waits so long


class Worker:
    """Starts `argv`; `lines` are then JSON values, each way."""

    def __init__(self, argv, cwd=None, **environment):
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(PATIENCE_SECONDS)
        env = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
        env.update(REMUDA_FD=str(theirs.fileno()), REMUDA_WORKER_ID="w-7", REMUDA_WORKER_SLOT="1", **environment)
        self.process = subprocess.Popen(
            argv, env=env, cwd=cwd, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)
        theirs.close()
        self.reader = self.socket.makefile("rb")

    def send(self, *messages):
        """Sends all messages at once: values as JSON lines, bytes as they are."""
        self.socket.sendall(b"".join(
            message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n" for message in messages))

    def receive(self):
        """The next line as a value; None at the end."""
        line = self.reader.readline()
        return json.loads(line) if line else None

    def ask(self, message):
        self.send(message)
        return self.receive()

    def handshake(self):
        return self.ask({"op": "handshake", "version": "1"})

    def call(self, body, id=7, **fields):
        return self.ask(dict(op="call", id=id, body=body, **fields))

    def cpu_seconds(self):
        """What the process has computed so far."""
        with open("/proc/%d/stat" % self.process.pid) as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self):
        self.reader.close()
        self.socket.close()

    def finish(self):
        """Closes the connection, and waits for the end: status, stdout, stderr."""
        self.close()
        out, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, out.decode(), err.decode()

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


class Folder:
    """A temporary folder with a user's files in it."""

    def __init__(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.path = self.temporary.name

    def write(self, name, code):
        path = os.path.join(self.path, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(textwrap.dedent(code))
        return path

    def shim(self, spec, **environment):
        """A worker as `remuda map --python SPEC` starts it, from this folder, with the SDK's text handed over."""
        with open(SDK) as file:
            source = file.read()
        return Worker([sys.executable, "-c", source, "--shim", spec], cwd=self.path, **environment)
