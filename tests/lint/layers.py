#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Nothing includes upwards, only src/fuse knows FUSE, and src/core calls nothing that does I/O or tells the time.

usage: layers.py NM LIBCORE
"""
import os
import re
import subprocess
import sys

import lint

# Each may include itself and what stands before it; "ctl" is a program of its own, next to the mount.
ORDER = ["core", "port", "lease", "overlay", "fuse", "log", ""]
CTL_MAY = {"ctl", "core", "port", "lease", "log"}

PURE = re.compile(
    r"g_\w+|sw_\w+|mem\w+|str\w+|fnmatch|qsort|bsearch|v?snprintf|__v?snprintf_chk|__mem\w+_chk|__str\w+_chk|abs|"
    r"__errno_location|__ctype_\w+|__stack_chk_\w+|_GLOBAL_OFFSET_TABLE_|"
    r"__(asan|ubsan|tsan|msan|sanitizer|gcov|llvm|sancov)_\w+|llvm_\w+")
IMPURE = re.compile(
    r"strftime|strptime|g_(get_(monotonic|real|current)_\w+|get_(environ|host_name|user|home|tmp)\w*|getenv|setenv|usleep|"
    r"random\w*|rand_\w*|uuid_string_random|date_time_new_now\w*|timer_\w+|file_(get|set|open|test|read)\w*|fopen|open|"
    r"creat|access|stat|lstat|unlink|rename|mkdir\w*|rmdir|remove|dir_\w+|io_channel_\w+|mapped_file_\w+|spawn_\w+|log\w*|"
    r"print|printerr|thread_\w+|mutex_\w+|key_file_load_from_\w+)")


def layer_of(path):
    return os.path.dirname(os.path.relpath(path, os.path.join(lint.ROOT, "src"))).split(os.sep)[0]


def may_include(upper, lower):
    if "ctl" in (upper, lower):
        return upper == "ctl" and lower in CTL_MAY
    return ORDER.index(lower) <= ORDER.index(upper)


def complaints_about(path):
    layer = layer_of(path)
    for number, line in enumerate(lint.read(path).splitlines(), 1):
        where = f"{lint.short(path)}:{number}"
        found = re.match(r'\s*#\s*include\s*([<"])([^>"]+)', line)
        if not found:
            continue
        kind, name = found.groups()
        if kind == "<":
            if layer != "fuse" and re.match(r"(linux/)?fuse|fuse3/|cuse", name):
                yield f"{where}: only src/fuse includes <{name}>"
            continue
        target = os.path.normpath(os.path.join(os.path.dirname(path), name))
        if not target.startswith(os.path.join(lint.ROOT, "src") + os.sep):
            yield f"{where}: {name} is outside of src"
        elif not os.path.exists(target):
            yield f"{where}: {name} is not there; includes are relative to the file"
        elif not may_include(layer, layer_of(target)):
            yield f"{where}: {layer or 'the top'} includes upwards: {name}"


def symbols(nm, option, library):
    output = subprocess.run([nm, "--format=posix", option, library], check=True, capture_output=True, text=True).stdout
    return {line.split()[0].split("@")[0] for line in output.splitlines() if len(line.split()) > 1}


def impure_symbols(nm, library):
    defined = symbols(nm, "--defined-only", library)
    for symbol in sorted(symbols(nm, "--undefined-only", library) - defined):
        if symbol.startswith("sw_"):
            yield f"{os.path.basename(library)}: {symbol} is not defined in core"
        elif not PURE.fullmatch(symbol) or IMPURE.fullmatch(symbol):
            yield f"{os.path.basename(library)}: core is pure, and must not call {symbol}"


def main():
    complaints = [c for path in lint.files("src", suffixes=(".c", ".h")) for c in complaints_about(path)]
    lint.finish(complaints + list(impure_symbols(sys.argv[1], sys.argv[2])))


main()
