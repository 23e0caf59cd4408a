"""How many bytes the events of a log take."""

import dataclasses
import pathlib
import re


@dataclasses.dataclass
class Volume:
    """Counted from the log itself: events as its block lines number them, lines by their op."""

    log_bytes: int = 0
    events: int = 0
    malloc_lines: int = 0
    malloc_bytes: int = 0
    free_lines: int = 0
    free_bytes: int = 0

    def per_event(self):
        """Bytes of log for each event, block lines and all."""
        return self.log_bytes / max(self.events, 1)

    def malloc_line(self):
        """Average length of a malloc line, newline included; None without one."""
        return self.malloc_bytes / self.malloc_lines if self.malloc_lines else None

    def free_line(self):
        """Average length of a free line, newline included; None without one."""
        return self.free_bytes / self.free_lines if self.free_lines else None


BLOCK_EVENTS = re.compile(rb'"events":(\d+)')


def volume(directory):
    """The volume of all logs in a directory."""
    total = Volume()
    for path in pathlib.Path(directory).glob("memspy.*.jsonl"):
        total.log_bytes += path.stat().st_size
        with open(path, "rb") as lines:
            for line in lines:
                if line.startswith(b'{"op":"malloc"'):
                    total.malloc_lines += 1
                    total.malloc_bytes += len(line)
                elif line.startswith(b'{"op":"free"'):
                    total.free_lines += 1
                    total.free_bytes += len(line)
                elif line.lstrip(b"\0").startswith(b'{"op":"block"'):
                    total.events += int(BLOCK_EVENTS.search(line).group(1))
    return total
