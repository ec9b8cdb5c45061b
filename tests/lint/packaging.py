#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The packages are of the version that meson.build says, the spec can be parsed, and what ansible is told is YAML whose
mount options the parser takes.

usage: packaging.py OPTION_PROBE
"""
import os
import re
import subprocess
import sys

import lint

# Each file that repeats the version, and how its newest one is written there.
VERSIONS = [
    ("CHANGELOG.md", r"^## (\S+)"),
    ("debian/changelog", r"\Asafewritefs \((\S+)\)"),
    ("packaging/safewritefs.spec", r"^Version: +(\S+)"),
    ("packaging/safewritefs.spec", r"^%changelog\n.* - (\S+)-\d+$"),
]


def path_of(name):
    return os.path.join(lint.ROOT, name)


def versions():
    version = re.search(r"^  version : '(.*)'", lint.read(path_of("meson.build")), re.M).group(1)
    for name, pattern in VERSIONS:
        found = re.search(pattern, lint.read(path_of(name)), re.M)
        if not found or found.group(1) != version:
            yield f"{name}: the version is {found.group(1) if found else 'not found'}, that of meson.build {version}"


def spec(rpmspec):
    done = subprocess.run([rpmspec, "-P", path_of("packaging/safewritefs.spec")], capture_output=True, text=True)
    if done.returncode != 0 or done.stderr:
        yield f"rpmspec: {done.stderr}"


def mount_options(value):
    """The options of all mounts of safewritefs that are named anywhere in a document."""
    if isinstance(value, list):
        for member in value:
            yield from mount_options(member)
    elif isinstance(value, dict):
        for key, member in value.items():
            if key == "safewritefs_mounts":
                yield from (mount["opts"] for mount in member)
            yield from mount_options(member)


def playbooks(yaml, probe):
    for path in lint.files("packaging/ansible", suffixes=".yml"):
        try:
            document = yaml.safe_load(lint.read(path))
        except yaml.YAMLError as error:
            yield f"{lint.short(path)}: {error}"
            continue
        for options in mount_options(document):
            said = subprocess.run([probe, "parse", "/s", "/m", "-o", options], capture_output=True, text=True).stdout
            if said.strip() != "ok":
                yield f"{lint.short(path)}: {said.strip()}"


def main():
    complaints = [*versions(), *spec(lint.need("rpmspec"))]
    try:
        import yaml
    except ImportError:
        print("skipped: python3-yaml is not installed")
        sys.exit(77)
    lint.finish(complaints + list(playbooks(yaml, sys.argv[1])))


main()
