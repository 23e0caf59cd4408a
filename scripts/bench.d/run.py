"""One measured run of a command."""

import dataclasses
import hashlib
import os
import pathlib
import subprocess


@dataclasses.dataclass
class Run:
    """What one run took: seconds of wall and processor time, peak resident bytes, and what it answered.

    `status` is minus the signal's number for a program that a signal ended."""

    wall: float
    processor: float
    peak: int
    status: int
    output: str


def environment(added):
    """The caller's environment without what would change a measurement, plus `added`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MEMSPY", "LD_"))}
    return {**kept, "LC_ALL": "C", **added}


class Meter:
    """Runs commands under the small program `meter`, which has no memory of its own to speak of."""

    def __init__(self, program):
        self.program = program

    def measure(self, argv, added, directory, stdin=None):
        """Runs argv in `directory`; its standard output goes to a file there and is kept as a hash.

        The environment reaches the command by `env`, so that a preload is not the meter's."""
        directory = pathlib.Path(directory)
        output, report = directory / "stdout", directory / "report.meter"
        settings = [f"{key}={value}" for key, value in added.items()]
        with open(stdin or os.devnull, "rb") as source, open(output, "wb") as sink:
            subprocess.run(
                [self.program, report, "env", *settings, *argv],
                stdin=source,
                stdout=sink,
                stderr=subprocess.DEVNULL,
                cwd=directory,
                env=environment({}),
                check=True,
            )
        wall, processor, peak, status = report.read_text().split()
        with open(output, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        output.unlink()
        report.unlink()
        return Run(int(wall) / 1e9, int(processor) / 1e6, int(peak) * 1024, int(status), digest)
