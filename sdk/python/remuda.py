"""Remuda for Python: a worker in three lines, and a client. One file, no dependencies, Python 3.8 or later.

A worker, started by `remuda map -- python3 worker.py`:

    import remuda
    def upper(text): return text.upper()
    remuda.serve(upper)

A client of a pool that `remuda serve` runs:

    with remuda.Client() as pool:
        print(pool.call("abc"))

`remuda map --python FILE.py:FUNCTION` runs this same file, which the binary carries inside. README.md beside
this file has the whole contract; docs/protocol.md has the protocol.
"""

import sys

if __name__ == "__main__" and sys.path and sys.path[0] == "":
    del sys.path[0]  # by `python3 -c` the current folder's json.py would come before the library's

import json
import os
import re
import socket
import time

__all__ = ["serve", "batch", "capacity", "slot", "worker_id", "Client", "AsyncClient", "RemudaError"]

PROTOCOL_VERSION = "1"
DEFAULT_BATCH = 512  # bodies that one call may carry to a plain function, which gets them one by one
DEFAULT_CAPACITY = 64  # jobs that an `async def` handler runs at once
MAX_BODY_BYTES_DEFAULT = 16 * 1024 * 1024  # of one body, where this side accepts connections
ENVELOPE_BYTES = 64 * 1024  # what a line may hold besides its body
ID_BYTES_MAX = 64
WATCH_CREDIT = 16  # waits that were short enough for watching, at most, and too long ones, by which watching is judged
WATCH_SECONDS = 1.0  # the longest that a pool lets a worker look for its next call
ASYNC_WATCH_SECONDS = 0.001  # the longest that an event loop stands still for that, whatever the pool says
READ_BYTES = 64 * 1024  # below malloc's threshold for a mapping of its own
ERROR_CHARS = 2000  # of an `error`
TRACEBACK_CHARS = 8000  # of a `traceback`; its end is what is kept
TRACEBACKS_CACHED = 64
HANDSHAKE_SECONDS = 10.0  # how long a client waits for the handshake's answer
SEND_SECONDS = 10.0  # how long a listening worker waits for a client that doesn't read
WAITING_CALLS = 1024  # beyond the capacity of an `async def`, before the connection is read no further
ACCEPT_PAUSE_SECONDS = 0.1  # before a failed accept is tried again
DAY_SECONDS = 86400.0  # the longest that a client waits at once
CANCEL_SECONDS = 1.0  # how long past its timeout a client waits for the pool's own answer
MAP_WINDOW = 64  # jobs that `Client.map` has in flight
EXIT_CANNOT_SERVE = 78  # EX_CONFIG: the function couldn't be loaded, or there is nobody to serve

THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
)
if "REMUDA_FD" in os.environ:  # workers share the cores already: a numeric library's own threads would only fight
    for _name in THREAD_VARIABLES:
        os.environ.setdefault(_name, "1")


# ---------------------------------------------------------------------------------------------------------------
# A worker's public face


def serve(handler, *, batch=None, capacity=None, listen=None, max_body_bytes=MAX_BODY_BYTES_DEFAULT):
    """Answers jobs with `handler(body)` until the pool closes the connection, then returns.

    `handler` is a function or any callable; its result must be what JSON can hold. A plain function runs one job at
    a time, in order; an `async def` runs up to `capacity` (default 64) at once on one event loop. `batch=N` says that
    the handler takes a list of at most N bodies and returns as many results. `listen="/path.sock"` makes this a worker
    started by hand, for `--attach`: it owns that Unix socket (mode 0600) and serves any number of connections, still
    one job at a time. Lines of more than `max_body_bytes` are refused there; below a pool, the pool decides.

    Raises ValueError for an option that the handler can't honour; ends the process with status 78 when it was neither
    started by a pool nor told where to listen.
    """
    plan = _Plan(handler, batch, capacity)
    _line_buffer_output()
    if listen is not None:
        _Listener(listen, plan, max_body_bytes).run()
        return
    sock = _pool_socket()
    if sock is None:
        print("remuda: this is a worker, and no pool started it. Run `remuda map -- python3 FILE`, or give it a socket "
              "of its own: remuda.serve(handler, listen=\"/path.sock\")", file=sys.stderr)
        raise SystemExit(EXIT_CANNOT_SERVE)
    _serve_pool(sock, plan)


def batch(size):
    """Decorator: the handler takes a list of at most `size` bodies, and returns a list of as many results.

    An exception object among the results fails that job alone; one that is raised fails all of them.
    """
    return _marker("remuda_batch", size, "batch")


def capacity(jobs):
    """Decorator for an `async def` handler: how many jobs it runs at once."""
    return _marker("remuda_capacity", jobs, "capacity")


def slot():
    """This worker's place in its pool, 0 to num_workers - 1, kept over restarts (a GPU's number, say); else None."""
    text = os.environ.get("REMUDA_WORKER_SLOT", "")
    return int(text) if text.isdigit() else None


def worker_id():
    """The id that the pool gave this process, as a string; None outside a pool."""
    return os.environ.get("REMUDA_WORKER_ID")


def _marker(attribute, value, name):
    if type(value) is not int or value < 1:
        raise ValueError("remuda.%s takes a whole number from 1 on, as in @remuda.%s(64); got %r" % (name, name, value))

    def mark(function):
        setattr(function, attribute, value)
        return function

    return mark


class _Plan:
    """A handler, and what its worker declares about it in the handshake."""

    def __init__(self, handler, batch=None, capacity=None):
        if not callable(handler):
            raise ValueError("remuda.serve needs a function, and got %s" % type(handler).__name__)
        batch = batch if batch is not None else _marked(handler, "remuda_batch")
        capacity = capacity if capacity is not None else _marked(handler, "remuda_capacity")
        for name, value in (("batch", batch), ("capacity", capacity)):
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError("%s must be a whole number from 1 on; got %r" % (name, value))
        self.handler = handler
        self.is_async = _is_async(handler)
        if capacity is not None and capacity > 1 and not self.is_async:
            raise ValueError("a plain function runs one job at a time: capacity=%d needs an `async def`" % capacity)
        self.takes_list = batch is not None
        self.batch = batch if self.takes_list else 0 if self.is_async else DEFAULT_BATCH
        self.capacity = (capacity or DEFAULT_CAPACITY) if self.is_async else 1
        self.stopping = False
        self.stopped = None  # a future, where an event loop waits for it
        self.started = time.monotonic()
        self.jobs = 0
        self.failures = 0
        self.handshake = {
            "kind": "handshake", "version": PROTOCOL_VERSION, "instance": os.urandom(16).hex(), "pid": os.getpid(),
            "capacity": self.capacity, "ordered": not self.is_async, "batch": self.batch,
            "capabilities": ["cancel"] if self.is_async else [],
        }

    def stop(self):
        """Ends a worker that was started by hand."""
        self.stopping = True
        if self.stopped is not None and not self.stopped.done():
            self.stopped.set_result(None)

    def status(self):
        """What a `status` request is answered with."""
        return {"kind": "status", "pid": os.getpid(), "jobs": self.jobs, "failures": self.failures,
                "uptime_seconds": round(time.monotonic() - self.started, 3)}


def _marked(handler, attribute):
    while handler is not None:
        value = getattr(handler, attribute, None)
        if value is not None:
            return value
        handler = getattr(handler, "func", None)  # functools.partial
    return None


def _is_async(handler):
    while hasattr(handler, "func") and hasattr(handler, "keywords"):  # functools.partial
        handler = handler.func
    for candidate in (handler, getattr(type(handler), "__call__", None)):
        function = getattr(candidate, "__func__", candidate)
        code = getattr(function, "__code__", None)
        if code is not None and code.co_flags & 0x80:  # inspect.CO_COROUTINE; inspect itself is slow to import
            return True
        if hasattr(function, "_is_coroutine_mark") or hasattr(function, "_is_coroutine_marker"):
            return True
    return False


# ---------------------------------------------------------------------------------------------------------------
# JSON


def _refuse_constant(name):
    raise ValueError("%s is no JSON" % name)


