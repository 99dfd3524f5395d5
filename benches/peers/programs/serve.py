"""Starts a server, loads it, prints its figure as JSON, and stops it."""

import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
SECONDS = 2
BODY = "the quick brown fox jumps over the lazy dog and then some..."
READY_TIMEOUT_S = 30


def main(what, program):
    with tempfile.TemporaryDirectory() as folder:
        if what.startswith("mosec"):
            print(json.dumps({"figure": mosec(program, int(what.rsplit("-", 1)[1]))}))
        else:
            print(json.dumps({"figure": remuda(what, program, folder)}))


def remuda(what, program, folder):
    address = f"unix:{folder}/pool.sock"
    worker = ["--builtin", "echo", "-j", "1"] if what == "remuda-rust" else ["--python", "examples/upper.py:upper", "-j", "2"]
    server = subprocess.Popen([program, "serve", "-l", address, *worker], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        wait(lambda: subprocess.run([program, "call", "--to", address, "x"], capture_output=True).returncode == 0)
        in_flight = "64" if what == "remuda-64" else "1"
        bench = [program, "bench", "--to", address, "--in-flight", in_flight, "--duration", str(SECONDS),
                 "--warmup", "0.5", "--body", BODY, "--json"]
        result = json.loads(subprocess.run(bench, check=True, capture_output=True, text=True).stdout)
        return result["jobs_per_second"] if what == "remuda-64" else result["latency_us"]["p50"]
    finally:
        server.terminate()
        server.wait()


def mosec(python, connections):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [python, str(HERE / "mosec_server.py"), "--port", str(port), "--log-level", "error"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait(lambda: ask(http.client.HTTPConnection("127.0.0.1", port, timeout=5)))
        return load_http(port, connections)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def ask(connection):
    connection.request("POST", "/inference", json.dumps(BODY))
    return connection.getresponse().read() == json.dumps(BODY.upper()).encode()


def load_http(port, connections):
    """Raw sockets, so that the load costs as little as it can."""
    body = json.dumps(BODY).encode()
    request = (b"POST /inference HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
               b"Content-Length: %d\r\n\r\n" % len(body)) + body
    if connections == 1:
        times = []
        link = socket.create_connection(("127.0.0.1", port))
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = time.perf_counter() + SECONDS
        while time.perf_counter() < end:
            started = time.perf_counter()
            link.sendall(request)
            link.recv(65536)
            times.append(time.perf_counter() - started)
        return sorted(times)[len(times) // 2] * 1e6
    import selectors
    selector = selectors.DefaultSelector()
    for _ in range(connections):
        link = socket.create_connection(("127.0.0.1", port))
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(link, selectors.EVENT_READ)
        link.sendall(request)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        for key, _ in selector.select():
            key.fileobj.recv(65536)
            key.fileobj.sendall(request)
            done += 1
    return done / (time.perf_counter() - started)


def wait(ready):
    end = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < end:
        try:
            if ready():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit("the server was not ready in time")


if __name__ == "__main__":
    main(*sys.argv[1:])
