"""Drives an interactive shell on a terminal of its own: job.py MEMSPY LOGS JOB.

Writes a small program to the file JOB, starts it under memspy, stops it with Ctrl-Z, continues it with fg,
interrupts it with Ctrl-C, and prints what the shell said about it: `stopped`, `continued`, and the job's status.
"""

import os
import pty
import select
import sys
import time

memspy, logs, job = sys.argv[1:4]
# One process: a shell that is stopped between vfork and exec hangs, with memspy or without.
JOB = """
import signal, sys, time
def interrupted(*_):
    print("inter" "rupted")
    sys.exit(44)
signal.signal(signal.SIGINT, interrupted)
while True:
    print("ti" "ck", flush=True)
    time.sleep(0.02)
"""
DEADLINE = time.monotonic() + 60

pid, terminal = pty.fork()
if pid == 0:
    os.environ["PS1"] = "$ "
    os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])

seen = b""


def expect(text):
    """Reads until the text appears, returns what came before it, and forgets both."""
    global seen
    while text not in seen:
        left = DEADLINE - time.monotonic()
        if left <= 0 or not select.select([terminal], [], [], left)[0]:
            sys.exit(f"no {text!r} in {seen!r}")
        seen += os.read(terminal, 4096)
    before, _, seen = seen.partition(text)
    return before.decode()


def send(text):
    os.write(terminal, text)


expect(b"$ ")
with open(job, "w", encoding="ascii") as file:
    file.write(JOB)
send(f"{memspy} run -q -o {logs} -- {sys.executable} {job}\n".encode())
expect(b"tick\r\n")
send(b"\x1a")
expect(b"Stopped")
print("stopped")
send(b'jobs %1 >/dev/null && echo "kno""wn"\n')
expect(b"known")
send(b"fg\n")
# The shell prints the command before it hands the terminal over; the job itself runs only after that.
expect(b"tick\r\n")
send(b"\x03")
expect(b"interrupted")
print("continued")
send(b'echo "sta""tus=$?"\n')
expect(b"status=")
print("status", expect(b"\r"))
send(b"exit\n")
os.waitpid(pid, 0)
