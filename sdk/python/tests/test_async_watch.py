"""When a worker with an `async def` looks for its next call, with a transport and a watch in the test's hand."""

import asyncio
import json
import os
import socket
import sys
import time
import unittest
import unittest.mock

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))
import remuda  # noqa: E402


class Transport:
    """Keeps what is written."""

    def __init__(self):
        self.written = []
        self.closed = False
        self.on_write = lambda: None

    def write(self, data):
        self.written.append(json.loads(data))
        self.on_write()

    def close(self):
        self.closed = True

    def is_closing(self):
        return self.closed

    def pause_reading(self):
        pass

    resume_reading = pause_reading


class Watch:
    """Finds what it is told to, and remembers what it was asked."""

    def __init__(self, *found):
        self.found = list(found)
        self.looks = []
        self.waits = []

    def soon(self, size, began):
        self.looks.append(began)
        chunk = self.found.pop(0) if self.found else None
        if isinstance(chunk, Exception):
            raise chunk
        return chunk

    def waited(self, began):
        self.waits.append(began)


def call(number, body="go"):
    return b'{"op":"call","id":%d,"body":"%s"}\n' % (number, body.encode())


class AsyncWatch(unittest.IsolatedAsyncioTestCase):
    def begin(self, *found):
        self.gate = asyncio.Event()
        self.errors = []
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(lambda _loop, context: self.errors.append(context))

        async def handler(body):
            if body == "wait":
                await self.gate.wait()
            return body

        self.session = remuda._async_session()(remuda._Plan(handler), None)
        self.transport, self.watch = Transport(), Watch(*found)
        self.session.watch = self.watch
        self.session.connection_made(self.transport)
        self.receive(b'{"op":"handshake","version":"1"}\n')
        self.transport.written.clear()

    def receive(self, chunk):
        self.session.data_received(chunk)

    async def answered(self, *ids):
        """Lets the loop run until it has nothing to do, and checks what was answered in all."""
        for _ in range(20):  # more turns than any call here takes
            await asyncio.sleep(0)
        self.assertEqual([reply["id"] for reply in self.transport.written], list(ids))
        self.assertEqual(self.errors, [])

    async def test_it_looks_once_the_last_answer_is_out_and_serves_what_it_finds(self):
        self.begin(call(2), call(3) + call(4), None)
        self.receive(call(1))
        self.assertEqual(self.watch.looks, [])
        await self.answered(1, 2, 3, 4)
        self.assertEqual(len(self.watch.looks), 3)
        self.assertEqual(self.watch.waits, [])

    async def test_it_does_not_look_while_a_job_runs(self):
        self.begin()
        self.receive(call(1, "wait") + call(2))
        await self.answered(2)
        self.assertEqual(self.watch.looks, [])
        self.gate.set()
        await self.answered(2, 1)
        self.assertEqual(len(self.watch.looks), 1)

    async def test_what_is_ready_on_the_loop_goes_first_and_its_jobs_are_not_held_up(self):
        self.begin()

        def next_comes():
            self.transport.on_write = lambda: None
            self.loop.call_soon(self.receive, call(2, "wait"))

        self.transport.on_write = next_comes
        self.receive(call(1))
        await self.answered(1)
        self.assertEqual(self.watch.looks, [])

    async def test_it_does_not_look_where_answers_wait_to_be_read(self):
        self.begin()
        self.session.pause_writing()
        self.receive(call(1))
        await self.answered(1)
        self.assertEqual(self.watch.looks, [])

    async def test_it_does_not_look_after_the_end(self):
        self.begin()
        self.receive(call(1, "wait"))
        self.session.eof_received()
        self.gate.set()
        await self.answered(1)
        self.assertTrue(self.transport.closed)
        self.assertEqual(self.watch.looks, [])

    async def test_a_connection_that_is_lost_or_ended_is_the_transports_matter(self):
        self.begin(ConnectionResetError(), b"")
        for number in (1, 2):
            self.receive(call(number))
            await self.answered(*range(1, number + 1))
        self.assertEqual(len(self.watch.looks), 2)
        self.assertFalse(self.transport.closed)

    async def test_a_wait_that_looking_did_not_end_is_judged_once_from_where_it_began(self):
        self.begin()
        before = time.perf_counter()
        self.receive(call(1))
        await self.answered(1)
        after = time.perf_counter()
        self.receive(call(2, "wait"))
        self.receive(call(3, "wait"))
        self.assertEqual(self.watch.waits, self.watch.looks)
        self.assertTrue(before <= self.watch.waits[0] <= after)


class Length(unittest.TestCase):
    def test_the_loop_never_stands_still_for_longer_than_a_millisecond(self):
        async def handler(body):
            return body

        ours, theirs = socket.socketpair()
        with ours, theirs, unittest.mock.patch.dict(os.environ, REMUDA_SPIN_US="1000000"), \
                unittest.mock.patch("os.sched_getaffinity", return_value={0, 1}), \
                unittest.mock.patch.object(remuda, "_Watch", wraps=remuda._Watch) as watch:
            theirs.shutdown(socket.SHUT_WR)
            remuda._run_async(ours, remuda._Plan(handler))
        watch.assert_called_once_with(unittest.mock.ANY, 0.001)


if __name__ == "__main__":
    unittest.main()
