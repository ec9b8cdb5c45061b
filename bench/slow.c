/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Preloaded into a daemon: whatever renames a file to the name "slow" waits for a second, as for a source that is slow.
 * Daemons rename by any of these calls; ours by syscall(2), since the flags that it wants are newer than the function.
 */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void wait_for(const char *name)
{
    const char *slash = strrchr(name, '/');
    if (strcmp(slash ? slash + 1 : name, "slow") == 0)
        usleep(1000 * 1000);
}

int rename(const char *from, const char *to)
{
    int (*next)(const char *, const char *) = dlsym(RTLD_NEXT, "rename");
    wait_for(to);
    return next(from, to);
}

int renameat(int olddir, const char *from, int newdir, const char *to)
{
    int (*next)(int, const char *, int, const char *) = dlsym(RTLD_NEXT, "renameat");
    wait_for(to);
    return next(olddir, from, newdir, to);
}

int renameat2(int olddir, const char *from, int newdir, const char *to, unsigned flags)
{
    int (*next)(int, const char *, int, const char *, unsigned) = dlsym(RTLD_NEXT, "renameat2");
    wait_for(to);
    return next(olddir, from, newdir, to, flags);
}

long syscall(long number, ...)
{
    long (*next)(long, ...) = dlsym(RTLD_NEXT, "syscall");
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_renameat2)
        wait_for((const char *)a[3]);
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
