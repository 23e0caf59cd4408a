"""The results as Markdown."""

import math
import statistics


def best(results, workload, tool):
    """Best wall seconds of all rounds, None where a run failed or was not made.

    What else the machine does can only add to a time; of the rounds the best has the least of it."""
    runs = results.get((workload, tool))
    return min(run.wall for run in runs) if runs else None


def added(results, workload, tool):
    """Wall seconds that a tool adds to the native run; None when it is lost in the noise (1 % of native)."""
    native, wall = best(results, workload, "native"), best(results, workload, tool)
    return None if native is None or wall is None or wall < native * 1.01 else wall - native


def geometric_mean(values):
    """None without values."""
    values = [value for value in values if value is not None]
    return math.exp(statistics.fmean(map(math.log, values))) if values else None


def number(value, digits=2):
    """A figure, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def rows(header, lines):
    """A Markdown table."""
    out = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return out + ["| " + " | ".join(line) + " |" for line in lines]


def wall_table(results, failures, workloads, tools):
    """Best wall seconds, a row for each workload."""
    lines = []
    for workload in workloads:
        cells = [workload]
        for tool in tools:
            wall = best(results, workload, tool)
            cells.append(failures.get((workload, tool)) or number(wall, 3))
        lines.append(cells)
    return rows(["wall s"] + tools, lines)


def processor_table(results, workloads, tools):
    """Least processor seconds, helpers of the tool included: what a busy machine pays."""
    lines = []
    for workload in workloads:
        cells = [workload]
        for tool in tools:
            runs = results.get((workload, tool))
            spent = min(run.processor for run in runs) if runs else None
            cells.append(number(spent, 3))
        lines.append(cells)
    return rows(["processor s"] + tools, lines)


def peak_table(results, workloads, tools):
    """Largest peak of resident MiB over the rounds."""
    lines = []
    for workload in workloads:
        cells = [workload]
        for tool in tools:
            runs = results.get((workload, tool))
            cells.append(number(max(run.peak for run in runs) / 2**20, 1) if runs else "–")
        lines.append(cells)
    return rows(["peak MiB"] + tools, lines)


def ratio_table(results, workloads, pairs):
    """Added time of one tool over that of another, and the geometric mean over the workloads."""
    lines = []
    for ours, theirs in pairs:
        ratios = []
        for workload in workloads:
            mine, other = added(results, workload, ours), added(results, workload, theirs)
            ratios.append(None if mine is None or other is None else mine / other)
        if any(ratio is not None for ratio in ratios):
            cells = [number(ratio) for ratio in ratios]
            lines.append([f"{ours} / {theirs}", *cells, f"**{number(geometric_mean(ratios))}**"])
    return rows(["added time", *workloads, "geometric mean"], lines) if lines else []


def volume_table(volumes):
    """Bytes of log for each event, and the average malloc and free line."""
    lines = [
        [
            workload,
            tool,
            f"{volume.events:,}",
            number(volume.log_bytes / 2**20, 1),
            number(volume.per_event(), 1),
            number(volume.malloc_line(), 1),
            number(volume.free_line(), 1),
        ]
        for (workload, tool), volume in volumes.items()
    ]
    header = ["log", "mode", "events", "MiB", "bytes/event", "malloc line", "free line"]
    return rows(header, lines) if lines else []


def cost_table(results, volumes):
    """Nanoseconds that recording adds to an event."""
    lines = []
    for (workload, tool), volume in volumes.items():
        extra, wall = added(results, workload, tool), best(results, workload, tool)
        if extra and volume.events:
            per = 1e9 / volume.events
            lines.append([workload, tool, number(extra * per, 1), number(wall * per, 1)])
    return rows(["log", "mode", "added ns/event", "wall ns/event"], lines) if lines else []


def reader_table(readings):
    """Events a second and peak memory of the reports."""
    lines = []
    for reading in readings:
        if reading.missing:
            lines.append([reading.what, reading.missing, "–", "–", "–", "–", ""])
            continue
        rate = reading.events / reading.wall / 1e6 if reading.events else None
        lines.append(
            [
                reading.what,
                f"{reading.events:,}",
                number(reading.wall, 3),
                number(reading.processor, 3),
                number(rate, 1),
                number(reading.peak / 2**20, 1),
                reading.beside,
            ]
        )
    header = ["report", "events", "wall s", "processor s", "M events/s", "peak MiB", "beside"]
    return rows(header, lines) if lines else []
