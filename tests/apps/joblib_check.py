#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Judges every entry of a cache that joblib_job.py made: joblib_check.py COUNT, in the directory of the cache.

Prints as JSON how many entries are whole, mixed (loadable, but made of both hosts' data), torn (not loadable) or
missing, and how many temporary files are left.
"""
import glob
import json
import os
import sys
import warnings

import joblib
from joblib_job import is_whole


def judge(path):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = joblib.load(path)
        return "whole" if is_whole(value, value["n"]) else "mixed"
    except Exception:
        return "torn"


def metadata_is_torn(path):
    try:
        with open(path, encoding="utf-8") as f:
            return "duration" not in json.load(f)
    except ValueError:
        return True


def main():
    entries = glob.glob("cache/joblib/**/output.pkl", recursive=True)
    counts = {"whole": 0, "mixed": 0, "torn": 0}
    for path in entries:
        counts[judge(path)] += 1
    counts["missing"] = int(sys.argv[1]) - len(entries)
    counts["metadata"] = sum(map(metadata_is_torn, glob.glob("cache/joblib/**/metadata.json", recursive=True)))
    counts["temporary"] = len(
        [p for p in glob.glob("cache/joblib/**/*", recursive=True) if "thread-" in os.path.basename(p)]
    )
    print(json.dumps(counts))


main()