def _plain(value):
    """What the encoder asks for when a value isn't JSON: bytes become text, all else is an error that names it."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode()
    hint = "; declare the function with `async def`" if type(value).__name__ == "coroutine" else ""
    raise TypeError("a result of type %s can't be JSON%s" % (type(value).__qualname__, hint))


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)
_scan = _decoder.scan_once
_encoder = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"), default=_plain)
_to_json = _encoder.encode
_ABSENT = object()
_SPACE = re.compile(r"[ \t\r\n]*")
_ESCAPED = bytes(range(32)) + b"\\"  # what a JSON string must escape, but for the quote
_PLAIN_LIST = re.compile(rb'\{"op":"call","id":([1-9]\d{0,14}),"bodies":\["')
_HEAD_ID = re.compile(rb'\s*\{\s*"op"\s*:\s*"call"\s*,\s*"id"\s*:\s*(-?\d{1,20}|"[ !#-\[\]-~]{1,64}")\s*,')


def _parse(text):
    """The value of one line. Raises ValueError, RecursionError."""
    try:
        value, end = _scan(text, 0)
        if end == len(text):
            return value
    except StopIteration:
        pass
    return _decoder.decode(text)  # tells white space around the value from what is wrong


def _raw_member(text, name):
    """The text of a member's value as it stands in an object that was parsed before."""
    found, at = "", _SPACE.match(text, 0).end()
    while text[at] in "{,":
        key, at = json.decoder.scanstring(text, _SPACE.match(text, at + 1).end() + 1)
        start = _SPACE.match(text, _SPACE.match(text, at).end() + 1).end()
        at = _scan(text, start)[1]
        if key == name:
            found = text[start:at]
        at = _SPACE.match(text, at).end()
    return found


def _encode(value):
    """`value` as JSON in UTF-8. Raises _Unfit with a sentence for the job's owner."""
    try:
        return _to_json(value).encode()
    except UnicodeEncodeError:
        reason = "the result holds half a surrogate pair, which UTF-8 lacks"
    except UnicodeDecodeError:
        reason = "the result is bytes that aren't UTF-8; return text, or base64"
    except RecursionError:
        reason = "the result nests too deeply, or holds itself"
    except TypeError as error:
        reason = str(error)
    except ValueError as error:
        reason = "the result holds NaN or Infinity, which JSON lacks" if "range" in str(error) else str(error)
    raise _Unfit(reason)


class _Unfit(Exception):
    """A result that can't be sent."""


