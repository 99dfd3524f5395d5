"""The Python examples, each as its first lines say."""

import os
import socket
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from worker_process import SDK, Worker  # noqa: E402

SDK_FOLDER = os.path.dirname(os.path.abspath(SDK))
ROOT = os.path.join(SDK_FOLDER, os.pardir, os.pardir)


class Examples(unittest.TestCase):
    def shim(self, spec):
        with open(SDK) as file:
            worker = Worker([sys.executable, "-c", file.read(), "--shim", "examples/" + spec], cwd=ROOT)
        self.addCleanup(worker.__exit__)
        self.declared = worker.handshake()["data"]
        return lambda body: worker.call(body)["data"]["body"]

    def test_upper(self):
        self.assertEqual(self.shim("upper.py:upper")("grün"), "GRÜN")

    def test_worker(self):
        with Worker([sys.executable, "examples/worker.py"], cwd=ROOT, PYTHONPATH=SDK_FOLDER) as worker:
            worker.handshake()
            self.assertEqual(worker.call("abc")["data"]["body"], "cba")

    def test_wc(self):
        path = os.path.join(ROOT, "examples", "README.md")
        with open(path, "rb") as file:
            content = file.read()
        self.assertEqual(self.shim("wc.py:count")({"path": "examples/README.md"}), {
            "path": "examples/README.md", "lines": content.count(b"\n"), "words": len(content.split()),
            "bytes": len(content)})

    def test_ports(self):
        probe = self.shim("ports.py:probe")
        self.assertEqual((self.declared["capacity"], self.declared["ordered"]), (200, False))
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            address = "127.0.0.1:%d" % listener.getsockname()[1]
            self.assertEqual(probe(address), address + " closed (ConnectionRefusedError)")
            listener.listen()
            self.assertEqual(probe(address), address + " open")

    def test_language(self):
        guess = self.shim("language.py:guess")
        self.assertEqual(self.declared["batch"], 64)
        self.assertEqual([guess(line) for line in (
            "Das ist nicht der Weg.", "It was on the table.", "Je ne sais pas.", "No es para el que canta", "xyz")],
            ["de", "en", "fr", "es", "?"])


if __name__ == "__main__":
    unittest.main()
