#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The programs that soak runs on its hosts: soak_programs.py PROGRAM ARGUMENTS, in the top of the mount.

Each prints a ledger, unbuffered, of what it has done: what a call that returned has promised stands in it, also when the
program is killed.  It ends with status 1 and says why if it met what the rules exclude.
"""
import json
import mmap
import os
import random
import shutil
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "mount"))
from harness import payload  # noqa: E402
from worker import get, put  # noqa: E402

BLOCKS = 64


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def turns(seconds, pause):
    """0, 1, 2, ... until the time is over."""
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        yield number
        number += 1
        time.sleep(pause)


# ---- whole versions of one name


def put_mapped(path, data):
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.ftruncate(fd, len(data))
    with mmap.mmap(fd, len(data)) as mapping:
        mapping[:] = data
    os.close(fd)


def put_renamed(path, data):
    temporary = f"{path}.{os.uname().nodename}.new"
    put(temporary, data)
    os.rename(temporary, path)


def put_slowly(path, data):
    put(path, data, piece=len(data) // 3 + 1, pause=0.003)


def rewrite(path, who, seed, seconds, pause):
    rng = random.Random(seed)
    for number in turns(float(seconds), float(pause)):
        size = rng.choice((300, 4096, 10_000, 131_072, 1_500_000))
        data = payload(f"{who} {number} {size}", size)
        rng.choice((put, put_slowly, put_renamed, put_mapped))(path, data)
    say("versions", number + 1)


def read(path, seconds, pause):
    """Every version is whole, and those of one writer do not come back once a later one was seen."""
    latest, numbers = {}, 0
    for numbers in turns(float(seconds), float(pause)):
        data = get(path)
        who, number, size = data[:60].decode("ascii", "replace").split(" ")[:3]
        assert data == payload(f"{who} {number} {size}", int(size)), f"torn: {data[:40]!r}, {len(data)} bytes"
        assert int(number) >= latest.get(who, 0), f"{data[:40]!r} after version {latest[who]}"
        latest[who] = int(number)
    say("reads", numbers + 1)


# ---- disjoint ranges of one file


def block(number, generation, size):
    return (b"block %d generation %d;" % (number, generation) * (size // 20 + 1))[:size]


def write_block(fd, number, data, mapped):
    if not mapped:
        os.pwrite(fd, data, number * len(data))
        return
    with mmap.mmap(fd, 0) as mapping:
        mapping[number * len(data) : (number + 1) * len(data)] = data


def edit(path, side, seed, seconds, pause, size):
    """Edits the blocks of one parity, and finds its own edits again each time.  Mapped only where blocks are pages."""
    rng, size, mine, generations = random.Random(seed), int(size), range(int(side), BLOCKS, 2), {}
    for generation in turns(float(seconds), float(pause)):
        chosen = rng.sample(mine, rng.randint(1, 3))
        fd = os.open(path, os.O_RDWR)
        for number in mine:
            found, wanted = os.pread(fd, size, number * size), block(number, generations.get(number, 0), size)
            assert found == wanted, f"block {number}: {found[:40]!r} instead of {wanted[:40]!r}"
        for number in chosen:
            say("try", number, generation + 1)
            write_block(fd, number, block(number, generation + 1, size), size == mmap.PAGESIZE and rng.random() < 0.3)
        os.close(fd)
        for number in chosen:
            generations[number] = generation + 1
            say("done", number, generation + 1)


# ---- one winner


def race(prefix, who, start, count):
    """Makes the same names as the other host at the same moments, in four exclusive ways."""
    own = f"{prefix}-{who}"
    put(own, who.encode())
    for number in range(int(count)):
        name = f"{prefix}-{number}"
        time.sleep(max(0, float(start) + number * 0.02 - time.time()))
        try:
            if number % 4 == 0:
                put(name, who.encode(), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            elif number % 4 == 1:
                os.mkdir(name)
            elif number % 4 == 2:
                os.link(own, name)
            else:
                os.symlink(who, name)
            say("won", number)
        except FileExistsError:
            say("lost", number)


# ---- trees


def plant(top, seed, seconds):
    """Random changes of a tree and of a model of it; prints the model."""
    rng, folders, files = random.Random(seed), [top], {}
    os.mkdir(top)
    for number in turns(float(seconds), 0):
        new = f"{rng.choice(folders)}/{number}"
        what = rng.choice(("mkdir", "put", "put", "put", "rename", "move", "link", "unlink", "prune"))
        old = rng.choice(sorted(files)) if files else None
        if what == "mkdir" and len(folders) < 40:
            os.mkdir(new)
            folders.append(new)
        elif what == "move" and len(folders) > 1:
            folders, files = moved(rng.choice(folders[1:]), new, folders, files)
        elif what == "prune" and len(folders) > 20:
            folders, files = pruned(rng.choice(folders[1:]), folders, files)
        elif what == "put" or old is None:
            new = rng.choice((new, old or new))
            files[new] = f"{number} " * rng.choice((0, 1, 50, 5000))
            put(new, files[new].encode())
        elif what == "rename":
            new = rng.choice((new, rng.choice(sorted(files))))
            os.rename(old, new)
            files[new] = files.pop(old)
            if os.path.lexists(old):  # two hard links of one file: rename(2) does nothing
                files[old] = files[new]
        elif what == "link":
            os.link(old, new)
            files[new] = files[old]
        elif what == "unlink":
            os.unlink(old)
            del files[old]
    say(json.dumps([sorted(folders), files], sort_keys=True))


def moved(old, new, folders, files):
    if (new + "/").startswith(old + "/"):
        return folders, files
    os.rename(old, new)

    def renamed(path):
        return new + path[len(old) :] if (path + "/").startswith(old + "/") else path

    return [renamed(f) for f in folders], {renamed(f): data for f, data in files.items()}


def pruned(old, folders, files):
    shutil.rmtree(old)
    gone = old + "/"
    kept = {path: data for path, data in files.items() if not path.startswith(gone)}
    return [f for f in folders if not (f + "/").startswith(gone)], kept


def walk(top):
    """A tree as plant() prints its model."""
    folders, files = [], {}
    for where, _, names in os.walk(top):
        folders.append(where)
        files.update({f"{where}/{name}": get(f"{where}/{name}").decode() for name in names})
    say(json.dumps([sorted(folders), files], sort_keys=True))


if __name__ == "__main__":
    {f.__name__: f for f in (rewrite, read, edit, race, plant, walk)}[sys.argv[1]](*sys.argv[2:])
