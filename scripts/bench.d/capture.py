"""The part `stacks`: what a call stack costs the shim, beside one clock_gettime and libunwind.

Measured by the shim's own test, which prints the table."""

import subprocess

from tool import ROOT

HEADING = "Call stacks"
ABOUT = """Nanoseconds, all in one process, the best of 300 runs: a *hit* of the memo; a *miss* in code that is known; the same
when the memo *keeps* the stack, which is the second time; in *new code*, whose unwind data must be read.
`unw_backtrace` is libunwind's, with what it knows, and in code that is new to it.
"""


def report():
    """The section: the table that the test prints, or why there is none."""
    command = ["cargo", "test", "--release", "-q", "-p", "memspy-shim", "--"]
    command += ["--ignored", "--nocapture", "capture_costs"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    rows = [line for line in ended.stdout.splitlines() if line.startswith("|")]
    if ended.returncode != 0 or not rows:
        return f"Not measured: `{' '.join(command)}` ended with {ended.returncode}."
    return "\n".join([ABOUT, *rows])
