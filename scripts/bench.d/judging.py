"""The part `judging`: what the leak check at the end of a process costs, beside LSan's, when 10 million blocks live."""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import run
import table
from workload import compiled

HEADING = "Judging 10 million blocks"
BLOCKS = 10_000_000
ORDERS = {"allocated": "in the order of allocation", "shuffled": "shuffled"}
TOOLS = ("native", "leaks fp", "LSan")


def own_bytes(pid):
    """The memory that only this process has; 0 when it is gone. Once it has ended, what it shared with its parent can look
    like its own while it is being read."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
            fields = dict(line.split(":", 1) for line in rollup if ":" in line.split(" ")[0])
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            ended = stat.read().rpartition(")")[2].split()[0] in "ZX"
    except (OSError, ValueError):
        return 0
    if ended or "Private_Clean" not in fields:
        return 0
    return sum(int(fields[name].split()[0]) * 1024 for name in ("Private_Clean", "Private_Dirty"))


def peak_of_children(process):
    """The most memory of its own that a child of this process has, watched until the process ends."""
    peak = 0
    while process.poll() is None:
        try:
            with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as file:
                found = file.read().split()
        except OSError:
            found = []
        peak = max([peak, *map(own_bytes, found)])
        time.sleep(0.005)
    return peak


def once(program, order, tool, place, watch=False):
    """One run: seconds from the end of main to the end of the process, resident bytes at the end of main, and the most
    memory that the copy had (0 unless it is watched)."""
    out = pathlib.Path(tempfile.mkdtemp(dir=place))
    argv, added = tool.wrap([program, str(BLOCKS), order], out)
    # As in `memspy check`: no verdict asks for pictures of the address space.
    environment = {**run.environment({}), "MEMSPY_MAPS": "off", **added}
    process = subprocess.Popen(
        argv, env=environment, cwd=out, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    line = process.stdout.readline()
    copy = peak_of_children(process) if watch else 0
    status = process.wait()
    end = time.monotonic_ns()
    shutil.rmtree(out)
    if status != 0 or not line:
        return None
    began, resident = map(int, line.split())
    return (end - began) / 1e9, resident, copy


def report(tools, place, rounds):
    """The section's text."""
    program = compiled("linked.c", place)
    tools = [tool for tool in tools if tool.name in TOOLS and not tool.missing]
    best, resident = {}, {}
    for number in range(rounds):
        for order in ORDERS:
            for tool in tools:
                found = once(program, order, tool, place)
                print(f"round {number + 1} {order} {tool.name}: {found}", file=sys.stderr)
                if found:
                    pair = (order, tool.name)
                    best[pair] = min(found[0], best.get(pair, found[0]))
                    resident[pair] = found[1]
    rows = []
    for order, words in ORDERS.items():
        walls = [best.get((order, name)) for name in TOOLS]
        _, ours, theirs = walls
        ratio = f"**{table.number(ours / theirs, 2)}**" if ours and theirs else "–"
        rows.append([words, *[f"{wall:.3f}" if wall else "–" for wall in walls], ratio])
    lines = [
        f"A program that ends with a list of {BLOCKS:,} blocks, 1 GiB: seconds from the end of main to the end of the",
        f"process, the best of {rounds}.",
        "",
        *table.rows(["the list", *TOOLS, "leaks fp / LSan"], rows),
    ]
    judge = next((tool for tool in tools if tool.name == "leaks fp"), None)
    native, ours = (resident.get(("allocated", name)) for name in ("native", "leaks fp"))
    if judge and native and ours:
        watched = [once(program, order, judge, place, watch=True) for order in ORDERS]
        copies = [found[2] for found in watched if found]
        lines += [
            "",
            f"memspy's own memory at the end of main: {(ours - native) / BLOCKS:.1f} bytes for each block; the memory of",
            f"the copy that judges: at most {max(copies, default=0) / 2**20:.0f} MiB.",
        ]
    return "\n".join(lines)
