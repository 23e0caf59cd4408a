"""Logs checked by FORMAT.md alone, and memspy's own word on them held against it."""

import collections
import dataclasses
import json
import pathlib
import re
import stat
import subprocess

MEMSPY = pathlib.Path(__file__).resolve().parents[3] / "target/release/memspy"


@dataclasses.dataclass
class Report:
    """What the logs of one run are like. `killed`: images without an end of their own; `reasons`: why logs are incomplete, with how many;
    `wrong`: broken promises.
    """

    logs: int = 0
    events: int = 0
    killed: int = 0
    reasons: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    wrong: list = dataclasses.field(default_factory=list)

    def add(self, other):
        """Takes in the report of other logs."""
        self.logs += other.logs
        self.events += other.events
        self.killed += other.killed
        self.reasons += other.reasons
        self.wrong += other.wrong

    def __str__(self):
        return f"{self.logs} logs, {self.events:,} events, {self.killed} killed; incomplete: {self.stopped()}"

    def stopped(self):
        """The incomplete logs and their reasons, as text."""
        return "; ".join(f"{count}: {reason}" for reason, count in self.reasons.items()) or "none"


def check(directory, incomplete=""):
    """Checks every log in `directory`; `incomplete` is a pattern of the reasons that a log may have."""
    report = Report()
    paths = sorted(directory.glob("*.jsonl"))
    if not paths:
        report.wrong.append("no log")
        return report
    verdicts = said_by_memspy(directory, report)
    for path in paths:
        try:
            check_one(path, verdicts.get(path.name), incomplete, report)
        except (ValueError, KeyError, IndexError) as error:
            report.wrong.append(f"{path.name}: {error!r}")
    strays = {path.name for path in directory.iterdir()} - {path.name for path in paths}
    strays -= {f"{path.name}.tail" for path in paths}
    report.wrong += [f"a file that is no log: {name}" for name in sorted(strays)]
    return report


def said_by_memspy(directory, report):
    """`memspy summary --json` of the directory: file name -> what it says of that log."""
    answer = subprocess.run([MEMSPY, "summary", "--json", directory], capture_output=True, text=True)
    if answer.returncode != 0:
        report.wrong.append(f"memspy summary ended with {answer.returncode}: {answer.stderr[-500:]}")
        return {}
    found = json.loads(answer.stdout)["logs"]
    return {pathlib.Path(log["log"]).name: log for log in found}


def check_one(path, verdict, incomplete, report):
    """Checks one log: mode, JSON, numbers without gaps, the end, the tail, and what memspy says of it."""
    report.logs += 1
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode != 0o600:
        report.wrong.append(f"{path.name}: mode {mode:o}")
    log = Log(path)
    report.events += log.events
    if verdict is None:
        report.wrong.append(f"{path.name}: memspy summary does not name it")
        return
    tail = path.with_name(f"{path.name}.tail").exists()
    reasons = ", ".join(map(str, verdict["reasons"]))
    if log.end is None:
        report.killed += 1
        if not tail:
            report.wrong.append(f"{path.name}: neither end nor tail")
    if not verdict["complete"]:
        report.reasons[reasons] += 1
        if not (incomplete and re.search(incomplete, reasons)):
            report.wrong.append(f"{path.name}: incomplete: {reasons}")
        return
    if log.end is not None and tail:
        report.wrong.append(f"{path.name}: a tail beside a log that has its end")
    if log.end is not None and verdict["events"] < log.events:
        report.wrong.append(f"{path.name}: {log.events} events, memspy read {verdict['events']}")
    report.wrong += [f"{path.name}: {fact}" for fact in log.gaps(whole=log.end is not None)]


class Log:
    """The lines of a log, hopped along its block lines."""

    def __init__(self, path):
        self.numbers = {}
        self.ended = set()
        self.end = None
        self.events = 0
        with open(path, "rb") as file:
            lines = (line.lstrip(b"\0") for line in file)
            lines = (json.loads(line) for line in lines if line)
            first = next(lines, {"op": "none: it is empty"})
            if first["op"] != "start":
                raise ValueError(f"the first line is {first['op']}")
            for block in lines:
                if block["op"] != "block":
                    raise ValueError(f"a line outside a block: {block}")
                self.take(block, lines)

    def take(self, block, lines):
        """Takes in one block and the lines that it heads."""
        thread, count = block["thread"], block["events"]
        self.numbers.setdefault(thread, []).append((block["n"], count))
        if block.get("last"):
            self.ended.add(thread)
        for _ in range(count):
            line = next(lines)
            if line["op"] == "block":
                raise ValueError(f"too few lines after {block}")
            if line["op"] == "end":
                self.end = line
        self.events += count

    def gaps(self, whole):
        """Where numbers are missing or double. Without an end (`whole` false) the tail may hold the rest."""
        reached = {}
        for thread, blocks in self.numbers.items():
            expected = 1
            for number, count in sorted(blocks):
                if number != expected and whole:
                    yield f"thread {thread}: number {number} after {expected - 1}"
                expected = number + count
            reached[thread] = expected - 1
        if not whole:
            return
        vouched = dict(self.end["open"])
        for thread in range(1, self.end["streams"] + 1):
            if thread in vouched and reached.get(thread, 0) < vouched[thread]:
                yield f"thread {thread}: {reached.get(thread, 0)} of {vouched[thread]} events"
            if thread not in vouched and thread not in self.ended:
                yield f"thread {thread} is neither open nor ended"
        if self.end["lost"]:
            yield f"{self.end['lost']} events lost"
