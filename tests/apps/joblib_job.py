#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""One host's share of a joblib computation: joblib_job.py WHO PACE COUNT, in the directory that holds the cache.

Two of these, with equal pids and thread ids, compute the same COUNT results at the same time, as two machines do that
run the same batch job.  What each computes tells who did it, so that a cache entry made of both can be recognised.
PACE is a file by which the two keep step, or "-": then a line on standard output asks for one on standard input before
each.  Prints what joblib made of it, as JSON.
"""
import json
import mmap
import os
import sys
import threading
import time
import warnings

import joblib._store_backends
import numpy
from joblib import Memory

PARTS, LENGTH = 6, 3000


class Pace:
    """Two counters in shared memory; each side waits until the other has come as far."""

    def __init__(self, path, side):
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        os.ftruncate(fd, 4096)
        self.counters = numpy.frombuffer(mmap.mmap(fd, 4096), dtype=numpy.int64)
        self.side = side

    def step(self, limit=20):
        self.counters[self.side] += 1
        deadline = time.monotonic() + limit
        while self.counters[1 - self.side] < self.counters[self.side]:
            if time.monotonic() > deadline:
                raise TimeoutError("the other side does not come")
            os.sched_yield()


class ToldPace:
    """Somebody tells both to go on."""

    @staticmethod
    def step():
        print("ready", flush=True)
        sys.stdin.readline()


def compute(n, who):
    code = n * 10 + who + 1
    return {"n": n, "parts": [numpy.full(LENGTH, code + 0.5) for _ in range(PARTS)], "text": [f"{code}"] * 400}


def is_whole(value, n):
    """Is a cached value what one of the two computed for n?"""
    codes = {float(x) - 0.5 for part in value["parts"] for x in (part.min(), part.max())} | {
        float(t) for t in value["text"]
    }
    return (
        value["n"] == n and len(codes) == 1 and codes <= {n * 10 + 1.0, n * 10 + 2.0} and len(value["parts"]) == PARTS
    )


def counting(errors):
    """joblib 1.2 swallows what goes wrong in a store: this notes it on the way and changes nothing."""
    original = joblib._store_backends.StoreBackendMixin._concurrency_safe_write

    def noting(self, *arguments):
        try:
            return original(self, *arguments)
        except BaseException as e:
            errors.append(f"{type(e).__name__}: {e}"[:120])
            raise

    joblib._store_backends.StoreBackendMixin._concurrency_safe_write = noting


def main():
    who, count = int(sys.argv[1]), int(sys.argv[3])
    pace = ToldPace() if sys.argv[2] == "-" else Pace(sys.argv[2], who)
    cached = Memory("cache", verbose=0).cache(compute, ignore=["who"])
    errors, wrong = [], 0
    counting(errors)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for n in range(count):
            pace.step()
            wrong += not is_whole(cached(n, who), n)
    report = {"pid": os.getpid(), "thread": id(threading.current_thread()), "stores": count, "errors": len(errors)}
    report |= {
        "warnings": len(caught),
        "wrong": wrong,
        "first": errors[:1] + [str(w.message)[:120] for w in caught[:1]],
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