def _clean(text, limit):
    if len(text) > limit:
        text = text[:limit // 4] + "\n...\n" + text[-(limit - limit // 4):]
    return text.encode("utf-8", "replace").decode()


_traceback_cache = {}


def _failure(error):
    """The fields that tell of an exception: `code`, `error` as "KeyError: 'text'", `traceback` from the handler on."""
    if isinstance(error, _Unfit):
        return {"code": "handler_error", "error": _clean(str(error), ERROR_CHARS)}
    try:
        message = str(error)
    except BaseException as inner:  # a __str__ that raises must not hide the failure itself
        message = "(its message could not be had: %s)" % type(inner).__name__
    name = type(error).__qualname__
    summary = _clean("%s: %s" % (name, message) if message else name, ERROR_CHARS)
    try:
        trace = _traceback(error, summary)
    except BaseException:
        trace = summary
    return {"code": "handler_error", "error": summary, "traceback": _clean(trace, TRACEBACK_CHARS)}


def _traceback(error, summary):
    import traceback

    own, link = _plain.__code__.co_filename, error.__traceback__
    while link is not None and link.tb_frame.f_code.co_filename == own and link.tb_frame.f_globals is globals():
        link = link.tb_next
    if error.__cause__ is not None or (error.__context__ is not None and not error.__suppress_context__):
        return "".join(traceback.format_exception(type(error), error, link))
    # Formatting frames costs more than most jobs; a run that fails 50,000 times fails in few places.
    key, step = [], link
    while step is not None and len(key) < 100:
        key.append((step.tb_frame.f_code, step.tb_lasti))
        step = step.tb_next
    key = tuple(key)
    frames = _traceback_cache.get(key)
    if frames is None:
        frames = "".join(traceback.format_tb(link))
        if len(_traceback_cache) >= TRACEBACKS_CACHED:
            _traceback_cache.clear()
        _traceback_cache[key] = frames
    if not frames:
        return summary
    return "Traceback (most recent call last):\n%s%s" % (frames, summary)


# ---------------------------------------------------------------------------------------------------------------
# The protocol, on the accepting side


class _Lines:
    """Cuts what arrives into lines, without copying a long one more than twice."""

    def __init__(self, limit=None):
        self.limit = limit
        self.parts = []
        self.held = 0

    def feed(self, chunk):
        """The lines that `chunk` completes, without their ends. Raises _TooLong."""
        lines = chunk.split(b"\n")
        if self.parts and len(lines) > 1:
            self.parts.append(lines[0])
            lines[0] = b"".join(self.parts)
            self.parts, self.held = [], 0
        rest = lines.pop()
        if rest:
            self.parts.append(rest)
            self.held += len(rest)
        if self.limit is not None and (self.held > self.limit or any(len(line) > self.limit for line in lines)):
            raise _TooLong()
        return lines


class _TooLong(Exception):
    """A line over the limit."""


def _refusal(id_text, code, error):
    fields = '"ok":false,"code":"%s","error":%s}\n' % (code, _to_json(_clean(error, ERROR_CHARS)))
    return ("{" + fields if id_text is None else '{"id":%s,%s' % (id_text, fields)).encode()


def _accepted(id_text, data):
    fields = '"ok":true,"data":%s}\n' % _to_json(data)
    return ("{" + fields if id_text is None else '{"id":%s,%s' % (id_text, fields)).encode()


class _Session:
    """One connection to a plain function: takes a line, gives the answer."""

    def __init__(self, plan, limit=None):
        self.plan = plan
        self.handler = plan.handler
        self.lines = _Lines(limit)
        self.greeted = False
        self.closing = False

    def take(self, line):
        """The bytes that answer `line`, or None. Sets `closing` when the connection must end after them."""
        if self.greeted:
            found = _PLAIN_LIST.match(line)
            if found is not None:
                bodies = _plain_strings(line, found.end())
                if bodies is not None and len(bodies) <= self.plan.batch:
                    return self.call_list(found.group(1).decode(), bodies)
        try:
            message = _parse(line.decode())
        except (ValueError, RecursionError) as error:
            return self.unreadable(line, error)
        if type(message) is dict and self.greeted and message.get("op") == "call":
            return self.call(message, line)
        return self.other(message, line)

    def unreadable(self, line, error):
        """Answers what isn't a line of JSON, by the id where the line's beginning shows one."""
        if not self.greeted:
            return self.not_greeted()
        if not line.strip():
            return None
        found = _HEAD_ID.match(line)
        reason = "it nests too deeply" if isinstance(error, RecursionError) else str(error)
        return _refusal(found.group(1).decode() if found else None, "bad_request",
                        "the line could not be read as JSON: %s" % reason)

    def not_greeted(self):
        """Refuses, and ends the connection: an HTTP request, say, must never be read as lines."""
        self.closing = True
        return _refusal(None, "handshake_required", "the first line must be {\"op\":\"handshake\",\"version\":\"1\"}")

    def other(self, message, line):
        """Answers everything but a call."""
        if type(message) is not dict:
            return self.not_greeted() if not self.greeted else _refusal(None, "bad_request", "a line must be an object")
        op = message.get("op")
        if not self.greeted and op != "handshake":
            return self.not_greeted()
        id_text = self.id_text(message, line)
        if id_text is _ABSENT:
            return _bad_id()
        if op == "handshake":  # its version is for the other side to judge
            self.greeted = True
            return _accepted(id_text, self.plan.handshake)
        if op == "status":
            return _accepted(id_text, self.plan.status())
        if op == "cancel":
            self.cancel(id_text)
            return None
        if op == "shutdown":
            self.closing = True
            self.plan.stop()
            return _accepted(id_text, {"kind": "shutdown"})
        if type(op) is not str:
            return _refusal(id_text, "bad_request", "\"op\" must be a string")
        return _refusal(id_text, "unknown_op", "a worker answers handshake, call, cancel, status, shutdown; not %s" % op)

    def cancel(self, id_text):
        """A plain function reads the next line only when it is done: there is nothing left to cancel."""

    def id_text(self, message, line):
        """The id as JSON, as it came; None where there is none; _ABSENT where it is none that may be."""
        value = message.get("id", _ABSENT)
        if value is _ABSENT:
            return None
        if type(value) is int and 0 < value < 1 << 53:
            return str(value)
        if type(value) not in (int, float, str):
            return _ABSENT
        text = _raw_member(line.decode(), "id")
        return text if len(text.encode()) <= ID_BYTES_MAX + 2 * (type(value) is str) else _ABSENT

    def call(self, message, line):
        """Runs a call and gives its answer."""
        value = message.get("id")
        id_text = str(value) if type(value) is int and 0 < value < 1 << 53 else self.id_text(message, line)
        if id_text is _ABSENT:
            return _bad_id()
        prefix = "{" if id_text is None else '{"id":%s,' % id_text
        body = message.get("body", _ABSENT)
        if body is _ABSENT or "bodies" in message:
            bodies, problem = self.bodies(message)
            if problem:
                return _refusal(id_text, "bad_request", problem)
            return self.call_list(id_text, bodies)
        self.plan.jobs += 1
        try:
            if self.plan.takes_list:
                result = _one_of(_results(self.handler([body]), 1))
            else:
                result = self.handler(body)
            return b'%s"ok":true,"data":{"kind":"result","body":%s}}\n' % (prefix.encode(), _encode(result))
        except BaseException as error:
            return self.failed(prefix, error)

    def bodies(self, message):
        """The list of a call with `bodies`, and what is wrong with it."""
        bodies = message.get("bodies", _ABSENT)
        if bodies is _ABSENT:
            return None, "a call needs a \"body\", or \"bodies\""
        if "body" in message:
            return None, "a call has a \"body\" or \"bodies\", not both"
        if type(bodies) is not list:
            return None, "\"bodies\" must be an array"
        if not bodies:
            return None, "\"bodies\" must hold at least one body"
        if len(bodies) > self.plan.batch:
            return None, "this worker takes at most %d bodies a call, not %d" % (self.plan.batch, len(bodies))
        return bodies, None

    def failed(self, prefix, error):
        """The answer to a single job that raised. What ends a process is let through: the pool sees it end."""
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            raise error
        self.plan.failures += 1
        return ('%s"ok":false,%s\n' % (prefix, _to_json(_failure(error))[1:])).encode()

    def call_list(self, id_text, bodies):
        """Runs a call with several bodies, and gives its answer."""
        prefix = "{" if id_text is None else '{"id":%s,' % id_text
        self.plan.jobs += len(bodies)
        failed = {}
        if self.plan.takes_list:
            try:
                results = _results(self.handler(bodies), len(bodies))
            except BaseException as error:
                if isinstance(error, (SystemExit, KeyboardInterrupt)):
                    raise
                results, failed = _all_failed(error, len(bodies))
        else:
            results = _each(self.handler, bodies, failed)
        return self.results_line(prefix, results, failed)

    def results_line(self, prefix, results, failed):
        """The answer to a call with several bodies; results that can't be sent join the failed."""
        try:
            text = _plain_array(results) or _to_json(results).encode()
        except Exception:
            text = b"[%s]" % b",".join(_encode_or_fail(results, failed))
        self.plan.failures += len(failed)
        failures = _to_json({str(index): failed[index] for index in sorted(failed)}) if failed else "{}"
        return b'%s"ok":true,"data":{"kind":"results","bodies":%s,"failed":%s}}\n' % (
            prefix.encode(), text, failures.encode())


def _plain_strings(line, start):
    """The bodies of a call that holds nothing but strings without escapes, which need no parser; else None."""
    if not line.endswith(b'"]}') or line.find(b"\\", start) >= 0:
        return None
    try:
        text = line[start:-3].decode()
    except UnicodeDecodeError:
        return None
    strings = text.split('","')
    # Each quote belongs to a separator, or there are objects, numbers or other fields among them.
    return strings if text.count('"') == 2 * len(strings) - 2 else None


def _plain_array(results):
    """The JSON of strings of which none needs an escape, at a third of the encoder's cost; else None."""
    try:
        text = '","'.join(results)
    except TypeError:
        return None
    if text.count('"') != 2 * len(results) - 2:
        return None
    raw = text.encode()
    return b'["%s"]' % raw if len(raw.translate(None, _ESCAPED)) == len(raw) else None


def _bad_id():
    return _refusal(None, "bad_request", "an id is a number or a string of at most %d bytes" % ID_BYTES_MAX)


def _each(handler, bodies, failed):
    """Runs `handler` on each body, none of them twice; those that raise go into `failed` by their index."""
    results = []
    remaining = iter(bodies)
    while True:
        try:
            # extend keeps what it took before an exception: the loop is C's, and the count tells which body raised.
            results.extend(map(handler, remaining))
            if len(results) == len(bodies):
                return results
            error = StopIteration()  # raised by the handler, it looks to extend like the end
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as raised:
            error = raised
        failed[len(results)] = _failure(error)
        results.append(None)
        if len(results) == len(bodies):
            return results


def _results(answer, count):
    """A list handler's answer as a list of `count` results. Raises _Unfit."""
    if isinstance(answer, (str, bytes, dict)) or not hasattr(answer, "__iter__"):
        raise _Unfit("a batch handler must return a list of results, not %s" % type(answer).__qualname__)
    answer = list(answer)
    if len(answer) != count:
        raise _Unfit("the batch handler was given %d bodies and returned %d results" % (count, len(answer)))
    return answer


def _one_of(results):
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


def _all_failed(error, count):
    failure = _failure(error)
    return [None] * count, dict.fromkeys(range(count), failure)


def _encode_or_fail(results, failed):
    for index, result in enumerate(results):
        try:
            if isinstance(result, BaseException):
                raise result
            yield _encode(result)
        except BaseException as error:
            failed[index] = _failure(error)
            yield b"null"


# ---------------------------------------------------------------------------------------------------------------
# Below a pool


def _line_buffer_output():
    """stdout is a log that the pool reads line by line: a line must not wait for the buffer to fill."""
    try:
        sys.stdout.reconfigure(line_buffering=True)
    except (AttributeError, ValueError):  # replaced by the program, or closed
        pass


def _trace_crashes():
    """A crash of the interpreter, as in a module written in C, leaves the lines it was at on stderr."""
    import faulthandler
    try:
        faulthandler.enable()
    except (AttributeError, OSError, RuntimeError, ValueError):
        pass  # There is no stderr with a descriptor.


def _pool_socket():
    """The connection that a pool left at descriptor REMUDA_FD, kept from this process's children; None without one."""
    text = os.environ.pop("REMUDA_FD", None)
    if text is None:
        return None
    try:
        fd = int(text)
        os.set_inheritable(fd, False)
        os.set_blocking(fd, True)
        sock = socket.socket(fileno=fd)
    except (ValueError, OSError) as error:
        print("remuda: REMUDA_FD=%s is no socket: %s" % (text, error), file=sys.stderr)
        raise SystemExit(EXIT_CANNOT_SERVE)
    # A forked child that held it would keep the pool from seeing this process end.
    os.register_at_fork(after_in_child=sock.close)
    return sock


def _serve_pool(sock, plan):
    import gc
    import signal
    import threading

    if threading.current_thread() is threading.main_thread():
        # Ctrl-C reaches the whole terminal; whether running jobs may finish is for the pool to say.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()  # what was imported stays: no collection needs to walk it again
    pid = os.getpid()
    try:
        if plan.is_async:
            _run_async(sock, plan)
        else:
            _run(sock, _Session(plan))
    except OSError:  # the pool has gone, or this is a forked child that came back from the handler
        pass
    finally:
        if os.getpid() != pid:
            os._exit(0)
        sock.close()


class _Watch:
    """Looks for the next call for a while before the process sleeps: a wake-up across processors costs more than a
    short job. Only while calls mostly come that fast and nobody else needs the processor."""

    def __init__(self, sock, seconds):
        self.recv = sock.recv
        self.seconds = seconds
        self.credit = 0  # above zero: waits are mostly short

    def receive(self, size):
        """What comes, however long that takes."""
        began = time.perf_counter()
        chunk = self.soon(size, began)
        if chunk is None:
            chunk = self.recv(size)
            self.waited(began)
        return chunk

    def soon(self, size, began):
        """What comes soon; None if that is nothing."""
        recv, seconds, clock, looked = self.recv, self.seconds, time.perf_counter, began
        while self.credit > 0:
            try:
                chunk = recv(size, socket.MSG_DONTWAIT)
                self.credit = min(self.credit + 1, WATCH_CREDIT)
                return chunk
            except BlockingIOError:
                pass
            os.sched_yield()
            before, looked = looked, clock()
            if looked - before > seconds:  # somebody else had it all the time
                self.credit = -WATCH_CREDIT
            if looked - began > seconds:
                break
        return None

    def waited(self, began):
        """Judges watching by a wait that it didn't end."""
        if time.perf_counter() - began <= self.seconds:
            self.credit = min(self.credit + 1, WATCH_CREDIT)
        else:
            self.credit = max(self.credit - 2, -WATCH_CREDIT)


def _watch(sock, seconds_max=WATCH_SECONDS):
    """How to look for what the pool sends, for as long as the pool says; None where that is of no use."""
    text = os.environ.get("REMUDA_SPIN_US", "")
    # Digits beyond those of the limit are not read: Python refuses to, where there are thousands.
    seconds = int(text[:20]) * 1e-6 if text.isascii() and text.isdigit() else 0.0
    if not seconds or not hasattr(os, "sched_yield") or not hasattr(socket, "MSG_DONTWAIT"):
        return None
    if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) < 2:
        return None
    return _Watch(sock, min(seconds, seconds_max))


