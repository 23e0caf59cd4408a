"""The readers: memspy's reports against heaptrack_print, on logs of the same workload."""

import dataclasses
import subprocess

from tool import MEMSPY, absent
from workload import compiled


@dataclasses.dataclass
class Reading:
    """One report on one log: what it took, or why it was not made."""

    what: str
    events: int
    wall: float = 0.0
    peak: int = 0
    missing: str | None = None


class Readers:
    """The reports, measured by one meter."""

    def __init__(self, meter):
        self.meter = meter

    def read(self, what, argv, events, directory):
        """Runs a report once to warm the page cache and twice to be measured; the better one counts."""
        runs = [self.meter.measure(argv, {}, directory) for _ in range(3)][1:]
        failed = [run for run in runs if run.status != 0]
        if failed:
            return Reading(what, events, missing=f"exit status {failed[0].status}")
        best = min(runs, key=lambda run: run.wall)
        return Reading(what, events, best.wall, best.peak)

    def memspy(self, command, directory, events, what):
        """`memspy COMMAND` on the logs of a directory."""
        logs = sorted(str(path) for path in directory.glob("memspy.*.jsonl"))
        if not MEMSPY.exists():
            return Reading(what, events, missing="target/release/memspy is not built")
        if not logs:
            return Reading(what, events, missing="no log")
        return self.read(what, [str(MEMSPY), command, *logs], events, directory)

    def heaptrack(self, directory, events, what):
        """heaptrack_print on the file of a directory."""
        missing = absent("heaptrack_print")
        files = sorted(str(path) for path in directory.glob("heap*"))
        if missing or not files:
            return Reading(what, events, missing=missing or "no file")
        return self.read(what, ["heaptrack_print", "-f", files[0]], events, directory)

    def big_logs(self, directory):
        """`memspy summary` on generated logs of 5 and 50 million events, the same live set in both."""
        generator = compiled("biglog.c", directory)
        readings = []
        for millions in (5, 50):
            place = directory / f"big{millions}"
            place.mkdir()
            events = millions * 1_000_000
            log = place / "memspy.big.1.jsonl"
            with open(log, "wb") as file:
                subprocess.run([generator, str(events)], check=True, stdout=file)
            what = f"`memspy summary`, {millions} M events, 10,000 live blocks"
            readings.append(self.memspy("summary", place, events, what))
            log.unlink()
        return readings
