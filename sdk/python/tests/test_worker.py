"""What a worker process answers, line by line."""

import json
import os
import random
import signal
import socket
import sys
import time
import unittest
import unittest.mock

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from worker_process import SDK, Folder, Worker  # noqa: E402

sys.path.insert(0, os.path.dirname(os.path.abspath(SDK)))
import remuda  # noqa: E402

HANDLER = """
    import os, sys, subprocess

    def upper(s):
        return s.upper()

    def echo(value):
        return value

    def choose(key):
        class Odd: pass
        class Silent(Exception):
            def __str__(self): raise RuntimeError("no")
        def fail(error): raise error
        loop = []
        loop.append(loop)
        return {
            "none": lambda: None, "bytes": lambda: "grüß".encode(), "binary": lambda: b"\\xff\\xfe",
            "nan": lambda: float("nan"), "inf": lambda: {"x": [float("inf")]}, "set": lambda: {1, 2},
            "object": lambda: Odd(), "loop": lambda: loop, "surrogate": lambda: "\\ud800", "lines": lambda: "a\\nb",
            "key": lambda: {}["text"], "value": lambda: int("x"), "silent": lambda: fail(Silent()),
            "stop": lambda: fail(StopIteration()), "exit": lambda: sys.exit(3), "mute": lambda: fail(ValueError()),
            "quote": lambda: 'say "a","b"', "tab": lambda: "a\\tb", "slash": lambda: "a\\\\b", "plain": lambda: "ok",
            "base": lambda: fail(type("Panic", (BaseException,), {})("deep")), "long": lambda: fail(ValueError("x" * 9999)),
            "cause": lambda: caused(),
        }[key]()

    def caused():
        try:
            {}["text"]
        except KeyError as error:
            raise ValueError("no text") from error

    def count(path):
        with open(path, "a") as file:
            file.write("x")
        if os.path.getsize(path) % 3 == 0:
            raise ValueError("third")
        return path

    def forks(_body):
        pid = os.fork()
        if pid == 0:
            return "from the child"
        os.waitpid(pid, 0)
        return "from the parent"

    def leaves_a_child(_body):
        pid = os.fork()
        if pid == 0:
            import time
            os.close(1), os.close(2)
            time.sleep(60)
            os._exit(0)
        return pid

    def descriptors(_body):
        return subprocess.run([sys.executable, "-c", "import os; print(os.listdir('/proc/self/fd'))"],
                              stdout=subprocess.PIPE, close_fds=False).stdout.decode()

    def prints(body):
        print(body)
        sys.stdout.write("no newline")
        return body

    def environment(name):
        return os.environ.get(name)

    def identity(_body):
        import remuda
        return [remuda.slot(), remuda.worker_id()]
"""


class WorkerCase(unittest.TestCase):
    def setUp(self):
        self.folder = Folder()
        self.folder.write("handler.py", HANDLER)
        self.addCleanup(self.folder.temporary.cleanup)

    def start(self, function, **environment):
        worker = self.folder.shim("handler.py:" + function, **environment)
        self.addCleanup(worker.__exit__)
        worker.greeting = worker.handshake()
        return worker

    def result(self, reply, id=7):
        self.assertEqual((reply["id"], reply["ok"], reply["data"]["kind"]), (id, True, "result"), reply)
        return reply["data"]["body"]

    def error(self, reply, code="handler_error"):
        self.assertEqual((reply["ok"], reply["code"]), (False, code), reply)
        return reply["error"]


class Handshake(WorkerCase):
    def test_declares_an_ordered_worker_that_takes_batches(self):
        worker = self.start("upper")
        data = worker.greeting["data"]
        self.assertEqual(data["pid"], worker.process.pid)
        self.assertEqual(len(data.pop("instance")), 32)
        data.pop("pid")
        self.assertEqual(worker.greeting, {"ok": True, "data": {
            "kind": "handshake", "version": "1", "capacity": 1, "ordered": True, "batch": 512, "capabilities": []}})

    def test_reports_its_own_version_to_any_other(self):
        with self.folder.shim("handler.py:upper") as worker:
            self.assertEqual(worker.ask({"op": "handshake", "version": "2"})["data"]["version"], "1")

    def test_a_first_line_that_is_none_ends_the_connection(self):
        for line in (b"GET / HTTP/1.1\r\n", b'{"op":"call","id":1,"body":1}\n', b"[]\n", b"\n", b"\xff\n"):
            with self.subTest(line), self.folder.shim("handler.py:upper") as worker:
                worker.send(line + b'{"op":"handshake","version":"1"}\n{"op":"shutdown"}\n')
                self.error(worker.receive(), "handshake_required")
                try:
                    self.assertIsNone(worker.receive())
                except ConnectionResetError:  # it left what came after unread
                    pass
                self.assertEqual(worker.process.wait(60), 0)