def _run(sock, session):
    """Each answer is sent before the next job starts: by that a pool knows which job a dead worker was running."""
    watch = _watch(sock)
    receive = sock.recv if watch is None else watch.receive
    send, take, feed = sock.sendall, session.take, session.lines.feed
    while True:
        chunk = receive(READ_BYTES)
        if not chunk:
            return
        for line in feed(chunk):
            answer = take(line)
            if answer is not None:
                send(answer)
            if session.closing:
                return


# ---------------------------------------------------------------------------------------------------------------
# async def handlers


def _run_async(sock, plan):
    import asyncio

    async def until_closed():
        loop = asyncio.get_running_loop()
        session = _async_session()(plan, None)
        session.watch = _watch(sock, ASYNC_WATCH_SECONDS)
        sock.setblocking(False)
        await loop.create_connection(lambda: session, sock=sock)
        await session.ended

    asyncio.run(until_closed())


def _async_session():
    """The class of a connection to an `async def`; made on demand, since importing asyncio is slow."""
    import asyncio
    import collections

    class AsyncSession(_Session, asyncio.Protocol):
        """Runs calls as tasks, and answers each as it ends."""

        def __init__(self, plan, limit, listening=False):
            super().__init__(plan, limit)
            self.loop = asyncio.get_running_loop()
            self.ended = self.loop.create_future()
            self.listening = listening
            self.running = {}  # a number of this session's own -> task
            self.by_id = {}  # id as JSON -> that number
            self.waiting = collections.deque()  # (call, timeout) beyond the capacity
            self.unnumbered = collections.deque()  # answers without an id go out in the order of their requests
            self.count = 0
            self.paused = False  # too many calls wait
            self.blocked = False  # too many answers do
            self.unread = None
            self.watch = None
            self.idle_since = None  # where watching has not ended the wait

        def connection_made(self, transport):
            self.transport = transport

        def pause_writing(self):
            """Takes no more calls from a peer that doesn't read, and leaves it when that lasts."""
            self.blocked = True
            self.transport.pause_reading()
            if self.listening:
                self.unread = self.loop.call_later(SEND_SECONDS, self.transport.abort)

        def resume_writing(self):
            self.blocked = False
            if self.unread is not None:
                self.unread.cancel()
            if not self.paused:
                self.transport.resume_reading()

        def connection_lost(self, _error):
            if self.unread is not None:
                self.unread.cancel()
            self.waiting.clear()
            for task in list(self.running.values()):
                task.cancel()
            if not self.ended.done():
                self.ended.set_result(None)

        def eof_received(self):
            self.closing = True
            return self.listening and bool(self.running)  # True keeps the connection for the answers

        def look(self):
            """Looks for the next call where no job runs; what else is on the loop waits for as long."""
            if self.running or self.blocked or self.closing:
                return
            began = time.perf_counter()
            try:
                chunk = self.watch.soon(READ_BYTES, began)
            except OSError:
                return  # the transport finds that out, too
            if chunk:
                self.data_received(chunk)
            else:
                self.idle_since = began

        def data_received(self, chunk):
            if self.idle_since is not None:
                self.watch.waited(self.idle_since)
                self.idle_since = None
            try:
                lines = self.lines.feed(chunk)
            except _TooLong:
                self.transport.write(_refusal(None, "body_too_large", "the line is over this worker's limit"))
                self.transport.close()
                return
            for line in lines:
                answer = self.take(line)
                if answer is not None:
                    self.send(answer)
                if self.closing:
                    self.transport.close()
                    return

        def send(self, answer):
            """Sends what didn't need to run; without an id it must wait for its turn."""
            if self.unnumbered and not answer.startswith(b'{"id":'):
                self.unnumbered.append([answer])
            else:
                self.transport.write(answer)

        def cancel(self, id_text):
            """The call itself answers, with its result or with `cancelled`."""
            number = self.by_id.get(id_text)
            if number in self.running:
                self.running[number].cancel()
                return
            for entry in self.waiting:
                if entry[1] == id_text and id_text is not None:
                    self.waiting.remove(entry)
                    self.by_id.pop(id_text, None)
                    self.send(_refusal(id_text, "cancelled", "cancelled before it started"))
                    return

        def call(self, message, line):
            id_text = self.id_text(message, line)
            if id_text is _ABSENT:
                return _bad_id()
            if "bodies" in message or "body" not in message:
                bodies, problem = self.bodies(message)
                if problem:
                    return _refusal(id_text, "bad_request", problem)
                work = (True, bodies)
            else:
                work = (False, message["body"])
            timeout = message.get("timeout_ms")
            self.enqueue(id_text, work, timeout / 1000 if type(timeout) in (int, float) and timeout > 0 else None)

        def call_list(self, id_text, bodies):
            self.enqueue(id_text, (True, bodies), None)

        def enqueue(self, id_text, work, timeout):
            """Starts a call, or lets it wait until the capacity has room."""
            hole = None
            if id_text is None:
                hole = []
                self.unnumbered.append(hole)
            self.count += 1
            entry = (self.count, id_text, work, timeout, hole)
            if id_text is not None:
                self.by_id[id_text] = self.count
            if len(self.running) < self.plan.capacity:
                self.start(entry)
            else:
                self.waiting.append(entry)
                if len(self.waiting) >= WAITING_CALLS and not self.paused:
                    self.paused = True
                    self.transport.pause_reading()

        def start(self, entry):
            number, id_text, work, timeout, hole = entry
            prefix = "{" if id_text is None else '{"id":%s,' % id_text
            task = self.loop.create_task(self.answer(prefix, *work))
            expiry = _Expiry(self.loop, task, timeout) if timeout is not None else None
            self.running[number] = task
            # A callback, since a task that is cancelled before its first step never runs a line of its own.
            task.add_done_callback(lambda task: self.done(task, number, id_text, hole, expiry))

        def done(self, task, number, id_text, hole, expiry):
            """Answers a call whose task has ended, and starts those that waited for it."""
            if expiry is not None:
                expiry.timer.cancel()
            self.running.pop(number, None)
            if self.by_id.get(id_text) == number:
                del self.by_id[id_text]
            if not task.cancelled():
                if task.exception() is not None:  # SystemExit: the loop is ending
                    return
                answer = task.result()
            elif expiry is not None and expiry.expired:
                answer = _refusal(id_text, "timeout", "the job ran longer than its timeout_ms")
            else:
                answer = _refusal(id_text, "cancelled", "cancelled while it ran")
            if not self.transport.is_closing():
                self.finish(answer, hole)

        async def answer(self, prefix, is_list, work):
            plan = self.plan
            if is_list:
                return await self.answer_list(prefix, work)
            plan.jobs += 1
            try:
                if plan.takes_list:
                    result = _one_of(_results(await self.handler([work]), 1))
                else:
                    result = await self.handler(work)
                return b'%s"ok":true,"data":{"kind":"result","body":%s}}\n' % (prefix.encode(), _encode(result))
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                return self.failed(prefix, error)

        async def answer_list(self, prefix, bodies):
            """A call with several bodies, which only a handler that takes a list declared."""
            self.plan.jobs += len(bodies)
            failed = {}
            try:
                results = _results(await self.handler(bodies), len(bodies))
            except (asyncio.CancelledError, SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                results, failed = _all_failed(error, len(bodies))
            return self.results_line(prefix, results, failed)

        def finish(self, answer, hole):
            if hole is None:
                self.transport.write(answer)
            else:
                hole.append(answer)
                while self.unnumbered and self.unnumbered[0]:
                    self.transport.write(self.unnumbered.popleft()[0])
            while self.waiting and len(self.running) < self.plan.capacity:
                self.start(self.waiting.popleft())
            if self.paused and len(self.waiting) < WAITING_CALLS // 2:
                self.paused = False
                if not self.blocked:
                    self.transport.resume_reading()
            if self.closing and not self.running:
                self.transport.close()
            if self.watch is not None and not self.running:
                self.loop.call_soon(self.look)

    return AsyncSession


class _Expiry:
    """Cancels a task when its time is up, and remembers having done so."""

    def __init__(self, loop, task, seconds):
        self.task = task
        self.expired = False
        self.timer = loop.call_later(seconds, self.expire)

    def expire(self):
        self.expired = True
        self.task.cancel()


# ---------------------------------------------------------------------------------------------------------------
# A worker started by hand


class _Listener:
    """A Unix socket of the worker's own. Jobs of all its connections run one after the other, on the main thread."""

    def __init__(self, address, plan, max_body_bytes):
        self.path = address[5:] if address.startswith("unix:") else address
        self.plan = plan
        self.limit = max_body_bytes + ENVELOPE_BYTES

    def run(self):
        """Serves until `shutdown`, SIGTERM or Ctrl-C, and takes the socket's file away at the end."""
        import signal

        def stop(_number, _frame):
            raise SystemExit(0)

        listener = self.bind()
        # A signal that comes right before a wait wakes nobody, but for what it writes here.
        rung, bell = socket.socketpair()
        rung.setblocking(False)
        bell.setblocking(False)
        bell_before = signal.set_wakeup_fd(bell.fileno(), warn_on_full_buffer=False)
        before = signal.signal(signal.SIGTERM, stop)
        try:
            if self.plan.is_async:
                self.run_async(listener, rung)
            else:
                self.run_plain(listener, rung)
        except KeyboardInterrupt:
            raise SystemExit(130)
        finally:
            signal.signal(signal.SIGTERM, before)
            signal.set_wakeup_fd(bell_before)
            rung.close()
            bell.close()
            listener.close()
            try:
                os.unlink(self.path)
            except OSError:
                pass

    def bind(self):
        """Binds the path, after a stale file was cleared. Ends the process with status 78 when it is in use."""
        probe = socket.socket(socket.AF_UNIX)
        try:
            probe.connect(self.path)
        except ConnectionRefusedError:
            os.unlink(self.path)
        except OSError:
            pass
        else:
            print("remuda: %s is in use by another process; choose another path" % self.path, file=sys.stderr)
            raise SystemExit(EXIT_CANNOT_SERVE)
        finally:
            probe.close()
        listener = socket.socket(socket.AF_UNIX)
        mask = os.umask(0o177)
        try:
            listener.bind(self.path)
        except OSError as error:
            print("remuda: can't listen on %s: %s" % (self.path, error), file=sys.stderr)
            raise SystemExit(EXIT_CANNOT_SERVE)
        finally:
            os.umask(mask)
        listener.listen(128)
        return listener

    def run_plain(self, listener, rung):
        """One thread, which reads whichever connection has something to say."""
        import selectors

        selector = selectors.DefaultSelector()
        selector.register(listener, selectors.EVENT_READ, None)
        selector.register(rung, selectors.EVENT_READ, None)
        while not self.plan.stopping:
            for key, _events in selector.select():
                if key.fileobj is rung:
                    rung.recv(READ_BYTES)  # the signal's own handler does the rest
                elif key.data is None:
                    try:
                        sock, _address = listener.accept()
                    except OSError as error:  # out of descriptors, say: they come back when a client leaves
                        print("remuda: can't accept: %s" % error, file=sys.stderr)
                        time.sleep(ACCEPT_PAUSE_SECONDS)
                        continue
                    sock.settimeout(SEND_SECONDS)
                    selector.register(sock, selectors.EVENT_READ, _Session(self.plan, self.limit))
                elif not self.turn(key.fileobj, key.data):
                    selector.unregister(key.fileobj)
                    key.fileobj.close()

    def turn(self, sock, session):
        """Answers what one connection sent. False when it is over."""
        try:
            chunk = sock.recv(READ_BYTES)
            if not chunk:
                return False
            for line in session.lines.feed(chunk):
                answer = session.take(line)
                if answer is not None:
                    sock.sendall(answer)
                if session.closing:
                    return False
        except _TooLong:
            try:
                sock.sendall(_refusal(None, "body_too_large", "the line is over this worker's limit"))
            except OSError:
                pass
            return False
        except OSError:
            return False
        return True

    def run_async(self, listener, rung):
        import asyncio

        async def until_stopped():
            loop = asyncio.get_running_loop()
            session = _async_session()
            loop.add_reader(rung, rung.recv, READ_BYTES)
            self.plan.stopped = loop.create_future()
            server = await loop.create_unix_server(lambda: session(self.plan, self.limit, True), sock=listener)
            try:
                await self.plan.stopped
            finally:
                server.close()

        asyncio.run(until_stopped())


# ---------------------------------------------------------------------------------------------------------------
# The client


class RemudaError(Exception):
    """A job that has no result, or a pool that can't be reached.

    `code` is one of the protocol's codes (`queue_full`, `timeout`, `handler_error`, ...), or `disconnected` where the
    connection failed: a job that was under way may then have run. `traceback` is the handler's, if it sent one.
    """

    def __init__(self, code, message, traceback=None):
        super().__init__("%s: %s" % (code, message))
        self.code = code
        self.message = message
        self.traceback = traceback


class Client:
    """A connection to a pool, or to a worker that listens. Threads may share it: their calls travel together.

    `address` is `unix:/path`, `tcp:host:port`, `tls:host:port` or one that begins with a slash; without it, REMUDA_ADDR,
    else default.sock in $XDG_RUNTIME_DIR/remuda or in /tmp/remuda-UID. Options follow after commas: `ca=FILE` (whom to
    trust, else whom the system trusts), `name=HOST` (the name in the certificate, else the host), `cert=FILE` and
    `key=FILE` (what to show, where it is asked for), `token_file=FILE`. `token` (or the file's, or REMUDA_TOKEN) is for
    listeners that want one. `connect_timeout` bounds connecting and the handshake, in seconds. A connection that was lost is made anew by
    the next call; what was under way fails with `disconnected`, and is never sent again by itself.
    """

    def __init__(self, address=None, *, token=None, connect_timeout=HANDSHAKE_SECONDS):
        import threading

        self._address = address
        self._token = token
        self._connect_timeout = connect_timeout
        self._condition = threading.Condition(threading.RLock())
        self._sending = threading.Lock()
        self._link = None
        self._closed = False
        self.peer = {}
        with self._sending:
            self._connect()

    def call(self, body, timeout=None):
        """The result of one job. `timeout` is in seconds, and is enforced by the pool. Raises RemudaError, and
        ValueError for a timeout that is none."""
        link, number = self._send("call", body, timeout)
        return _result_of(self._wait(link, number, timeout))

    def map(self, bodies, timeout=None, window=MAP_WINDOW, return_errors=False):
        """Yields the results of `bodies` in their order, with up to `window` jobs under way.

        A failed job raises its RemudaError, and ends the iteration; with `return_errors` it is yielded in its place.
        """
        import collections

        under_way = collections.deque()
        try:
            for body in bodies:
                under_way.append(self._send("call", body, timeout))
                while len(under_way) >= window:
                    yield self._next_result(under_way, timeout, return_errors)
            while under_way:
                yield self._next_result(under_way, timeout, return_errors)
        finally:
            for link, number in under_way:
                self._forget(link, number)

    def status(self, timeout=HANDSHAKE_SECONDS):
        """What the pool says of itself, as a dict."""
        link, number = self._send("status", _ABSENT, None)
        return _data_of(self._wait(link, number, timeout))

    def close(self):
        """Ends the connection; calls that still wait fail with `disconnected`."""
        with self._condition:
            self._closed = True
            link = self._link
        if link is not None:
            self._lose(link, "the client was closed")

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()

    def _connect(self):
        sock, target = _connect_any(self._address, self._connect_timeout)
        try:
            if target.tls is not None:
                sock = target.secured(sock)
            self.peer, rest = _greet(sock, target.token(self._token), target.name)
            sock.settimeout(None)
            if target.tls is not None:
                sock = _TlsSocket(sock)
        except BaseException:
            sock.close()
            raise
        self._link = _Link(sock, rest)

    def _send(self, op, body, timeout):
        """Sends a request; gives the link that it went by, and its id there."""
        fields = "" if body is _ABSENT else ',"body":%s' % _body_json(body)
        fields += _budget(timeout)
        with self._sending:
            if self._closed:
                raise RemudaError("disconnected", "this client was closed")
            if self._link is None:
                self._connect()
            link = self._link
            link.count += 1
            number = link.count
            link.answers[number] = None
            try:
                self._write(link, ('{"op":"%s","id":%d%s}\n' % (op, number, fields)).encode())
            except (OSError, ValueError) as error:  # ValueError: closed by another thread meanwhile
                self._lose(link, str(error))
        return link, number

    def _wait(self, link, number, timeout):
        """The answer to a request. One of the waiting threads reads for all."""
        deadline = None if timeout is None else time.monotonic() + timeout + CANCEL_SECONDS
        while True:
            with self._condition:
                while link.answers[number] is None and link.reading and not link.lost:
                    if not self._condition.wait(_remaining(deadline)) and _remaining(deadline) == 0:
                        break
                answer = link.answers[number]
                if answer is not None:
                    del link.answers[number]
                    return answer
                if link.lost:
                    del link.answers[number]
                    raise RemudaError("disconnected", link.lost)
                if _remaining(deadline) == 0:
                    break
                link.reading = True
            try:
                self._read(link, number, deadline)
            finally:
                self._stop_reading(link)
        self._forget(link, number)
        raise RemudaError("timeout", "no answer within %g s" % timeout)

    def _read(self, link, number, deadline):
        """Reads until the answer `number` is there, the link is lost, or the time is up."""
        import select

        while link.answers[number] is None and not link.lost:
            if deadline is not None or isinstance(link.sock, _TlsSocket):
                poll = select.poll()
                poll.register(link.sock, select.POLLIN)
                if not poll.poll(None if deadline is None else _remaining(deadline) * 1000):
                    return
            self._take(link)

    def _take(self, link):
        """Reads once, and hands out the answers that came."""
        try:
            chunk = link.sock.recv(READ_BYTES)
            answers = [_parse(line.decode()) for line in link.lines.feed(chunk)]
        except BlockingIOError:  # what came is not a whole record of TLS yet
            return
        except (OSError, ValueError) as error:
            return self._lose(link, str(error))
        if not chunk:
            return self._lose(link, "the pool closed the connection")
        with self._condition:
            for answer in answers:
                if answer.get("id") in link.answers:
                    link.answers[answer["id"]] = answer
                elif "id" not in answer and not answer.get("ok"):
                    self._lose(link, "%s: %s" % (answer.get("code"), answer.get("error")))
            self._condition.notify_all()

    def _write(self, link, data):
        """Sends all of `data`, and reads meanwhile if nobody else does: the peer may read only when we do."""
        import select

        unsent = memoryview(data)
        while unsent and not link.lost:
            try:
                unsent = unsent[link.sock.send(unsent, socket.MSG_DONTWAIT):]
                continue
            except BlockingIOError:
                pass
            with self._condition:
                reads = not link.reading
                link.reading = True
            poll = select.poll()
            poll.register(link.sock, select.POLLOUT | (select.POLLIN if reads else 0))
            try:
                # The bound is for a thread that reads now and stops: then it is this one's turn.
                ready = poll.poll(None if reads else 100)
                if reads and ready and ready[0][1] & ~select.POLLOUT:
                    self._take(link)
            finally:
                if reads:
                    self._stop_reading(link)

    def _stop_reading(self, link):
        """Leaves the reading to another thread that waits."""
        with self._condition:
            link.reading = False
            if link.lost:
                link.sock.close()
            self._condition.notify_all()

    def _lose(self, link, reason):
        """Marks a link as over; whoever waits on it finds out."""
        with self._condition:
            link.lost = link.lost or reason
            if self._link is link:
                self._link = None
            try:
                link.sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads, which close would not
            except OSError:
                pass
            if not link.reading:
                link.sock.close()
            self._condition.notify_all()

    def _forget(self, link, number):
        """Cancels a request that nobody waits for any more."""
        with self._condition:
            waited = link.answers.pop(number, None) is None and not link.lost
        if waited:
            with self._sending:
                try:
                    link.sock.sendall(b'{"op":"cancel","id":%d}\n' % number)
                except OSError as error:
                    self._lose(link, str(error))

    def _next_result(self, under_way, timeout, return_errors):
        link, number = under_way.popleft()
        try:
            return _result_of(self._wait(link, number, timeout))
        except RemudaError as error:
            if return_errors:
                return error
            raise


class _TlsSocket:
    """TLS with what the client uses of a socket. OpenSSL lets one thread at a time use a connection."""

    def __init__(self, sock):
        import ssl
        import threading

        self._sock = sock
        self._lock = threading.Lock()
        self._not_yet = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
        sock.setblocking(False)

    def fileno(self):
        return self._sock.fileno()

    def recv(self, size):
        """What is there, b"" at the end. Raises BlockingIOError if that is no whole record yet."""
        with self._lock:
            try:
                chunk = self._sock.recv(size)
                while self._sock.pending():  # decrypted already: no poll tells of it
                    chunk += self._sock.recv(self._sock.pending())
                return chunk
            except self._not_yet:
                raise BlockingIOError() from None

    def send(self, data, _flags=0):
        with self._lock:
            try:
                return self._sock.send(data)
            except self._not_yet:
                raise BlockingIOError() from None

    def sendall(self, data):
        import select

        unsent = memoryview(data)
        while unsent:
            try:
                unsent = unsent[self.send(unsent):]
            except BlockingIOError:
                poll = select.poll()
                poll.register(self, select.POLLOUT)
                poll.poll()

    def shutdown(self, how):
        socket.socket.shutdown(self._sock, how)  # below TLS, whose state another thread may be using

    def close(self):
        self._sock.close()


class _Link:
    """One connection's state: the requests that wait, and the answers that came."""

    def __init__(self, sock, lines):
        self.sock = sock
        self.lines = lines
        self.count = 0
        self.answers = {}  # id -> None while it is awaited, then the answer
        self.reading = False
        self.lost = None  # why it is over


def _remaining(deadline):
    """How long may be waited now, in seconds: poll takes no more than 24 days."""
    return None if deadline is None else min(max(0.0, deadline - time.monotonic()), DAY_SECONDS)


def _budget(timeout):
    """The field that tells the pool how long a call may take."""
    if timeout is None:
        return ""
    if not 0 <= timeout < float("inf"):
        raise ValueError("timeout is %r: give seconds, 0 or more, or None for as long as it takes" % (timeout,))
    return ',"timeout_ms":%d' % max(1, int(timeout * 1000))


def _body_json(body):
    try:
        return _encode(body).decode()
    except _Unfit as error:
        raise RemudaError("bad_request", str(error).replace("result", "body")) from None


def _data_of(answer):
    if not answer.get("ok"):
        raise RemudaError(answer.get("code", "internal"), answer.get("error", ""), answer.get("traceback"))
    return answer.get("data")


def _result_of(answer):
    return _data_of(answer)["body"]


class _Target:
    """One address to try: where it is, as the user would write it, and what TLS and the handshake need."""

    def __init__(self, kind, place, port=None, options=None):
        self.kind, self.place, self.port = kind, place, port
        self.options = options or {}
        self.name = "%s:%s" % (kind, place) if port is None else "%s:%s:%d" % (kind, place, port)
        self.tls = self._context() if kind == "tls" else None

    def _context(self):
        import ssl

        try:
            context = ssl.create_default_context(cafile=self.options.get("ca"))
            if "cert" in self.options:
                context.load_cert_chain(self.options["cert"], self.options.get("key"))
        except OSError as error:  # ssl.SSLError is one
            raise RemudaError("bad_request", "%s: the files of ca=, cert= and key= can't be used: %s" % (
                self.name, error)) from None
        return context

    @property
    def server_name(self):
        return self.options.get("name", self.place)

    def secured(self, sock):
        """The socket after TLS's handshake. Raises RemudaError."""
        try:
            return self.tls.wrap_socket(sock, server_hostname=self.server_name)
        except OSError as error:
            raise RemudaError("disconnected", "%s: %s" % (self.name, error)) from None

    def token(self, given):
        """The token to send: the given one, else that of `token_file=`, else the environment's."""
        if given is not None:
            return given
        if "token_file" not in self.options:
            return os.environ.get("REMUDA_TOKEN") or None
        try:
            with open(self.options["token_file"]) as file:
                return file.readline().strip()
        except OSError as error:
            raise RemudaError("bad_request", "%s: its token_file can't be read: %s" % (self.name, error)) from None


def _addresses(address):
    """What to try, in order."""
    address = address or os.environ.get("REMUDA_ADDR")
    if not address:
        folders = [os.path.join(os.environ["XDG_RUNTIME_DIR"], "remuda")] if os.environ.get("XDG_RUNTIME_DIR") else []
        folders.append("/tmp/remuda-%d" % os.getuid())
        return [_Target("unix", os.path.join(folder, "default.sock")) for folder in folders]
    plain, *options = address.split(",")
    if plain.startswith("/"):
        return [_Target("unix", plain)]
    kind, _, rest = plain.partition(":")
    if kind == "unix" and rest:
        return [_Target("unix", rest)]
    host, _, port = rest.rpartition(":")
    if kind in ("tcp", "tls") and host and port.isdigit():
        options = dict(option.partition("=")[::2] for option in options)
        return [_Target(kind, host.strip("[]"), int(port), options)]
    raise RemudaError(
        "bad_request", "%s is no address for this client: use unix:/path, tcp:host:port or tls:host:port" % address)


def _notice_silence(sock):
    """Has the kernel notice a pool whose machine or network is gone, which says no goodbye: after 20 s it asks, after 60 s it gives up."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):  # not on every system
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _connect_any(address, timeout):
    """A socket to the first address that answers, and which that is. Raises RemudaError, which names all that were tried.

    TLS has still to begin.
    """
    failures = []
    for target in _addresses(address):
        place = target.place
        try:
            if target.port is not None:
                sock = socket.create_connection((place, target.port), timeout)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _notice_silence(sock)
                return sock, target
            if place == "/tmp/remuda-%d/default.sock" % os.getuid():  # anyone may make a folder in /tmp
                owner = os.stat(os.path.dirname(place)).st_uid
                if owner not in (os.getuid(), 0):
                    raise OSError("its folder belongs to uid %d" % owner)
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.settimeout(timeout)
                sock.connect(place)
            except BaseException:
                sock.close()
                raise
            return sock, target
        except OSError as error:
            failures.append("%s (%s)" % (target.name, error.strerror or error))
    raise RemudaError("disconnected", "no pool answers at %s; start one with `remuda serve`" % " or ".join(failures))


def _handshake_line(token):
    fields = "" if token is None else ',"token":%s' % _to_json(token)
    return ('{"op":"handshake","version":"%s"%s}\n' % (PROTOCOL_VERSION, fields)).encode()


def _greet(sock, token, name):
    """Exchanges handshakes: what the peer declares, and the reader of what it sends after it."""
    lines = _Lines(ENVELOPE_BYTES)
    patience = sock.gettimeout()
    deadline = None if patience is None else time.monotonic() + patience
    try:
        sock.sendall(_handshake_line(token))
        got = []
        while not got:
            if deadline is not None:
                sock.settimeout(max(0.001, deadline - time.monotonic()))
            chunk = sock.recv(READ_BYTES)
            if not chunk:
                raise RemudaError("disconnected", "%s closed the connection in the handshake" % name)
            got = lines.feed(chunk)
        lines.limit = None
        return _check_greeting(got[0], name), lines
    except _TooLong:
        raise RemudaError("disconnected", "%s does not speak Remuda's protocol" % name) from None
    except socket.timeout:
        raise RemudaError("disconnected", "%s accepted, and didn't answer the handshake in time" % name) from None
    except OSError as error:
        raise RemudaError("disconnected", "%s: %s" % (name, error)) from None


def _check_greeting(line, name):
    try:
        data = _data_of(_parse(line.decode()))
        version = data["version"]
    except (ValueError, AttributeError, KeyError, TypeError):
        raise RemudaError("disconnected", "%s does not speak Remuda's protocol" % name) from None
    if version != PROTOCOL_VERSION:
        raise RemudaError("disconnected", "%s speaks version %s of the protocol, this client version %s" % (
            name, version, PROTOCOL_VERSION))
    return data


class AsyncClient:
    """The same client for asyncio: `async with AsyncClient() as pool: await pool.call(body)`.

    Any number of tasks may call at once. A call that is cancelled tells the pool so.
    """

    def __init__(self, address=None, *, token=None, connect_timeout=HANDSHAKE_SECONDS):
        self._address = address
        self._token = token
        self._connect_timeout = connect_timeout
        self._waiting = {}
        self._count = 0
        self._reader = None
        self._connecting = None
        self._closed = False
        self.peer = {}

    async def connect(self):
        """Connects, unless that was done. Raises RemudaError."""
        import asyncio

        if self._closed:
            raise RemudaError("disconnected", "this client was closed")
        if self._reader is None:
            self._connecting = self._connecting or asyncio.Lock()  # made here, since before 3.10 it binds to the loop
            async with self._connecting:
                if self._reader is None:
                    await self._open()
        return self

    async def _open(self):
        import asyncio

        loop = asyncio.get_running_loop()
        sock, target = await loop.run_in_executor(None, _connect_any, self._address, self._connect_timeout)
        name, token = target.name, target.token(self._token)
        sock.setblocking(False)
        tls = {} if target.tls is None else {
            "ssl": target.tls, "server_hostname": target.server_name, "ssl_handshake_timeout": self._connect_timeout}
        try:
            self._stream, self._writer = await asyncio.open_connection(sock=sock, **tls)
        except OSError as error:
            sock.close()
            raise RemudaError("disconnected", "%s: %s" % (name, error)) from None
        self._writer.write(_handshake_line(token))
        lines = _Lines(ENVELOPE_BYTES)
        try:
            line = await asyncio.wait_for(self._first_line(lines), self._connect_timeout)
            self.peer = _check_greeting(line, name)
        except BaseException as error:
            self._writer.close()
            if isinstance(error, asyncio.TimeoutError):
                raise RemudaError("disconnected", "%s didn't answer the handshake in time" % name) from None
            if isinstance(error, _TooLong):
                raise RemudaError("disconnected", "%s does not speak Remuda's protocol" % name) from None
            if isinstance(error, OSError):
                raise RemudaError("disconnected", "%s: %s" % (name, error)) from None
            raise
        lines.limit = None
        self._reader = loop.create_task(self._read(lines))

    async def _first_line(self, lines):
        got = []
        while not got:
            chunk = await self._stream.read(READ_BYTES)
            if not chunk:
                raise OSError("it closed the connection in the handshake")
            got = lines.feed(chunk)
        return got[0]

    async def call(self, body, timeout=None):
        """The result of one job. Raises RemudaError."""
        return _result_of(await self._ask("call", ',"body":%s' % _body_json(body), timeout))

    async def status(self):
        """What the pool says of itself, as a dict."""
        return _data_of(await self._ask("status", "", HANDSHAKE_SECONDS))

    async def close(self):
        """Ends the connection; calls that still wait fail with `disconnected`."""
        self._closed = True
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None
            self._writer.close()
            self._fail("the client was closed")

    async def __aenter__(self):
        return await self.connect()

    async def __aexit__(self, *_error):
        await self.close()

    async def _ask(self, op, fields, timeout):
        import asyncio

        if op == "call":
            fields += _budget(timeout)
        await self.connect()
        self._count += 1
        number = self._count
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._writer.write(('{"op":"%s","id":%d%s}\n' % (op, number, fields)).encode())
        try:
            await self._writer.drain()
            return await asyncio.wait_for(answer, None if timeout is None else timeout + CANCEL_SECONDS)
        except asyncio.TimeoutError:
            self._cancel(number)
            raise RemudaError("timeout", "no answer within %g s" % timeout) from None
        except OSError as error:
            raise RemudaError("disconnected", str(error)) from None
        except asyncio.CancelledError:
            self._cancel(number)
            raise
        finally:
            self._waiting.pop(number, None)

    def _cancel(self, number):
        if self._reader is not None and not self._writer.is_closing():
            self._writer.write(b'{"op":"cancel","id":%d}\n' % number)

    async def _read(self, lines):
        reason = "the pool closed the connection"
        try:
            while True:
                chunk = await self._stream.read(READ_BYTES)
                if not chunk:
                    break
                for line in lines.feed(chunk):
                    answer = _parse(line.decode())
                    future = self._waiting.get(answer.get("id"))
                    if future is not None and not future.done():
                        future.set_result(answer)
        except (OSError, ValueError, AttributeError) as error:
            reason = str(error)
        self._writer.close()
        self._reader = None  # the next call connects anew
        self._fail(reason)

    def _fail(self, reason):
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(RemudaError("disconnected", reason))


# ---------------------------------------------------------------------------------------------------------------
# The shim: python3 remuda.py --shim FILE.py:FUNCTION, which is what `remuda map --python` runs


class _CannotLoad(Exception):
    """A function that couldn't be had; says what to do."""


def _shim(spec):
    """Loads the function that `spec` names and serves it; the pool hears of a failure instead of a handshake."""
    sys.modules.setdefault("remuda", sys.modules[__name__])  # what `import remuda` in the user's file must find
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, "1")
    sock = None
    _line_buffer_output()
    _trace_crashes()
    try:
        sock = _pool_socket()
        if sock is None:
            raise _CannotLoad("no pool started this; run `remuda map --python %s`" % spec)
        try:
            plan = _Plan(_load(spec))
        except ValueError as error:
            raise _CannotLoad("%s: %s" % (spec, error))
    except _CannotLoad as error:
        reason = "cannot run --python %s" % " ".join(str(error).split())
        print("remuda: %s" % reason, file=sys.stderr, flush=True)
        if sock is not None:
            _refuse_handshake(sock, reason)
        raise SystemExit(EXIT_CANNOT_SERVE)
    _serve_pool(sock, plan)


