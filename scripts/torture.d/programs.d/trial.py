"""What could be seen of one run, and how two runs differ."""

import dataclasses
import hashlib
import os
import re
import stat


@dataclasses.dataclass
class Trial:
    """A run that has ended. `files`: path -> (kind, mode, content); `left`: names of processes that went on."""

    status: object
    stdout: str
    stderr: str
    files: dict
    left: list
    port: int

    def lines(self, text, says=""):
        """The text's lines without what is never the same: the port, addresses, process numbers of a shell."""
        text = re.sub(rf"\b{self.port}\b", "PORT", text)
        text = re.sub(r"\b0x[0-9a-f]{4,}", "ADDRESS", text)
        text = re.sub(r"(: line \d+): +\d+ ", r"\1: PID ", text)
        kept = text.splitlines()
        return [line for line in kept if not (says and re.search(says, line))]


@dataclasses.dataclass(frozen=True)
class Difference:
    """A place at which two runs differ, with what was there."""

    place: str
    plain: str
    recorded: str

    @property
    def is_file(self):
        """Whether it is about a file that the program made."""
        return self.place.startswith("file ")

    def but(self, why):
        """The same place with another story."""
        return Difference(self.place, why, f"{self.plain} / {self.recorded}")

    def __str__(self):
        return f"{self.place}: plain {self.plain!r:.400}, recorded {self.recorded!r:.400}"


def files_in(top):
    """Every file below `top`: kind, mode, and its content's hash or the link's goal."""
    found = {}
    for directory, _, names in os.walk(top):
        for path in [directory, *(os.path.join(directory, name) for name in names)]:
            status = os.lstat(path)
            content = ""
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            found[os.path.relpath(path, top)] = (stat.filemode(status.st_mode), content)
    return found


def differences(plain, recorded, program):
    """What an observer could tell the two runs apart by."""
    found = []

    def compare(place, one, other):
        if one != other:
            found.append(Difference(place, str(one), str(other)))

    compare("exit status", plain.status, recorded.status)
    for name in ("stdout", "stderr"):
        one = plain.lines(getattr(plain, name))
        other = recorded.lines(getattr(recorded, name), program.says)
        if one != other:
            at = next((i for i, pair in enumerate(zip(one, other)) if pair[0] != pair[1]), min(len(one), len(other)))
            found.append(Difference(name, f"line {at + 1}: {one[at:at + 3]}", f"{other[at:at + 3]}"))
    compare("processes left", plain.left, recorded.left)
    for path in sorted(plain.files.keys() | recorded.files.keys()):
        one, other = plain.files.get(path), recorded.files.get(path)
        if program.vary and re.search(program.vary, path):
            one, other = one and one[0], other and other[0]
        compare(f"file {path}", one, other)
    return found