class Singles(WorkerCase):
    def test_answers_one_by_one_in_order(self):
        worker = self.start("upper")
        worker.send(*({"op": "call", "id": n, "body": "a%d" % n} for n in range(1, 41)))
        for n in range(1, 41):
            self.assertEqual(self.result(worker.receive(), n), "A%d" % n)

    def test_any_value_goes_there_and_back(self):
        worker = self.start("echo")
        for value in (None, True, 0, -1.5, "", "a\nb", "\u2028\U0001f600", [], {"a": [1, {"b": None}]}, 2 ** 70):
            self.assertEqual(self.result(worker.call(value)), value)

    def test_ids_come_back_byte_for_byte(self):
        worker = self.start("echo")
        for id_text in ("1", "0", "-0", "1.0", "1e2", "9007199254740993", '"a"', '""', '"\\u00e9\\n"', '"é"',
                        "123456789012345678901234567890", '"%s"' % ("x" * 64)):
            worker.send(('{"body" : {"id":[1]}, "id" : %s , "op":"call"}\n' % id_text).encode())
            self.assertTrue(worker.reader.readline().startswith(b'{"id":' + id_text.encode() + b',"ok":true'), id_text)

    def test_ids_that_may_not_be_are_refused(self):
        worker = self.start("echo")
        for id_value in (None, True, [], {}, "x" * 65):
            reply = worker.call(1, id=id_value)
            self.assertNotIn("id", reply)
            self.error(reply, "bad_request")

    def test_without_an_id(self):
        worker = self.start("upper")
        self.assertEqual(worker.ask({"op": "call", "body": "a"}), {"ok": True, "data": {"kind": "result", "body": "A"}})

    def test_results_that_python_has_and_json_has_not(self):
        worker = self.start("choose")
        for key, value in (("none", None), ("bytes", "grüß"), ("lines", "a\nb"), ("quote", 'say "a","b"')):
            self.assertEqual(self.result(worker.call(key)), value)
        for key, text in (("binary", "aren't UTF-8"), ("nan", "NaN"), ("inf", "Infinity"), ("set", "type set"),
                          ("object", "Odd"), ("loop", "holds itself"), ("surrogate", "surrogate")):
            self.assertIn(text, self.error(worker.call(key)))

    def test_exceptions_with_the_users_frames(self):
        worker = self.start("choose")
        reply = worker.call("key")
        self.assertEqual(self.error(reply), "KeyError: 'text'")
        self.assertIn('handler.py", line ', reply["traceback"])
        self.assertTrue(reply["traceback"].startswith("Traceback (most recent call last):\n"), reply)
        self.assertTrue(reply["traceback"].endswith("KeyError: 'text'"), reply)
        self.assertNotIn("<string>", reply["traceback"])
        self.assertEqual(self.error(worker.call("mute")), "ValueError")
        self.assertIn("could not be had", self.error(worker.call("silent")))
        self.assertIn("deep", self.error(worker.call("base")))
        self.assertLess(len(self.error(worker.call("long"))), 2100)
        self.assertIn("direct cause", worker.call("cause")["traceback"])
        self.assertEqual(self.error(worker.call("stop")), "StopIteration")

    def test_sys_exit_ends_the_worker_without_an_answer(self):
        worker = self.start("choose")
        worker.send({"op": "call", "id": 1, "body": "exit"})
        self.assertIsNone(worker.receive())
        self.assertEqual(worker.finish()[0], 3)

    def test_sixteen_mebibytes(self):
        worker = self.start("echo")
        body = "x" * (16 << 20)
        self.assertEqual(self.result(worker.call(body)), body)

    def test_unknown_operations_and_fields(self):
        worker = self.start("upper")
        self.assertIn("dance", self.error(worker.ask({"op": "dance", "id": 3}), "unknown_op"))
        self.error(worker.ask({"op": "reset"}), "unknown_op")
        self.error(worker.ask({"op": 1}), "bad_request")
        self.error(worker.ask({"op": "call", "id": 1}), "bad_request")
        self.error(worker.ask({"op": "call", "id": 1, "body": 1, "bodies": [1]}), "bad_request")
        self.error(worker.ask({"op": "call", "id": 1, "bodies": "abc"}), "bad_request")
        self.error(worker.ask({"op": "call", "id": 1, "bodies": []}), "bad_request")
        self.error(worker.ask({"op": "call", "id": 1, "bodies": ["x"] * 513}), "bad_request")
        self.assertEqual(self.result(worker.call("a", colour="red", timeout_ms=5, hops=1)), "A")
        self.assertEqual(worker.ask({"op": "status", "id": "s"})["data"]["jobs"], 1)

    def test_what_is_no_json_costs_one_refusal(self):
        worker = self.start("upper")
        for line in (b"{", b"\xff", b'{"op":"call","id":7,"body":"\xff"}', b'{"op":"call","id":7,"body":NaN}',
                     b'{"op":"call","id":7,"body":1}x', b"[1]", b'{"op":"call","id":7,"body":"\t"}'):
            worker.send(line + b"\n")
            reply = worker.receive()
            self.error(reply, "bad_request")
            self.assertEqual(reply.get("id"), 7 if b"call" in line else None)
        worker.send(b"\n \n")
        self.assertEqual(self.result(worker.call("a")), "A")

    def test_deep_nesting_is_refused_by_its_id(self):
        worker = self.start("echo")
        worker.send(b'{"op":"call","id":7,"body":' + b"[" * 100000 + b"]" * 100000 + b"}\n")
        reply = worker.receive()
        self.assertEqual(reply["id"], 7)
        self.assertIn("nests too deeply", self.error(reply, "bad_request"))
        self.assertEqual(self.result(worker.call(1)), 1)