def _refuse_handshake(sock, reason):
    try:
        sock.settimeout(HANDSHAKE_SECONDS)
        lines = _Lines(ENVELOPE_BYTES)
        while not lines.feed(sock.recv(READ_BYTES) or b"\n"):
            pass
        sock.sendall(_refusal(None, "internal", reason))
        sock.close()
    except (OSError, _TooLong):
        pass


def _load(spec):
    """The function that FILE.py:FUNCTION or pkg.mod:function names. Raises _CannotLoad."""
    place, colon, name = spec.rpartition(":")
    if not (colon and place and name):
        raise _CannotLoad("%s: name the function too, as FILE.py:FUNCTION or package.module:function" % spec)
    is_file = place.endswith(".py") or os.sep in place
    if is_file and not os.path.isfile(place):
        raise _CannotLoad("%s: there is no file %s" % (spec, os.path.abspath(place)))
    _first_on_path(os.path.dirname(os.path.abspath(place)) if is_file else os.getcwd())
    sys.argv = [place]
    try:
        module = _load_file(place) if is_file else _load_module(place)
    except (Exception, SystemExit) as error:
        raise _CannotLoad("%s: %s" % (spec, _why_not_loaded(error, place)))
    return _find_function(spec, place, module, name)


def _first_on_path(folder):
    """sys.path as `python3 FILE` would have it: the file's own folder in front, instead of this file's."""
    own = os.path.dirname(os.path.abspath(__file__)) if "__file__" in globals() else None
    if sys.path and (sys.path[0] == "" or sys.path[0] == own):
        sys.path[0] = folder
    elif folder not in sys.path[:1]:
        sys.path.insert(0, folder)


