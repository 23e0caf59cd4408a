"""The part `reports`: what the readers take, on logs that are recorded for them."""

import pathlib
import shutil
import tempfile

import table
from reader import Reading, big_logs, compare, heaptrack, memspy, race
from volume import volume

HEADING = "Reports"


class Recorder:
    """Records workloads for the reports, each under one tool, once."""

    def __init__(self, meter, workloads, tools, place):
        self.meter = meter
        self.workloads = {workload.name: workload for workload in workloads}
        self.tools = {tool.name: tool for tool in tools}
        self.place = place

    def record(self, workload, tool):
        """A directory with the log, and the recording as a reading; without a log its `missing` says why."""
        what = f"recording, {workload}, {tool}"
        out = pathlib.Path(tempfile.mkdtemp(dir=self.place))
        work, with_tool = self.workloads.get(workload), self.tools.get(tool)
        if not work or not with_tool:
            return out, Reading(what, missing="not chosen")
        if work.missing or with_tool.missing:
            return out, Reading(what, missing=work.missing or with_tool.missing)
        argv, env = with_tool.wrap(work.argv, out)
        run = self.meter.measure(argv, {**work.env, **env}, out, work.stdin)
        if run.status != 0:
            return out, Reading(what, missing=f"exit status {run.status}")
        return out, Reading(what, wall=run.wall, processor=run.processor, peak=run.peak)


def together(what, events, *readings):
    """Readings one after the other as one: a failed one fails it."""
    missing = [reading.missing for reading in readings if reading.missing]
    if missing:
        return Reading(what, missing=missing[0])
    wall = sum(reading.wall for reading in readings)
    processor = sum(reading.processor for reading in readings)
    return Reading(what, events, wall, processor, max(reading.peak for reading in readings))


def churn(meter, recorder, rounds):
    """`memspy summary` against heaptrack_print on churn1, all in turn."""
    off, _ = recorder.record("churn1", "memspy off")
    full, _ = recorder.record("churn1", "memspy full")
    theirs, _ = recorder.record("churn1", "heaptrack")
    events = volume(off).events
    readings = race(
        meter,
        [
            memspy("`memspy summary`, churn1, memspy off", ["summary"], off, events),
            memspy("`memspy summary`, churn1, memspy full", ["summary"], full, events),
            heaptrack("heaptrack_print, churn1", theirs, events),
        ],
        recorder.place,
        rounds,
    )
    for reading in readings[:2]:
        compare(reading, readings[2], "heaptrack_print")
    for place in (off, full, theirs):
        shutil.rmtree(place)
    return readings


def sites(meter, recorder, rounds, workload):
    """From the program's start to its sites: memspy with full stacks, and heaptrack with its interpreter."""
    ours, recorded = recorder.record(workload, "memspy full")
    theirs, interpreted = recorder.record(workload, "heaptrack")
    events = volume(ours).events
    contestants = [memspy(f"`memspy sites`, {workload}", ["sites"], ours, events)]
    if workload == "python":
        contestants.append(memspy("`memspy summary`, python, memspy full", ["summary"], ours, events))
        end = ["maps", "--at", "1s"]
        contestants.append(memspy("`memspy maps --at 1s`, the same log", end, ours, events))
    if not interpreted.missing:
        contestants.append(heaptrack(f"heaptrack_print, {workload}", theirs, events))
    readings = race(meter, contestants, recorder.place, rounds)
    if workload == "python":
        compare(readings[2], readings[1], "that summary")
    mine = together(f"record with full stacks and `memspy sites`, {workload}", events, recorded, readings[0])
    what = f"heaptrack and heaptrack_print, {workload}"
    if interpreted.missing:
        other = Reading(what, missing=f"heaptrack: {interpreted.missing}")
    else:
        other = together(what, events, interpreted, readings[-1])
    compare(mine, other, "heaptrack")
    for place in (ours, theirs):
        shutil.rmtree(place)
    return [*readings, mine, other]


def report(meter, workloads, tools, place, rounds, big):
    """The section's text."""
    recorder = Recorder(meter, workloads, tools, place)
    readings = churn(meter, recorder, rounds)
    readings += sites(meter, recorder, rounds, "cc1plus")
    readings += sites(meter, recorder, rounds, "python")
    readings += big_logs(meter, place, rounds) if big else []
    lines = [
        f"All readers of a log in turn, once to warm the page cache and {rounds} times measured; the best run of each",
        "counts. Events are memspy's count for both readers of one workload.",
        "",
    ]
    return "\n".join(lines + table.reader_table(readings))
