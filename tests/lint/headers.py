#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Each header compiles alone.

usage: headers.py BUILD_ROOT COMPILER [ARGUMENT...]
"""
import json
import os
import subprocess
import sys

import lint


def search_paths(build_root):
    """The -I and -D arguments of our part of the build, whichever way its dependencies were found."""
    arguments = []
    for entry in json.loads(lint.read(os.path.join(build_root, "compile_commands.json"))):
        if "subprojects/" in entry["file"]:
            continue
        for word in entry["command"].split():
            if word.startswith(("-I", "-D", "-isystem")) and '"' not in word and word not in arguments:
                arguments.append(word)
    return arguments


def complaints_about(path, build_root, command):
    result = subprocess.run(command + [path], cwd=build_root, capture_output=True, text=True)
    if result.returncode != 0:
        yield f"{lint.short(path)} does not compile alone:\n{result.stderr}"


def main():
    build_root, compiler = sys.argv[1], sys.argv[2:]
    command = compiler + ["-fsyntax-only", "-x", "c", "-std=gnu11", "-Wall", "-Wextra", "-Werror"]
    command += ["-Wno-unused-parameter"] + search_paths(build_root)
    headers = lint.files("src", suffixes=".h")
    lint.finish([c for path in headers for c in complaints_about(path, build_root, command)])


main()
