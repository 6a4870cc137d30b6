"""The page with the figures, and its picture."""

import os
import subprocess
from pathlib import Path

BEGIN = "<!-- written by tests/bench/run: from here -->"
END = "<!-- written by tests/bench/run: to here -->"
COLOURS = ["#8a97a5", "#c9d2da", "#1f7a4d", "#8fc7a8", "#2b5fa8", "#b3541e", "#7a5ba8", "#35506b"]
WIDTH, LEFT, BAR, GAP, HEAD = 860, 250, 14, 16, 56


def svg(middle, targets, jobs):
    """Groups of bars: each job's figures against the largest of the job."""
    height = HEAD + sum(len(targets) * BAR + GAP for _ in jobs) + 24 * ((len(targets) + 1) // 2) + 16
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12" role="img" '
        'aria-label="Commands a second of each target, per job">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        '<text x="20" y="26" font-size="14" font-weight="bold" fill="#1c2b3a">Commands a second, each job on a scale of its own</text>',
    ]
    top = HEAD
    for words, pattern, _, depth in jobs:
        by = middle[(pattern, depth)]
        most = max(figure["iops"] for figure in by.values()) or 1
        centre = top + len(targets) * BAR / 2 + 4
        out.append(f'<text x="{LEFT - 12}" y="{centre:.0f}" text-anchor="end" fill="#1c2b3a">{words}</text>')
        for number, target in enumerate(targets):
            iops = by[target.name]["iops"]
            width = (WIDTH - LEFT - 90) * iops / most
            y = top + number * BAR
            colour = COLOURS[number % len(COLOURS)]
            out.append(f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR - 2}" fill="{colour}"/>')
            out.append(f'<text x="{LEFT + width + 6:.1f}" y="{y + BAR - 4}" font-size="11" fill="#35506b">{iops:,.0f}</text>')
        top += len(targets) * BAR + GAP
    for number, target in enumerate(targets):
        x, y = 20 + number % 2 * WIDTH / 2, top + 12 + number // 2 * 24
        out.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{COLOURS[number % len(COLOURS)]}"/>')
        out.append(f'<text x="{x + 18}" y="{y + 11}" fill="#35506b">{target.words}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def machine():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / (1 << 20)
    return f"{os.cpu_count()} processors ({model}), {memory:.0f} GiB, Linux {os.uname().release}"


def commit(root):
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True)
    return done.stdout.strip() or "an unknown commit"


def write_page(docs, text, middle, targets, jobs, args):
    (docs / "performance.svg").write_text(svg(middle, targets, jobs))
    page = docs / "performance.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    own = (
        f"{BEGIN}\n\nMedians of {args.rounds} rounds of {args.seconds} s each, all targets in turn.\n"
        f"{machine()}; commit {commit(docs.parent)}.\n\n"
        f"![Commands a second of each target, per job](performance.svg)\n\n{text}\n\n{END}"
    )
    page.write_text(before + own + after)
