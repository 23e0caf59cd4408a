"""The part `valgrind`: `memspy check` beside Valgrind's leak check, on the six workloads."""

import pathlib
import shutil
import subprocess
import sys
import tempfile

import table

HEADING = "Leak checks: memspy beside Valgrind"
TOOLS = ("native", "check fp", "check full", "valgrind")


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


def report(meter, workloads, tools, place, rounds):
    """The section's text. Valgrind runs once: its minutes hide no noise."""
    tools = {tool.name: tool for tool in tools}
    lines, ratios = [], []
    for workload in workloads:
        cells, walls, processors = [workload.name], {}, {}
        for name in TOOLS:
            print(f"{workload.name} {name}", file=sys.stderr)
            once = 1 if name == "valgrind" else rounds
            best, missing = measured(meter, workload, tools[name], place, once)
            cells.append(missing or f"{best[0]:.2f} ({best[1]:.2f})")
            if best:
                walls[name], processors[name] = best
        for name in TOOLS[1:3]:
            both = name in processors and "valgrind" in processors
            ratio = processors["valgrind"] / processors[name] if both else None
            cells.append(table.number(ratio, 1))
            ratios.append((name, ratio))
        lines.append(cells)
    mean = [
        table.number(table.geometric_mean([ratio for name, ratio in ratios if name == tool]), 1)
        for tool in TOOLS[1:3]
    ]
    lines.append(["geometric mean", *["" for _ in TOOLS], *[f"**{value}**" for value in mean]])
    header = ["wall s (processor s)", *TOOLS, "valgrind / check fp", "valgrind / check full"]
    text = [
        f"`valgrind --leak-check=full` once, the others the best of {rounds}; ratios of processor seconds.",
        "",
    ]
    return "\n".join(text + table.rows(header, lines))
