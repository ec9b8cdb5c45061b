# SPDX-License-Identifier: GPL-2.0-or-later
"""pip and npm install into the mount; both work on packages made here, without a network."""
import json
import os
import zipfile

import pytest


def make_wheel(directory):
    """A wheel of 300 modules, as small as the format allows."""
    path = os.path.join(directory, "sample_pkg-1.0-py3-none-any.whl")
    info = "sample_pkg-1.0.dist-info"
    files = {f"sample_pkg/m{i}.py": f"VALUE = {i}\n" * 20 for i in range(300)}
    files["sample_pkg/__init__.py"] = "from .m7 import VALUE\n"
    files[f"{info}/METADATA"] = "Metadata-Version: 2.1\nName: sample-pkg\nVersion: 1.0\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/entry_points.txt"] = "[console_scripts]\nsample = sample_pkg:print\n"
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return path


@pytest.mark.limit(120)
def test_pip_install_target(hosts, lab):
    a, b = hosts
    wheel = make_wheel(lab.directory)
    pip = "/usr/bin/python3 -m pip install -q --no-index --no-deps --no-cache-dir --root-user-action=ignore"
    pip += " --target=$MNT/site"
    a.run(f"{pip} '{wheel}'", timeout=100)
    code = "import sample_pkg, sample_pkg.m299 as m; print(sample_pkg.VALUE, m.VALUE)"
    use = f"PYTHONPATH=$MNT/site /usr/bin/python3 -c '{code}'"
    for host in (b, a):
        assert host.run(use).stdout == "7 299\n"
    b.run(f"{pip} --upgrade '{wheel}'", timeout=100)
    assert a.run(use).stdout == "7 299\n"
    assert a.run("find site -name '*.pyc' | wc -l").stdout.strip() >= "300"


@pytest.mark.limit(120)
def test_npm_install(hosts):
    """A project, its dependency and npm's cache, all in the mount."""
    a, b = hosts
    if a.run("command -v npm", check=False).returncode:
        pytest.skip("npm is not installed")
    package = {"name": "sample-dep", "version": "1.0.0", "main": "index.js", "bin": {"sample-dep": "cli.js"}}
    project = {"name": "app", "version": "1.0.0", "private": True}
    a.run("mkdir -p dep/lib app")
    a.write("dep/package.json", json.dumps(package).encode())
    a.write("dep/index.js", b"module.exports = require('./lib/m7.js')\n")
    a.write("dep/cli.js", b"#!/usr/bin/env node\nconsole.log('cli')\n")
    a.run('for i in $(seq 200); do echo "module.exports = $i" > dep/lib/m$i.js; done')
    a.write("app/package.json", json.dumps(project).encode())
    npm = "export npm_config_cache=$MNT/npm-cache npm_config_update_notifier=false npm_config_logs_max=0;"
    npm += " npm --offline --no-audit --no-fund"
    a.run(f"cd dep && {npm} pack --silent && mv sample-dep-1.0.0.tgz ..", timeout=60)
    a.run(f"cd app && {npm} install --silent ../sample-dep-1.0.0.tgz", timeout=60)
    for host in (b, a):
        assert (
            host.run("cd app && node -e \"console.log(require('sample-dep'))\" && node_modules/.bin/sample-dep").stdout
            == "7\ncli\n"
        )
    b.run(f"cd app && rm -rf node_modules && {npm} ci --silent", timeout=60)
    assert a.run("ls app/node_modules/sample-dep/lib | wc -l").stdout.strip() == "200"