def _load_file(path):
    import importlib.machinery
    import importlib.util

    name = os.path.splitext(os.path.basename(path))[0]
    if name in sys.modules or not name.isidentifier():  # json.py must not replace the module that is loaded
        name = "_remuda_" + "".join(c if c.isalnum() else "_" for c in name)
    loader = importlib.machinery.SourceFileLoader(name, os.path.abspath(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_file_location(name, loader.path, loader=loader))
    sys.modules[name] = module
    loader.exec_module(module)
    return module


def _load_module(name):
    import importlib

    return importlib.import_module(name)


def _why_not_loaded(error, place):
    """One line for an exception that loading raised; its traceback goes to stderr, where it says more than the line."""
    if isinstance(error, SyntaxError) and error.filename:
        where = "%s, line %s" % (_short(error.filename), error.lineno)
        return "%s: %s: %s; correct that line" % (where, type(error).__name__, error.msg)
    if isinstance(error, SystemExit):
        return "it ended itself with sys.exit(%s) while it was loaded; guard that by if __name__ == \"__main__\"" % (
            "" if error.code is None else error.code)
    import traceback

    own, link = __name__ == "__main__" and _load.__code__.co_filename, error.__traceback__
    while link is not None and (link.tb_frame.f_code.co_filename == own
                                or link.tb_frame.f_code.co_filename.startswith("<frozen importlib")
                                or "importlib" in os.path.dirname(link.tb_frame.f_code.co_filename)):
        link = link.tb_next
    text = "%s: %s" % (type(error).__name__, error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        if not place.endswith(".py") and (place == error.name or place.startswith(error.name + ".")):
            return "there is no module %s in %s or on sys.path" % (error.name, os.getcwd())
        return "%s; install it for %s, or choose another interpreter with --python-bin" % (text, sys.executable)
    sys.stderr.write("".join(traceback.format_exception(type(error), error, link)))
    frames = [frame for frame in traceback.extract_tb(link) if frame.filename != own]
    where = " (%s, line %d)" % (_short(frames[-1].filename), frames[-1].lineno) if frames else ""
    return "%s%s while it was loaded; the traceback is in the log" % (text, where)


def _short(path):
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _find_function(spec, place, module, name):
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise _CannotLoad("%s: %s has no function %s%s" % (spec, place, name, _suggest(module, name)))
        found = getattr(found, part)
    if not callable(found):
        raise _CannotLoad("%s: %s is of type %s, not a function" % (spec, name, type(found).__name__))
    return found


def _suggest(module, name):
    import difflib

    functions = [key for key, value in vars(module).items()
                 if callable(value) and getattr(value, "__module__", None) == module.__name__ and key[0] != "_"]
    close = difflib.get_close_matches(name, functions, 1)
    if close:
        return "; did you mean %s?" % close[0]
    return "; it has %s" % ", ".join(sorted(functions)[:10]) if functions else ""


def _main(arguments):
    if len(arguments) == 2 and arguments[0] == "--shim":
        _shim(arguments[1])
    elif len(arguments) == 1 and not arguments[0].startswith("-"):
        _shim(arguments[0])
    else:
        print("usage: remuda map --python FILE.py:FUNCTION (which runs this file with --shim FILE.py:FUNCTION)",
              file=sys.stderr)
        raise SystemExit(EXIT_CANNOT_SERVE)


if __name__ == "__main__":
    _main(sys.argv[1:])
