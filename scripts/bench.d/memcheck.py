"""The part `valgrind`: `memspy check` beside Valgrind's leak check, on the six workloads."""

import pathlib
import shutil
import subprocess
import sys
import tempfile

import table

HEADING = "Leak checks: memspy beside Valgrind"
CHECKS = ("check fp", "check full")
TOOLS = ("native", *CHECKS, "valgrind")


def measured(meter, workload, tool, place, rounds):
    """The best wall and processor seconds of a tool, or why there are none."""
    if workload.missing or tool.missing:
        return None, workload.missing or tool.missing
    best = None
    for _ in range(rounds):
        out = pathlib.Path(tempfile.mkdtemp(dir=place))
        argv, env = tool.wrap(workload.argv, out)
        try:
            run = meter.measure(argv, {**workload.env, **env}, out, workload.stdin)
        except subprocess.CalledProcessError:
            return None, "the measuring was ended from outside"
        finally:
            shutil.rmtree(out)
        if run.status not in (0, tool.leak_status):
            return None, f"exit status {run.status}"
        pair = (run.wall, run.processor)
        best = pair if best is None else (min(best[0], pair[0]), min(best[1], pair[1]))
    return best, None


def times(other, ours):
    """How many times as long the other took: of the wall, and in brackets of the processor."""
    if not other or not ours:
        return "–"
    return f"{other[0] / ours[0]:.1f} ({other[1] / ours[1]:.1f})"


def mean_times(pairs):
    """The geometric mean of the same over several (other, ours)."""
    pairs = [(other, ours) for other, ours in pairs if other and ours]
    means = [table.geometric_mean([other[at] / ours[at] for other, ours in pairs]) for at in (0, 1)]
    return f"**{table.number(means[0], 1)} ({table.number(means[1], 1)})**"


def report(meter, workloads, tools, place, rounds):
    """The section's text. Valgrind runs once: its minutes hide no noise."""
    tools = {tool.name: tool for tool in tools}
    lines, pairs = [], {tool: [] for tool in CHECKS}
    for workload in workloads:
        cells, best = [workload.name], {}
        for name in TOOLS:
            print(f"{workload.name} {name}", file=sys.stderr)
            once = 1 if name == "valgrind" else rounds
            best[name], missing = measured(meter, workload, tools[name], place, once)
            cells.append(missing or f"{best[name][0]:.2f} ({best[name][1]:.2f})")
        for name in CHECKS:
            pairs[name].append((best["valgrind"], best[name]))
            cells.append(times(best["valgrind"], best[name]))
        lines.append(cells)
    means = [mean_times(pairs[name]) for name in CHECKS]
    lines.append(["geometric mean", *["" for _ in TOOLS], *means])
    header = ["seconds", *TOOLS, *[f"valgrind / {name}" for name in CHECKS]]
    text = [
        f"`valgrind --leak-check=full` once, the others the best of {rounds}; wall seconds, and in brackets processor",
        "seconds.",
        "",
    ]
    return "\n".join(text + table.rows(header, lines))
