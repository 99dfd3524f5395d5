"""The clients, against a worker that listens and against peers that misbehave."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from worker_process import PATIENCE_SECONDS, SDK, Folder  # noqa: E402

sys.path.insert(0, os.path.dirname(os.path.abspath(SDK)))
import remuda  # noqa: E402

WORKER = """
    import sys
    import remuda

    def plain(body):
        if body == "fail":
            raise KeyError("text")
        return body.upper() if isinstance(body, str) else body

    async def hang(body):
        if body == "hang":
            import asyncio
            await asyncio.Event().wait()
        return plain(body)

    print("ready to listen", flush=True)
    remuda.serve({"plain": plain, "hang": hang}[sys.argv[1]], listen=sys.argv[2])
"""

# Ends the worker by a signal of which the main thread learns by nothing but the wake-up descriptor: another thread gets
# it, and has waited for the interpreter's lock until the main thread gave that up, which it does in its wait alone.
BELL = """
    import selectors
    import signal
    import sys
    import threading
    import remuda

    turn = threading.Lock()
    turn.acquire()

    def ring():
        turn.acquire()
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    wait = selectors.DefaultSelector.select

    def select(self, timeout=None):
        if timeout is None and turn.locked():
            turn.release()
        return wait(self, timeout)

    def plain(body):
        return body

    async def waits(body):
        return body

    sys.setswitchinterval(1000)
    threading.Thread(target=ring, daemon=True).start()
    selectors.DefaultSelector.select = select
    remuda.serve({"plain": plain, "waits": waits}[sys.argv[1]], listen=sys.argv[2])