class Batches(WorkerCase):
    def ask(self, worker, bodies, id=8):
        reply = worker.ask({"op": "call", "id": id, "bodies": bodies})
        self.assertEqual((reply["id"], reply["ok"], reply["data"]["kind"]), (id, True, "results"), reply)
        return reply["data"]["bodies"], reply["data"]["failed"]

    def raw(self, worker, bodies):
        """As the pool writes it, without white space."""
        worker.send(('{"op":"call","id":8,"bodies":%s}\n' % json.dumps(
            bodies, separators=(",", ":"), ensure_ascii=False)).encode())
        return worker.receive()["data"]

    def test_strings(self):
        worker = self.start("upper")
        bodies = ["a%d" % n for n in range(512)]
        self.assertEqual(self.ask(worker, bodies), ([body.upper() for body in bodies], {}))

    def test_every_kind_of_string_both_ways(self):
        worker = self.start("echo")
        for bodies in (["a"], [""], ["", ""], ["a", "b", ""], ['"'], ['","'], ["a", '","', "b"], ["\\"], ["a\\", "b"],
                       ["\n", "b"], ["\t"], ["\u0000"], ["é", "\u2028"], ["]}"], ['"]}'], ["a", 1], [1, "a"], [["a"]],
                       [{"a": "b"}], [None, "x"], ["\x7f"], ['x":["y'], ["a,b"], [","]):
            self.assertEqual(self.raw(worker, bodies), {"kind": "results", "bodies": bodies, "failed": {}})
            self.assertEqual(self.ask(worker, bodies), (bodies, {}))

    def test_lists_of_random_strings_agree_with_the_parser(self):
        worker = self.start("echo")
        seed = random.randrange(1 << 32)
        chance = random.Random(seed)
        for _ in range(300):
            bodies = ["".join(chance.choices('",\\\n]}[{:ab\x00\u00e9\u2028', k=chance.randrange(6)))
                      for _ in range(chance.randrange(1, 6))]
            self.assertEqual(self.raw(worker, bodies)["bodies"], bodies, "seed %d" % seed)

    def test_results_that_need_escapes(self):
        worker = self.start("choose")
        keys = ["quote", "tab", "slash", "lines", "plain", "none", "bytes"]
        results = ['say "a","b"', "a\tb", "a\\b", "a\nb", "ok", None, "grüß"]
        self.assertEqual(self.ask(worker, keys), (results, {}))
        for key, result in zip(keys, results):
            self.assertEqual(self.raw(worker, [key, "plain"])["bodies"], [result, "ok"])

    def test_fields_behind_the_bodies_are_seen(self):
        worker = self.start("echo")
        worker.send(b'{"op":"call","id":1,"bodies":["a"],"body":["b"]}\n')
        self.error(worker.receive(), "bad_request")

    def test_failures_among_them(self):
        worker = self.start("choose")
        results, failed = self.ask(worker, ["plain", "key", "nan", "plain", "stop", "set", "none", "value"])
        self.assertEqual(results, ["ok", None, None, "ok", None, None, None, None])
        self.assertEqual({key: value["error"].split(":")[0] for key, value in failed.items()}, {
            "1": "KeyError", "2": "the result holds NaN or Infinity, which JSON lacks", "4": "StopIteration",
            "5": "a result of type set can't be JSON", "7": "ValueError"})
        self.assertIn("handler.py", failed["1"]["traceback"])
        self.assertEqual({value["code"] for value in failed.values()}, {"handler_error"})

    def test_all_and_the_last_fail(self):
        worker = self.start("choose")
        self.assertEqual(sorted(self.ask(worker, ["key"] * 3)[1]), ["0", "1", "2"])
        self.assertEqual(sorted(self.ask(worker, ["plain", "stop"])[1]), ["1"])
        self.assertEqual(sorted(self.ask(worker, ["plain", "binary"])[1]), ["1"])

    def test_no_body_runs_twice(self):
        worker = self.start("count")
        path = os.path.join(self.folder.path, "runs")
        results, failed = self.ask(worker, [path] * 100)
        self.assertEqual(os.path.getsize(path), 100)
        self.assertEqual(sorted(map(int, failed)), list(range(2, 100, 3)))
        self.assertEqual([index for index, result in enumerate(results) if result is None], list(range(2, 100, 3)))


