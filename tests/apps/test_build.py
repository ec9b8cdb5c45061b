# SPDX-License-Identifier: GPL-2.0-or-later
"""Compiling on the mount, with a compiler cache that both hosts share in it."""
import pytest

GENERATE = r"""
set -e
mkdir -p {where}/src; cd {where}
for i in $(seq 24); do
    printf '#include <stdio.h>\n#include "all.h"\nint part%d(int x)\n{{ char b[64];\n' $i > src/part$i.c
    printf '    return snprintf(b, sizeof b, "%%d", x) + %d; }}\n' $i >> src/part$i.c
    echo "int part$i(int x);" >> src/all.h
done
{{ echo '#include <stdio.h>'; echo '#include "all.h"'; echo 'int main(void) {{ int sum = 0;'
  for i in $(seq 24); do echo "sum += part$i($i);"; done; echo 'printf("%d\n", sum); return 0; }}'; }} > src/main.c
cat > Makefile <<'M'
CC = ccache gcc
CFLAGS = -O1 -g -MMD -Isrc
PARTS = $(filter-out src/main.o,$(patsubst %.c,%.o,$(wildcard src/*.c)))
program: src/main.o libparts.a
	$(CC) -o $@ $^
libparts.a: $(PARTS)
	ar rcs $@ $^
src/main.o: CFLAGS += -save-temps=obj
clean:
	rm -f src/*.[osid] libparts.a program
-include $(wildcard src/*.d)
M
"""
RESULT = str(sum(range(1, 25)) + 9 * 1 + 15 * 2) + "\n"


def build(host, where, cache):
    return host.popen(
        f"cd {where} && export CCACHE_DIR=$MNT/{cache} && make -s -j2 2>&1 && ./program && ccache -s",
        stdout=-1,
        stderr=-1,
        text=True,
    )


def ended(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert out.startswith(RESULT), out
    return out


@pytest.mark.limit(200)
def test_make_gcc_ccache(hosts):
    """Both hosts build at once into one cache; a second build comes out of it."""
    a, b = hosts
    for where in ("one", "two"):
        a.run(GENERATE.format(where=where))
    first = [build(a, "one", "cache"), build(b, "two", "cache")]
    for process in first:
        ended(process)
    b.run("cd one && make -s clean && test ! -e program")
    assert "Hits:" in ended(build(b, "one", "cache"))
    assert a.run("one/program").stdout == RESULT
    a.run("cd one && touch src/part3.c && export CCACHE_DIR=$MNT/cache && make -s && ./program", timeout=60)
    assert "error" not in a.run("CCACHE_DIR=$MNT/cache ccache --verify-checksums 2>/dev/null || true").stdout.lower()


# 127: not there, since ld unlinks its output before it makes it anew.  "Permission denied": ld makes a program executable
# by chmod after its close, anywhere.
RUNNER = """
n=0
until test -e stop; do
    said=$(./p 2>&1)
    case $?:$said in
    0:*) n=$((n + 1)) ;;
    127:* | 126:*"Permission denied") ;;
    *) echo "status $?: $said"; exit 1 ;;
    esac
done
echo $n
"""


@pytest.mark.limit(60)
def test_linker_objects_are_whole_for_the_other_host(hosts):
    """ld seeks all over its output; the other host runs the program the moment it is there."""
    a, b = hosts
    a.run("printf 'int main(void){return 0;}' > m.c")
    runner = b.popen(RUNNER, stdout=-1, stderr=-1, text=True)
    for _ in range(8):
        a.run("gcc -g -o p m.c && strip p && objcopy --add-section .x=m.c p")
    a.run("touch stop")
    out, _ = runner.communicate(timeout=30)
    assert runner.returncode == 0 and int(out) > 50, out
