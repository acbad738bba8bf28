import unittest

import support
from support import FolderTest, write_wheel

from files import file_digest
from wheels import Wheel, obtain, open_member


class WheelsTest(FolderTest):
    def setUp(self):
        super().setUp()
        self.path = self.folder / "some_data-1.0-py3-none-any.whl"
        write_wheel(self.path, {"some_data/part.bin": b"content", "some_data/other.txt": b"x"})

    def read(self, wheel, member):
        with obtain(wheel) as (path, _), open_member(path, member) as stream:
            return stream.read()

    def test_a_wheel_in_the_folder_is_used_and_stays(self):
        wheel = Wheel("some-data", "1.0", file_digest(self.path))
        self.assertEqual(self.read(wheel, "part.bin"), b"content")
        self.assertTrue(self.path.exists())

    def test_another_digest_is_refused(self):
        wheel = Wheel("some-data", "1.0", "0" * 64)
        self.assert_error([self.path.name, file_digest(self.path), "0" * 64], self.read, wheel, "x")

    def test_a_missing_member_names_the_nearest(self):
        self.assert_error(["found 0 files", "did you mean 'some_data/part.bin'"], self.read,
                          Wheel("some-data", "1.0"), "some_data/part.bim")

    def test_a_member_is_no_substring(self):
        self.assert_error(["found 0 files"], self.read, Wheel("some-data", "1.0"), "art.bin")

    def test_a_wheel_that_is_no_zip_file(self):
        self.path.write_bytes(b"nothing")
        self.assert_error([self.path.name, "expected a wheel"], self.read,
                          Wheel("some-data", "1.0"), "part.bin")


if __name__ == "__main__":
    unittest.main()