class ListHandlers(WorkerCase):
    def setUp(self):
        super().setUp()
        self.folder.write("lists.py", """
            import remuda

            @remuda.batch(4)
            def upper(texts):
                assert isinstance(texts, list)
                return [ValueError("empty") if not t else t.upper() for t in texts]

            @remuda.batch(4)
            def short(texts):
                return texts[1:]

            @remuda.batch(4)
            def fails(texts):
                raise KeyError("x")
        """)

    def start_list(self, name):
        worker = self.folder.shim("lists.py:" + name)
        self.addCleanup(worker.__exit__)
        self.assertEqual(worker.handshake()["data"]["batch"], 4)
        return worker

    def test_takes_a_list(self):
        worker = self.start_list("upper")
        reply = worker.ask({"op": "call", "id": 1, "bodies": ["a", "", "c"]})
        self.assertEqual(reply["data"]["bodies"], ["A", None, "C"])
        self.assertEqual(reply["data"]["failed"]["1"]["error"], "ValueError: empty")
        self.assertEqual(self.result(worker.call("a")), "A")
        self.assertEqual(self.error(worker.call("")), "ValueError: empty")
        self.error(worker.ask({"op": "call", "id": 1, "bodies": ["a"] * 5}), "bad_request")

    def test_wrong_answers_fail_all(self):
        reply = self.start_list("short").ask({"op": "call", "id": 1, "bodies": ["a", "b"]})
        self.assertEqual(reply["data"]["bodies"], [None, None])
        self.assertIn("2 bodies and returned 1", reply["data"]["failed"]["1"]["error"])
        reply = self.start_list("fails").ask({"op": "call", "id": 1, "bodies": ["a", "b"]})
        self.assertEqual([reply["data"]["failed"][key]["error"] for key in "01"], ["KeyError: 'x'"] * 2)


