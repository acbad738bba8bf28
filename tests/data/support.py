"""What the tests of data/ share: the import path, a temporary folder, wheels made on the spot."""

import os
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "data"))


class FolderTest(unittest.TestCase):
    """A test with an empty folder of its own, silent progress, and no wheels from outside."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="ruq-test-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        environment = mock.patch.dict(os.environ, {"RUQ_WHEELS": str(self.folder)})
        environment.start()
        self.addCleanup(environment.stop)
        for module in ("models", "text", "wheels", "wikipedia", "gguf_model"):
            silence = mock.patch(f"{module}.progress", lambda line: None)
            silence.start()
            self.addCleanup(silence.stop)

    def assert_error(self, fragments, function, *arguments):
        """Calls the function; it must raise RequestError with one line holding every fragment."""
        from errors import RequestError
        with self.assertRaises(RequestError) as caught:
            function(*arguments)
        message = str(caught.exception)
        self.assertNotIn("\n", message)
        for fragment in fragments:
            self.assertIn(fragment, message)


def write_wheel(path, members):
    """A zip file with these members (name -> bytes)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
