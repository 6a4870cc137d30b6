"""Writes files into a directory until told to stop, each made durable before it is told of; with --check, says what they hold now.

    files.py DIRECTORY STOP-FILE     prints 'made PATH SHA256' per file, and at the end 'gap SECONDS NAME': the longest one took
    files.py --check                 reads such lines from standard input; prints 'differs PATH' for each file that is not what was told
"""

import hashlib
import os
import random
import sys
import time

KEPT = 64  # files in a directory; older ones are written over, under their own name


def durable(path, data):
    with open(path + ".new", "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    os.rename(path + ".new", path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def write(directory, stop):
    number, longest = 0, 0.0
    while not os.path.exists(stop):
        data = random.randbytes(random.randrange(1, 200_000))
        path = os.path.join(directory, f"f{number % KEPT}")
        begun = time.monotonic()
        durable(path, data)
        longest = max(longest, time.monotonic() - begun)
        print("made", path, hashlib.sha256(data).hexdigest(), flush=True)
        number += 1
    print(f"gap {longest:.3f} {directory}", flush=True)


def check():
    for line in sys.stdin:
        path, digest = line.split()
        with open(path, "rb") as file:
            if hashlib.sha256(file.read()).hexdigest() != digest:
                print("differs", path)


if sys.argv[1:] == ["--check"]:
    check()
else:
    write(*sys.argv[1:])
