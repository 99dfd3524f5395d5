"""Workers with an `async def`."""

import os
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from worker_process import Folder  # noqa: E402

HANDLERS = """
    import asyncio, functools, sys
    import remuda

    gate = None
    arrived = []

    @remuda.capacity(4)
    async def meet(body):
        "Answers when as many have come as the body says; in the opposite order."
        global gate
        gate = gate or asyncio.Event()
        arrived.append(body)
        if len(arrived) == body:
            gate.set()
        await gate.wait()
        return len(arrived)

    async def hang(body):
        if body == "go":
            return "went"
        if body == "fail":
            raise KeyError("text")
        if body == "nan":
            return float("nan")
        if body == "exit":
            sys.exit(5)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if body == "stubborn":
                return "done anyway"
            raise

    one = remuda.capacity(1)(functools.partial(hang))

    @remuda.batch(8)
    async def many(bodies):
        await asyncio.sleep(0)
        return [b.upper() for b in bodies]

    async def leave(body):
        if body == "later":
            asyncio.get_running_loop().call_later(0.01, sys.exit, 5)
        return body

    class Callable:
        async def __call__(self, body):
            return body
    instance = Callable()
"""


class Async(unittest.TestCase):
    def setUp(self):
        self.folder = Folder()
        self.folder.write("handlers.py", HANDLERS)
        self.addCleanup(self.folder.temporary.cleanup)

    def start(self, name, **environment):
        worker = self.folder.shim("handlers.py:" + name, **environment)
        self.addCleanup(worker.__exit__)
        self.data = worker.handshake()["data"]
        return worker

    def test_what_is_declared(self):
        self.start("hang")
        self.assertEqual([self.data[key] for key in ("capacity", "ordered", "batch", "capabilities")],
                         [64, False, 0, ["cancel"]])
        self.start("instance")
        self.assertFalse(self.data["ordered"])

    def test_jobs_run_at_once(self):
        worker = self.start("meet")
        worker.send(*({"op": "call", "id": n, "body": 4} for n in range(1, 5)))
        self.assertEqual(sorted(worker.receive()["id"] for _ in range(4)), [1, 2, 3, 4])

    def test_beyond_the_capacity_they_wait(self):
        worker = self.start("one")
        worker.send({"op": "call", "id": 1, "body": "wait"}, {"op": "call", "id": 2, "body": "go"},
                    {"op": "call", "id": 3, "body": "go"}, {"op": "cancel", "id": 3})
        self.assertEqual(worker.receive()["code"], "cancelled")
        worker.send({"op": "cancel", "id": 1})
        self.assertEqual([worker.receive().get(key) for key in ("id", "id")], [1, 2])

    def test_a_cancelled_call_answers_with_its_result_or_cancelled(self):
        worker = self.start("hang")
        worker.send({"op": "call", "id": "a", "body": 0}, {"op": "cancel", "id": "a"})
        reply = worker.receive()
        self.assertEqual((reply["id"], reply["code"]), ("a", "cancelled"))
        worker.send({"op": "call", "id": 2, "body": "stubborn"}, {"op": "status", "id": 0})
        self.assertEqual(worker.receive()["id"], 0)
        worker.send({"op": "cancel", "id": 99}, {"op": "cancel", "id": 2}, {"op": "cancel", "id": 2})
        self.assertIn(worker.receive().get("data", {}).get("body"), ("done anyway", None))

    def test_failures(self):
        worker = self.start("hang")
        reply = worker.call("fail")
        self.assertEqual((reply["code"], reply["error"]), ("handler_error", "KeyError: 'text'"))
        self.assertIn("handlers.py", reply["traceback"])
        self.assertIn("NaN", worker.call("nan")["error"])
        self.assertEqual(worker.call("wait", timeout_ms=20)["code"], "timeout")
        self.assertEqual(worker.ask({"op": "call", "id": 1, "bodies": ["a"]})["code"], "bad_request")

    def test_answers_without_an_id_keep_their_order(self):
        worker = self.start("hang")
        worker.send({"op": "call", "body": "wait", "timeout_ms": 50}, {"op": "call", "body": "go"}, {"op": "status"},
                    {"op": "call", "id": 7, "body": "go"})
        self.assertEqual(worker.receive()["id"], 7)
        self.assertEqual(worker.receive()["code"], "timeout")
        self.assertEqual(worker.receive()["data"]["body"], "went")
        self.assertEqual(worker.receive()["data"]["kind"], "status")

    def test_lists(self):
        worker = self.start("many")
        self.assertEqual(self.data["batch"], 8)
        worker.send(b'{"op":"call","id":1,"bodies":["a","b"]}\n')
        self.assertEqual(worker.receive()["data"], {"kind": "results", "bodies": ["A", "B"], "failed": {}})
        self.assertEqual(worker.call("c")["data"]["body"], "C")

    def test_ends_with_the_socket_while_jobs_run(self):
        worker = self.start("hang")
        worker.send({"op": "call", "id": 1, "body": "wait"}, {"op": "status"})
        worker.receive()
        self.assertEqual(worker.finish(), (0, "", ""))

    def test_sys_exit_ends_the_worker(self):
        worker = self.start("hang")
        worker.send({"op": "call", "id": 1, "body": "exit"})
        self.assertIsNone(worker.receive())
        self.assertEqual(worker.finish()[0], 5)

    def test_one_that_looks_for_its_next_call_sleeps_when_none_comes(self):
        worker = self.start("hang", REMUDA_SPIN_US="1000")
        for _ in range(200):
            self.assertEqual(worker.call("go")["data"]["body"], "went")
        before = worker.cpu_seconds()
        time.sleep(0.5)  # that it does nothing takes time to see
        self.assertLess(worker.cpu_seconds() - before, 0.2)
        self.assertEqual(worker.call("go")["data"]["body"], "went")
        worker.send(*[{"op": "call", "id": n, "body": "go"} for n in range(200)])
        self.assertEqual(sorted(worker.receive()["id"] for _ in range(200)), list(range(200)))
        self.assertEqual(worker.finish(), (0, "", ""))

    def test_what_else_is_on_the_loop_goes_on_while_it_may_look_for_an_hour(self):
        worker = self.start("leave", REMUDA_SPIN_US="3600000000")
        for _ in range(20):
            worker.call("now")
        worker.call("later")
        self.assertIsNone(worker.receive())
        self.assertEqual(worker.finish()[0], 5)


if __name__ == "__main__":
    unittest.main()
