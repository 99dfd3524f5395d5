"""What `--python SPEC` finds, and what it says when it doesn't."""

import os
import signal
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from worker_process import Folder  # noqa: E402

CANNOT_SERVE = 78


class Shim(unittest.TestCase):
    def setUp(self):
        self.folder = Folder()
        self.addCleanup(self.folder.temporary.cleanup)

    def answer(self, spec, body="a"):
        with self.folder.shim(spec) as worker:
            self.assertTrue(worker.handshake()["ok"])
            return worker.call(body)["data"]["body"]

    def refused(self, spec):
        """The one line that the pool gets, which is on stderr too."""
        with self.folder.shim(spec) as worker:
            reply = worker.handshake()
            self.assertEqual((reply["ok"], reply["code"]), (False, "internal"), reply)
            self.assertIsNone(worker.receive())
            status, out, err = worker.finish()
        self.assertEqual((status, out), (CANNOT_SERVE, ""))
        self.assertIn("remuda: %s\n" % reply["error"], err)
        self.assertNotIn("\n", reply["error"])
        self.assertTrue(reply["error"].startswith("cannot run --python %s: " % spec), reply)
        return reply["error"][len("cannot run --python %s: " % spec):]

    def test_a_file_in_a_folder_finds_its_neighbours(self):
        self.folder.write("deep/neighbour.py", "def up(s): return s.upper()")
        self.folder.write("deep/main.py", "import sys, neighbour\ndef f(s): return [neighbour.up(s), sys.path[0], __name__]")
        self.assertEqual(self.answer("deep/main.py:f"),
                         ["A", os.path.realpath(os.path.join(self.folder.path, "deep")), "main"])

    def test_a_module_of_the_current_folder(self):
        self.folder.write("pkg/__init__.py", "")
        self.folder.write("pkg/mod.py", "class C:\n    @staticmethod\n    def f(s): return s + '!'")
        self.assertEqual(self.answer("pkg.mod:C.f"), "a!")

    def test_a_file_named_as_a_module_that_is_loaded(self):
        self.folder.write("json.py", "def f(s): return s")
        self.folder.write("remuda.py", "def f(s): return s")
        self.assertEqual(self.answer("json.py:f", {"a": 1}), {"a": 1})
        self.assertEqual(self.answer("./remuda.py:f"), "a")

    def test_import_remuda_finds_the_shim_itself(self):
        self.folder.write("own.py", "import remuda\n@remuda.capacity(3)\nasync def f(s): return s * 2")
        self.assertEqual(self.answer("own.py:f"), "aa")

    def test_a_builtin_function(self):
        self.assertEqual(self.answer("json:dumps", [1]), "[1]")

    def test_no_function_named(self):
        self.assertIn("FILE.py:FUNCTION", self.refused("handler.py"))

    def test_no_such_file(self):
        self.assertEqual(self.refused("none.py:f"), "there is no file %s/none.py" % os.path.realpath(self.folder.path))
        self.assertEqual(self.refused("/none/at/all.py:f"), "there is no file /none/at/all.py")

    def test_no_such_module(self):
        self.assertIn("there is no module nowhere", self.refused("nowhere.mod:f"))

    def test_syntax_error(self):
        self.folder.write("bad.py", "x = 1\ndef f(:\n    pass\n")
        self.assertRegex(self.refused("bad.py:f"), r"^bad\.py, line 2: SyntaxError: .*; correct that line$")

    def test_function_missing_or_misspelt(self):
        self.folder.write("some.py", "def upper(s): pass\ndef lower(s): pass\nNUMBER = 5")
        self.assertEqual(self.refused("some.py:uper"), "some.py has no function uper; did you mean upper?")
        self.assertEqual(self.refused("some.py:zzz"), "some.py has no function zzz; it has lower, upper")
        self.assertEqual(self.refused("some.py:NUMBER"), "NUMBER is of type int, not a function")

    def test_import_error_names_the_interpreter(self):
        self.folder.write("imports.py", "import torch_of_nobody")
        self.assertIn("No module named 'torch_of_nobody'; install it for %s" % sys.executable, self.refused("imports.py:f"))

    def test_an_exception_while_it_is_loaded(self):
        self.folder.write("raises.py", "x = 1\ny = {}['k']")
        self.assertEqual(self.refused("raises.py:f"),
                         "KeyError: 'k' (raises.py, line 2) while it was loaded; the traceback is in the log")
        self.folder.write("marks.py", "import remuda\n@remuda.batch(0)\ndef f(s): return s")
        self.assertIn("got 0 (marks.py, line 2) while", self.refused("marks.py:f"))
        self.folder.write("lines.py", "raise ImportError('first\\n\\n  second')")
        self.assertIn("ImportError: first second (lines.py, line 1)", self.refused("lines.py:f"))
        self.folder.write("exits.py", "import sys; sys.exit(4)")
        self.assertIn("sys.exit(4)", self.refused("exits.py:f"))

    def test_a_capacity_that_a_plain_function_cannot_have(self):
        self.folder.write("wrong.py", "import remuda\n@remuda.capacity(3)\ndef f(s): return s")
        self.assertIn("async def", self.refused("wrong.py:f"))

    def test_a_crash_leaves_its_lines_on_stderr(self):
        self.folder.write("crash.py", "import os, signal\n\ndef f(s):\n    os.kill(os.getpid(), signal.SIGSEGV)")
        with self.folder.shim("crash.py:f") as worker:
            self.assertTrue(worker.handshake()["ok"])
            self.assertIsNone(worker.call("a"))
            status, _, err = worker.finish()
        self.assertEqual(status, -signal.SIGSEGV)
        self.assertIn("crash.py\", line 4 in f", err)


if __name__ == "__main__":
    unittest.main()
