"""docs/bench.md: a section for each part of the benchmark, each written by itself."""

TITLE = "# Benchmark"


def sections(text):
    """The sections of a document by heading, in order; what stands before the first one is left out."""
    found = {}
    heading = None
    for line in text.splitlines():
        if line.startswith("## "):
            heading = line[3:]
            found[heading] = []
        elif heading is not None:
            found[heading].append(line)
    return {heading: "\n".join(lines).strip() for heading, lines in found.items()}


def merged(text, new):
    """The document with these sections replaced, those that it lacks at its end."""
    parts = {**sections(text), **new}
    body = [f"## {heading}\n\n{content}\n" for heading, content in parts.items()]
    return "\n".join([TITLE + "\n", *body])