class Process(WorkerCase):
    def test_ends_when_the_socket_ends(self):
        status, out, err = self.start("upper").finish()
        self.assertEqual((status, out, err), (0, "", ""))

    def test_ends_after_shutdown(self):
        worker = self.start("upper")
        self.assertEqual(worker.ask({"op": "shutdown", "id": 1})["data"], {"kind": "shutdown"})
        self.assertIsNone(worker.receive())
        self.assertEqual(worker.finish()[0], 0)

    def test_prints_are_a_log(self):
        worker = self.start("prints")
        self.assertEqual(self.result(worker.call("hello")), "hello")
        self.assertEqual(worker.process.stdout.readline(), b"hello\n")  # before the worker ends
        worker.close()
        self.assertEqual(worker.process.stdout.read(), b"no newline")

    def test_a_forked_child_that_returns_answers_nothing(self):
        worker = self.start("forks")
        self.assertEqual(self.result(worker.call(1)), "from the parent")
        self.assertEqual(self.result(worker.call(2)), "from the parent")

    def test_a_forked_child_does_not_hold_the_socket(self):
        worker = self.start("leaves_a_child")
        child = self.result(worker.call(1))
        try:
            worker.process.kill()
            self.assertIsNone(worker.receive())
        finally:
            os.kill(child, signal.SIGKILL)

    def test_a_started_program_does_not_inherit_the_socket(self):
        worker = self.start("descriptors")
        self.assertEqual(sorted(json.loads(self.result(worker.call(1)).replace("'", '"')))[:4], ["0", "1", "2", "3"])

    def test_numeric_libraries_get_one_thread_unless_set(self):
        worker = self.start("environment", MKL_NUM_THREADS="4")
        self.assertEqual(self.result(worker.call("OMP_NUM_THREADS")), "1")
        self.assertEqual(self.result(worker.call("MKL_NUM_THREADS")), "4")
        self.assertIsNone(self.result(worker.call("REMUDA_FD")))

    def test_a_worker_that_looks_for_its_next_call_sleeps_when_none_comes(self):
        worker = self.start("upper", REMUDA_SPIN_US="20000")
        self.assertEqual([self.result(worker.call("a%d" % n)) for n in range(200)], ["A%d" % n for n in range(200)])
        before = worker.cpu_seconds()
        time.sleep(0.5)  # that it does nothing takes time to see
        self.assertLess(worker.cpu_seconds() - before, 0.2)
        self.assertEqual(self.result(worker.call("b")), "B")
        self.assertEqual(worker.finish()[0], 0)

    def test_a_time_to_look_that_is_none_is_no_time(self):
        for text in ("", "0", "soon", "-5", "\u0665", "1e3"):
            self.assertEqual(self.result(self.start("upper", REMUDA_SPIN_US=text).call("a")), "A")

    def test_nobody_looks_for_longer_than_a_pool_can_mean(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for text in ("1000001", str(2 ** 64), "1" + 400 * "0", 5000 * "9"):
                with unittest.mock.patch.dict(os.environ, REMUDA_SPIN_US=text):
                    watch = remuda._watch(ours)
                if len(os.sched_getaffinity(0)) > 1:
                    self.assertEqual(watch.seconds, 1.0)

    def test_looking_begins_when_waits_are_short_and_ends_when_they_are_long(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            watch = remuda._Watch(ours, 3600.0)

            def receive(times):
                for _ in range(times):
                    theirs.sendall(b"call")
                    self.assertEqual(watch.receive(4), b"call")
            receive(1)
            self.assertEqual(watch.credit, 1)
            receive(100)
            self.assertEqual(watch.credit, remuda.WATCH_CREDIT)
            watch.credit, watch.seconds = 0, 1e-12
            receive(100)
            self.assertEqual(watch.credit, -remuda.WATCH_CREDIT)
            self.assertIsNone(watch.soon(4, time.perf_counter()))

    def test_a_long_wait_counts_for_two_short_ones(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            watch = remuda._Watch(ours, 3600.0)
            watch.credit = remuda.WATCH_CREDIT
            watch.waited(time.perf_counter() - 7200)
            self.assertEqual(watch.credit, remuda.WATCH_CREDIT - 2)
            for _ in range(3):
                watch.waited(time.perf_counter())
            self.assertEqual(watch.credit, remuda.WATCH_CREDIT)

    def test_who_looks_offers_its_processor_and_leaves_it_to_who_takes_it(self):
        ours, theirs = socket.socketpair()
        with ours, theirs, unittest.mock.patch("os.sched_yield") as offered:
            watch = remuda._Watch(ours, 3600)
            watch.credit = remuda.WATCH_CREDIT
            offered.side_effect = lambda: theirs.sendall(b"call")
            self.assertEqual(watch.soon(4, time.perf_counter()), b"call")
            self.assertEqual(watch.credit, remuda.WATCH_CREDIT)
            watch.seconds, offered.side_effect = 0.01, lambda: time.sleep(0.02)
            self.assertIsNone(watch.soon(4, time.perf_counter()))
            self.assertEqual(watch.credit, -remuda.WATCH_CREDIT)

    def test_nobody_looks_who_has_one_processor_alone(self):
        ours, theirs = socket.socketpair()
        with ours, theirs, unittest.mock.patch.dict(os.environ, REMUDA_SPIN_US="50"):
            with unittest.mock.patch("os.sched_getaffinity", return_value={0}):
                self.assertIsNone(remuda._watch(ours))
            with unittest.mock.patch("os.sched_getaffinity", return_value={0, 1}):
                self.assertAlmostEqual(remuda._watch(ours).seconds, 50e-6, places=12)

    def test_slot_and_id(self):
        self.assertEqual(self.result(self.start("identity").call(1)), [1, "w-7"])

    def test_ctrl_c_is_the_pools_matter(self):
        worker = self.start("upper")
        worker.process.send_signal(signal.SIGINT)
        self.assertEqual(self.result(worker.call("a")), "A")

    def test_a_worker_in_three_lines(self):
        path = self.folder.write("three.py", "import remuda\ndef upper(t): return t.upper()\nremuda.serve(upper)\n")
        with Worker([sys.executable, path], PYTHONPATH=os.path.dirname(os.path.abspath(SDK))) as worker:
            worker.handshake()
            self.assertEqual(self.result(worker.call("a")), "A")


if __name__ == "__main__":
    unittest.main()
