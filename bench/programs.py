#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""joblib and Optuna, in a process that has imported them already: a request is a line of JSON, and so is the answer.

{"do": "joblib" or "optuna", "directory": ..., "seconds": ..., "trials": ...} gives rates per second."""

import json
import os
import sys
import time
import warnings


def result_of(number):
    return [number] * 500


def rate(step, seconds):
    done, began = 0, time.monotonic()
    while time.monotonic() < began + seconds:
        step(done)
        done += 1
    return done / (time.monotonic() - began), done


def joblib_cache(directory, seconds, **_):
    import joblib

    cached = joblib.Memory(directory, verbose=0).cache(result_of)
    cached(-1)  # the first one also writes down the function's source
    miss, made = rate(cached, seconds)
    hit, _ = rate(lambda number: cached(number % made), seconds)
    return {"joblib miss": miss, "joblib hit": hit}


def optuna_study(directory, trials, **_):
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    journal = optuna.storages.JournalStorage(optuna.storages.JournalFileStorage(os.path.join(directory, "journal")))
    sampler = optuna.samplers.RandomSampler(seed=1)
    study = optuna.create_study(storage=journal, sampler=sampler)
    began = time.monotonic()
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=trials)
    return {"optuna trials": trials / (time.monotonic() - began)}


def main():
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"joblib": joblib_cache, "optuna": optuna_study}[request.pop("do")](**request)
        except Exception as e:  # whatever went wrong there is the other side's to report
            answer = {"error": "%s: %s" % (type(e).__name__, e)}
        print(json.dumps(answer), flush=True)


main()
