# SPDX-License-Identifier: GPL-2.0-or-later
"""Saves of editors and of programs that edit in place; the other host reads whole versions only."""
import pytest

OLD = "".join(f"old line {i}\n" for i in range(3000))
NEW = OLD.replace("old", "new")
VIM = "vim -es -u NONE -i NONE -c '{}' -c '%s/old/new/' -c wq text"

EDITORS = {
    "vim": VIM.format("set nobackup"),
    "vim with backup": VIM.format("set backup backupcopy=yes backupdir=."),
    "vim renaming": VIM.format("set backup backupcopy=no backupdir=."),
    "vim with fsync": VIM.format("set fsync undofile"),
    "emacs": """emacs --batch -Q text --eval '(while (search-forward "old" nil t)
        (replace-match "new"))' -f save-buffer""",
    "emacs in place": """emacs --batch -Q --eval '(setq backup-by-copying t)' text --eval '(while
        (search-forward "old" nil t) (replace-match "new"))' -f save-buffer""",
    "ed": "printf ',s/old/new/\\nw\\nq\\n' | ed -s text",
    "sed -i": "sed -i s/old/new/ text",
    "perl -i": "perl -i -pe s/old/new/ text",
    "sponge": "sed s/old/new/ text | { cat > $SCRATCH/t; cat $SCRATCH/t > text; }",
    "patch": "sed s/old/new/ text > other; diff -u text other > p; patch -s text p",
    "sort -o": "sed -i s/old/new/ text; sort -n -k3 -o text text",
    "tee": "sed s/old/new/ text > $SCRATCH/t; tee text < $SCRATCH/t > /dev/null",
    "cp over": "sed s/old/new/ text > $SCRATCH/t; cp $SCRATCH/t text",
    "install": "sed s/old/new/ text > $SCRATCH/t; install -m 640 $SCRATCH/t text",
    "dd": "sed s/old/new/ text > $SCRATCH/t; dd if=$SCRATCH/t of=text conv=fsync status=none bs=777",
    "python replace": """/usr/bin/python3 -c '
import os, tempfile
text = open("text").read().replace("old", "new")
with tempfile.NamedTemporaryFile("w", dir=".", delete=False) as f: f.write(text)
os.replace(f.name, "text")'""",
}
NEEDS = {"ed": "ed", "patch": "patch"}


def has(host, program):
    return host.run(["bash", "-c", f"command -v {program}"], check=False).returncode == 0


@pytest.mark.limit(60)
@pytest.mark.parametrize("editor", EDITORS)
def test_save(hosts, editor):
    a, b = hosts
    program = EDITORS[editor].split()[0]
    if not has(a, NEEDS.get(editor, program)):
        pytest.skip(f"{program} is not installed")
    a.write("text", OLD.encode())
    a.run("chmod 640 text; setfattr -n user.note -v kept text 2>/dev/null; true")
    reader = b.reader("text", [OLD.encode(), NEW.encode()])
    a.run(EDITORS[editor], timeout=40)
    seen = reader.stop()
    assert b("get('text')") == NEW.encode()
    assert b.look("text").st_mode & 0o777 == (0o600 if editor == "python replace" else 0o640)
    assert "absent" not in seen or editor in MOVES_ASIDE
    left = [n for n in b.list() if n not in ("text", "text~", "other", "p", "text.orig", ".text.un~")]
    assert left == []


# These rename the old file away before the new one is there, on any file system.
MOVES_ASIDE = ("vim renaming", "emacs", "perl -i", "patch", "install")

NANO = """
import os, pty, select, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.environ['TERM'] = 'xterm'
    os.execvp('nano', ['nano', '--ignorercfiles', 'text'])
def wait(seconds=0.5):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([fd], [], [], 0.05)[0]:
            try: os.read(fd, 65536)
            except OSError: return
wait(1.0)
for keys in (b'typed first ', b'\\x0f', b'\\r', b'\\x18'):
    os.write(fd, keys); wait()
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.limit(60)
def test_nano(hosts):
    a, b = hosts
    if not has(a, "nano"):
        pytest.skip("nano is not installed")
    a.write("text", OLD.encode())
    wanted = b"typed first " + OLD.encode()
    reader = b.reader("text", [OLD.encode(), wanted])
    assert a.run(["/usr/bin/python3", "-c", NANO]).stdout == "0\n"
    assert "absent" not in reader.stop()
    assert b("get('text')") == wanted


@pytest.mark.limit(60)
def test_vim_killed_leaves_its_swap_file(hosts):
    """Rule C25: the swap file is written through, so that it is there to recover from after a kill."""
    a, b = hosts
    if not has(a, "vim"):
        pytest.skip("vim is not installed")
    a.write("text", OLD.encode())
    vim = a.popen(
        [
            "vim",
            "-es",
            "-u",
            "NONE",
            "-i",
            "NONE",
            "-c",
            "set updatecount=1",
            "-c",
            "1s/old/edited/",
            "-c",
            "preserve",
            "-c",
            "sleep 60",
            "text",
        ]
    )
    b.run("for i in $(seq 100); do grep -aq edited .text.swp 2>/dev/null && exit 0; sleep 0.1; done; exit 1")
    vim.end()
    vim.wait()
    assert b("get('text')") == OLD.encode()
    b.run(["vim", "-es", "-u", "NONE", "-i", "NONE", "-r", "text", "-c", "w! recovered", "-c", "q!"], check=False)
    assert b("get('recovered')").startswith(b"edited line 0\n")
