"""The readers: memspy's reports against heaptrack_print, on logs of the same workload."""

import dataclasses
import shutil
import subprocess

from tool import MEMSPY, absent
from workload import compiled


@dataclasses.dataclass
class Reading:
    """One report on one log: what it took, or why it was not made. `beside` compares it with another one."""

    what: str
    events: int = 0
    wall: float = 0.0
    processor: float = 0.0
    peak: int = 0
    missing: str | None = None
    beside: str = ""


@dataclasses.dataclass
class Contestant:
    """A report that is to be made: the command, and the events of the log that it reads."""

    what: str
    argv: list
    events: int
    missing: str | None = None


def logs(directory):
    """The logs in a directory, as arguments."""
    return sorted(str(path) for path in directory.glob("memspy.*.jsonl"))


def memspy(what, command, directory, events):
    """`memspy COMMAND` on the logs of a directory."""
    missing = None if MEMSPY.exists() else "target/release/memspy is not built"
    missing = missing or (None if logs(directory) else "no log")
    return Contestant(what, [str(MEMSPY), *command, *logs(directory)], events, missing)


def heaptrack(what, directory, events):
    """heaptrack_print on the file of a directory."""
    files = sorted(str(path) for path in directory.glob("heap*"))
    missing = absent("heaptrack_print") or (None if files else "no file")
    return Contestant(what, ["heaptrack_print", "-f", *files[:1]], events, missing)


def race(meter, contestants, directory, rounds):
    """Runs all contestants in turn, once to warm the page cache and `rounds` times to be measured.

    The best run of each counts: other programs on the machine can only make one slower."""
    runs = {one.what: [] for one in contestants if not one.missing}
    failed = {}
    for number in range(rounds + 1):
        for one in contestants:
            if one.missing or one.what in failed:
                continue
            run = meter.measure(one.argv, {}, directory)
            if run.status != 0:
                failed[one.what] = f"exit status {run.status}"
            elif number > 0:
                runs[one.what].append(run)
    readings = []
    for one in contestants:
        missing = one.missing or failed.get(one.what)
        if missing:
            readings.append(Reading(one.what, missing=missing))
            continue
        wall = min(run.wall for run in runs[one.what])
        processor = min(run.processor for run in runs[one.what])
        peak = max(run.peak for run in runs[one.what])
        readings.append(Reading(one.what, one.events, wall, processor, peak))
    return readings


def compare(reading, other, name):
    """Says in `reading` how many times the events a second of the other it reads, and in what share of its time."""
    if not reading.missing and not other.missing:
        reading.beside = f"{other.wall / reading.wall:.2f} × the speed of {name}"


def generated(directory, millions):
    """A directory with a generated log of so many million events, the same live set whatever their number."""
    place = directory / f"generated {millions}"
    place.mkdir()
    with open(place / "memspy.big.1.jsonl", "wb") as file:
        program = compiled("biglog.c", directory)
        subprocess.run([program, str(millions * 1_000_000)], check=True, stdout=file)
    return place


def big_logs(meter, directory, rounds):
    """`memspy summary` on generated logs of 5 and 50 million events, and `memspy maps --at` on one of 10 million."""
    found = []
    for millions in (5, 10, 50):
        place = generated(directory, millions)
        events = millions * 1_000_000
        what = f"`memspy summary`, {millions} M events, 10,000 live blocks"
        contestants = [memspy(what, ["summary"], place, events)]
        if millions == 10:
            # The generator's clock moves 25 ns with each event.
            half = f"{events * 25 // 2}ns"
            what = "`memspy maps --at` half time, the same log"
            contestants.append(memspy(what, ["maps", "--at", half], place, events))
        readings = race(meter, contestants, place, rounds)
        if millions == 10:
            compare(readings[1], readings[0], "that summary")
        found += readings
        shutil.rmtree(place)
    return found