"""


class Listening(unittest.TestCase):
    """A worker started by hand."""

    def setUp(self):
        self.folder = Folder()
        self.addCleanup(self.folder.temporary.cleanup)
        self.script = self.folder.write("worker.py", WORKER)
        self.path = os.path.join(self.folder.path, "x.sock")

    def listen(self, handler):
        process = subprocess.Popen(
            [sys.executable, self.script, handler, self.path], stdout=subprocess.PIPE,
            env=dict(os.environ, PYTHONPATH=os.path.dirname(os.path.abspath(SDK))))
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        process.stdout.readline()
        self.await_socket(process)
        return process

    def await_socket(self, process):
        while process.poll() is None:
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(self.path) == 0:
                    return
            os.sched_yield()
        self.fail("the worker ended")

    def test_calls_maps_and_status(self):
        self.listen("plain")
        with remuda.Client("unix:%s,mode=0600" % self.path) as pool:
            self.assertEqual(pool.peer["capacity"], 1)
            self.assertEqual(pool.call("abc"), "ABC")
            self.assertEqual(pool.call({"a": None}, timeout=20), {"a": None})
            self.assertEqual(list(pool.map("a%d" % n for n in range(500))), ["A%d" % n for n in range(500)])
            self.assertEqual(pool.status()["kind"], "status")
            with self.assertRaises(remuda.RemudaError) as caught:
                pool.call("fail")
            self.assertEqual((caught.exception.code, caught.exception.message), ("handler_error", "KeyError: 'text'"))
            self.assertIn("worker.py", caught.exception.traceback)
            results = list(pool.map(["a", "fail", "c"], return_errors=True))
            self.assertEqual([getattr(result, "code", result) for result in results], ["A", "handler_error", "C"])
            with self.assertRaises(remuda.RemudaError):
                list(pool.map(["a", "fail", "c"]))
            self.assertEqual(pool.call("after"), "AFTER")
            with self.assertRaises(remuda.RemudaError) as caught:
                pool.call({1, 2})
            self.assertEqual(caught.exception.code, "bad_request")

    def test_large_bodies_both_ways_at_once(self):
        self.listen("plain")
        with remuda.Client(self.path) as pool:
            bodies = [[n, "x" * 1000000] for n in range(20)]
            self.assertEqual(list(pool.map(bodies)), bodies)

    def test_threads_share_it(self):
        self.listen("plain")
        wrong = []
        with remuda.Client(self.path) as pool:
            def calls(name):
                for n in range(100):
                    text = "%s%d" % (name, n)
                    if pool.call(text) != text.upper():
                        wrong.append(text)

            threads = [threading.Thread(target=calls, args=(name,)) for name in "abcdefgh"]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertEqual(wrong, [])

    def test_several_connections(self):
        self.listen("plain")
        with remuda.Client(self.path) as one, remuda.Client(self.path) as two:
            self.assertEqual([one.call("a"), two.call("b"), one.call("c")], ["A", "B", "C"])

    def test_a_timeout_that_is_none_is_refused_and_costs_nothing(self):
        self.listen("plain")
        with remuda.Client("unix:" + self.path) as pool:
            for timeout in -1, float("nan"), float("inf"):
                with self.assertRaisesRegex(ValueError, "give seconds"):
                    pool.call("a", timeout=timeout)
            self.assertEqual(pool.call("a", timeout=1e9), "A")

        async def asynchronous():
            async with remuda.AsyncClient("unix:" + self.path) as pool:
                with self.assertRaisesRegex(ValueError, "give seconds"):
                    await pool.call("a", timeout=float("inf"))
                self.assertEqual(await pool.call("a", timeout=30), "A")

        asyncio.run(asynchronous())

    def test_a_timeout_and_a_call_from_another_thread_meanwhile(self):
        self.listen("hang")
        with remuda.Client(self.path) as pool:
            codes = []

            def hang():
                try:
                    pool.call("hang", timeout=0.3)
                except remuda.RemudaError as error:
                    codes.append(error.code)

            thread = threading.Thread(target=hang)
            thread.start()
            self.assertEqual(pool.call("b"), "B")
            thread.join()
            self.assertEqual(codes, ["timeout"])
            self.assertEqual(pool.call("c"), "C")

    def test_the_peer_dies_and_another_takes_its_place(self):
        first = self.listen("hang")
        with remuda.Client(self.path) as pool:
            self.assertEqual(pool.call("a"), "A")
            threading.Timer(0.1, first.kill).start()
            with self.assertRaises(remuda.RemudaError) as caught:
                pool.call("hang")
            self.assertEqual(caught.exception.code, "disconnected")
            first.wait()
            self.listen("plain")  # in the place of a stale socket
            self.assertEqual(pool.call("b"), "B")

    def test_close_wakes_who_waits(self):
        self.listen("hang")
        pool = remuda.Client(self.path)
        threading.Timer(0.1, pool.close).start()
        with self.assertRaises(remuda.RemudaError) as caught:
            pool.call("hang")
        self.assertEqual(caught.exception.code, "disconnected")

    def test_the_socket_is_the_owners_and_goes_with_the_worker(self):
        for handler in ("plain", "hang"):
            process = self.listen(handler)
            self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
            second = subprocess.run([sys.executable, self.script, "plain", self.path], stdout=subprocess.PIPE,
                                    stderr=subprocess.PIPE,
                                    env=dict(os.environ, PYTHONPATH=os.path.dirname(os.path.abspath(SDK))))
            self.assertEqual(second.returncode, 78)
            self.assertIn(b"in use", second.stderr)
            process.terminate()
            self.assertEqual(process.wait(), 0)
            self.assertFalse(os.path.exists(self.path))

    def test_a_signal_right_before_the_wait_ends_it(self):
        script = self.folder.write("bell.py", BELL)
        for handler in ("plain", "waits"):
            process = subprocess.Popen([sys.executable, script, handler, self.path],
                                       env=dict(os.environ, PYTHONPATH=os.path.dirname(os.path.abspath(SDK))))
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            self.assertEqual(process.wait(PATIENCE_SECONDS), 0)
            self.assertFalse(os.path.exists(self.path))

    def test_shutdown_ends_it(self):
        for handler in ("plain", "hang"):
            process = self.listen(handler)
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(self.path)
                sock.sendall(b'{"op":"handshake","version":"1"}\n{"op":"shutdown"}\n')
                self.assertEqual(process.wait(30), 0)

    def test_a_client_that_closed_its_sending_half_gets_its_answers(self):
        for handler in ("plain", "hang"):
            process = self.listen(handler)
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(self.path)
                sock.sendall(b'{"op":"handshake","version":"1"}\n{"op":"call","id":1,"body":"a"}\n')
                sock.shutdown(socket.SHUT_WR)
                self.assertIn(b'"A"', sock.makefile("rb").read())
            process.terminate()
            process.wait()

    def test_an_endless_line_is_refused(self):
        for handler in ("plain", "hang"):
            process = self.listen(handler)
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(self.path)
                sock.settimeout(30)
                with self.assertRaises(OSError):
                    while True:
                        sock.sendall(b"x" * (1 << 20))
            with remuda.Client(self.path) as pool:
                self.assertEqual(pool.call("a"), "A")
            process.terminate()
            process.wait()

    def test_asyncio_connects_anew_and_once(self):
        first = self.listen("hang")

        async def main():
            async with remuda.AsyncClient(self.path) as pool:
                call = asyncio.ensure_future(pool.call("hang"))
                await pool.status()
                first.kill()
                with self.assertRaises(remuda.RemudaError) as caught:
                    await call
                self.assertEqual(caught.exception.code, "disconnected")
                first.wait()
                self.listen("plain")
                self.assertEqual(await asyncio.gather(*map(pool.call, "abc")), ["A", "B", "C"])
            with self.assertRaises(remuda.RemudaError):
                await pool.call("closed")

        asyncio.run(main())

    def test_a_client_that_does_not_read_holds_up_no_other(self):
        self.listen("hang")
        with socket.socket(socket.AF_UNIX) as greedy, remuda.Client(self.path) as pool:
            greedy.connect(self.path)
            greedy.settimeout(0.5)
            greedy.sendall(b'{"op":"handshake","version":"1"}\n')
            call = b'{"op":"call","id":1,"body":"%s"}\n' % (b"x" * 100000)
            with self.assertRaises(socket.timeout):  # it is read no further
                for _ in range(2000):
                    greedy.sendall(call)
            self.assertEqual(pool.call("a"), "A")

    def test_asyncio(self):
        self.listen("hang")

        async def main():
            async with remuda.AsyncClient(self.path) as pool:
                results = await asyncio.gather(*(pool.call("a%d" % n) for n in range(50)))
                self.assertEqual(results, ["A%d" % n for n in range(50)])
                with self.assertRaises(remuda.RemudaError) as caught:
                    await pool.call("hang", timeout=0.05)
                self.assertEqual(caught.exception.code, "timeout")
                task = asyncio.ensure_future(pool.call("hang"))
                await asyncio.sleep(0)
                self.assertEqual(await pool.call("b"), "B")
                task.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await task
                self.assertEqual((await pool.status())["jobs"], 53)
                with self.assertRaises(remuda.RemudaError) as caught:
                    await pool.call("fail")
                self.assertEqual(caught.exception.code, "handler_error")

        asyncio.run(main())


class Peers(unittest.TestCase):
    """Peers that aren't what the client expects."""

    def setUp(self):
        self.folder = Folder()
        self.addCleanup(self.folder.temporary.cleanup)
        self.path = os.path.join(self.folder.path, "x.sock")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.addCleanup(self.listener.close)

    def refused(self, answer, **options):
        """What a client says of a peer that answers the handshake with `answer`; None closes at once."""
        def peer():
            with self.listener.accept()[0] as sock:
                self.greeting = sock.recv(4096)
                try:
                    if answer is not None:
                        sock.sendall(answer)
                        sock.recv(1)
                except OSError:  # the client hung up before it had read all
                    pass

        thread = threading.Thread(target=peer)
        thread.start()
        with self.assertRaises(remuda.RemudaError) as caught:
            remuda.Client(self.path, **options)
        thread.join()
        return caught.exception

    def test_what_they_may_do(self):
        self.assertIn("version 2", self.refused(b'{"ok":true,"data":{"version":"2"}}\n').message)
        self.assertIn("does not speak", self.refused(b"HTTP/1.1 400 Bad Request\r\n").message)
        self.assertIn("closed the connection", self.refused(None).message)
        self.assertIn("in time", self.refused(b'{"ok":tr', connect_timeout=0.1).message)
        self.assertEqual(self.refused(b'{"ok":false,"code":"unauthorized","error":"no"}\n', token="x").code, "unauthorized")
        self.assertEqual(self.greeting, b'{"op":"handshake","version":"1","token":"x"}\n')

    def test_an_answer_to_the_handshake_without_an_end(self):
        self.assertIn("does not speak", self.refused(b"x" * (1 << 20)).message)

        def trickle():
            with self.listener.accept()[0] as sock:
                try:
                    while True:
                        sock.sendall(b"x")
                        time.sleep(0.02)
                except OSError:  # the client has hung up
                    pass

        thread = threading.Thread(target=trickle)
        thread.start()
        with self.assertRaises(remuda.RemudaError) as caught:
            remuda.Client(self.path, connect_timeout=0.3)
        thread.join()
        self.assertIn("in time", caught.exception.message)

    def test_nor_does_asyncio_take_one_without_an_end(self):
        async def connect(timeout):
            await remuda.AsyncClient(self.path, connect_timeout=timeout).connect()

        def refused(peer, timeout):
            taken = []

            def flood():
                with self.listener.accept()[0] as sock:
                    try:
                        peer(sock, taken)
                    except OSError:  # the client has hung up
                        pass

            thread = threading.Thread(target=flood)
            thread.start()
            with self.assertRaises(remuda.RemudaError) as caught:
                asyncio.run(connect(timeout))
            thread.join()
            return caught.exception.message, sum(taken)

        def flood(sock, taken):
            while sum(taken) < 256 << 20:
                taken.append(sock.send(b"x" * (1 << 20)))

        def leave(sock, _taken):
            sock.recv(4096)

        message, taken = refused(flood, 60)
        self.assertIn("does not speak", message)
        self.assertLess(taken, 16 << 20)
        self.assertIn("in time", refused(lambda sock, _taken: sock.recv(4096) and sock.recv(1), 0.3)[0])
        self.assertIn("closed the connection in the handshake", refused(leave, 60)[0])

    def test_no_pool_names_what_was_tried(self):
        missing = os.path.join(self.folder.path, "none")
        before = {key: os.environ.get(key) for key in ("REMUDA_ADDR", "XDG_RUNTIME_DIR")}
        os.environ.pop("REMUDA_ADDR", None)
        os.environ["XDG_RUNTIME_DIR"] = missing
        try:
            with self.assertRaises(remuda.RemudaError) as caught:
                remuda.Client()
            self.assertIn("unix:%s/remuda/default.sock" % missing, caught.exception.message)
            self.assertIn("/tmp/remuda-%d/default.sock" % os.getuid(), caught.exception.message)
            os.environ["REMUDA_ADDR"] = "unix:" + missing
            with self.assertRaises(remuda.RemudaError) as caught:
                remuda.Client()
            self.assertNotIn("default.sock", caught.exception.message)
        finally:
            for key, value in before.items():
                os.environ.pop(key, None)
                if value is not None:
                    os.environ[key] = value

    def test_addresses_that_are_none(self):
        for address in ("http://x", "unix:", "tcp:host", "shm:name"):
            with self.assertRaises(remuda.RemudaError) as caught:
                remuda.Client(address)
            self.assertEqual(caught.exception.code, "bad_request")

    def test_tcp(self):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()

            def peer():
                with listener.accept()[0] as sock, sock.makefile("rb") as lines:
                    lines.readline()
                    sock.sendall(b'{"ok":true,"data":{"version":"1"}}\n')
                    lines.readline()
                    sock.sendall(b'{"id":1,"ok":true,"data":{"kind":"result","body":5}}\n')

            thread = threading.Thread(target=peer)
            thread.start()
            with remuda.Client("tcp:127.0.0.1:%d" % listener.getsockname()[1]) as pool:
                self.assertEqual(pool.call(4), 5)
            thread.join()


if __name__ == "__main__":
    unittest.main()
