/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * The default lists, and how a name is looked up in them.
 *
 * A wrong name in `through` costs a data file its whole versions, a missing one may cost a database its journal; a
 * wrong name in `locks` lets data be taken for a lock.  So each list holds only names that mean nothing else.
 */

#include "policy.h"

#include <errno.h>
#include <fnmatch.h>
#include <string.h>

#define GLOB_BYTES_MAX 255
#define GLOBS_MAX 256

/*
 * Databases with the files beside them that have to be visible while they are open, whatever the database itself is
 * called: a journal that only its writer can see is no journal after a crash.  *.img and *.raw are left out, for they
 * are as often pictures as disks; *.dat and *.dir because they are everybody's.
 */
static const char *const through_defaults[] = {
    "*.db", "*.db3", "*.sqlite", "*.sqlite3", "*.s3db", "*.sl3", "*.gpkg", "*.mbtiles", "*-wal", "*-shm", "*-journal",
    /* SQLite's super-journals */
    "*-mj[0-9A-F][0-9A-F][0-9A-F][0-9A-F][0-9A-F][0-9A-F]9[0-9A-F][0-9A-F]", "*.duckdb", "*.duckdb.wal", "*.db.wal",
    "*.mdb", "*.mdb-lock", "*.lmdb", "*.lmdb-lock", "*.gdbm", "__db.[0-9]*",
    /* editors */
    ".*.sw?", ".*.swpx", ".sw[a-p]", ".*.kate-swp",
    /* virtual machines */
    "*.qcow", "*.qcow2", "*.vmdk", "*.vdi", "*.vhd", "*.vhdx", NULL};

static const char *const lock_defaults[] = {"*.lock",   "*.lck", "*.lockfile", "*.LOCK",    "lock", ".lock",
                                            "lockfile", ".#*",   "*.lock.d",   "*.lockdir", NULL};

/* Lists of pinned dependencies, which package managers, git and tar also make with O_EXCL. */
static const char *const data_defaults[] = {"Berksfile.lock",
                                            "Cargo.lock",
                                            "Chart.lock",
                                            "Gemfile.lock",
                                            "Gopkg.lock",
                                            "Move.lock",
                                            "Pipfile.lock",
                                            "Podfile.lock",
                                            "Scarb.lock",
                                            "buf.lock",
                                            "bun.lock",
                                            "composer.lock",
                                            "conan.lock",
                                            "deno.lock",
                                            "devbox.lock",
                                            "devenv.lock",
                                            "dvc.lock",
                                            "flake.lock",
                                            "glide.lock",
                                            "helmfile.lock",
                                            "mise.lock",
                                            "mix.lock",
                                            "paket.lock",
                                            "pdm.lock",
                                            "pixi.lock",
                                            "poetry.lock",
                                            "pubspec.lock",
                                            "rebar.lock",
                                            "renv.lock",
                                            "requirements.lock",
                                            "requirements-dev.lock",
                                            "shard.lock",
                                            "spack.lock",
                                            "stack.yaml.lock",
                                            "symfony.lock",
                                            "uv.lock",
                                            "yarn.lock",
                                            "*gradle.lockfile",
                                            "dependencies.lock",
                                            NULL};

static const char *const private_defaults[] = {"*.thread-*-pid-*", NULL}; /* joblib up to 1.5.0 */

static const char *const stream_defaults[] = {"*.log", "slurm-*.out", "nohup.out", "events.out.tfevents*", NULL};

static GPtrArray *list_new(const char *const *globs)
{
    GPtrArray *list = g_ptr_array_new_with_free_func(g_free);

    for (; globs && *globs; globs++)
        g_ptr_array_add(list, g_strdup(*globs));
    return list;
}

void sw_policy_init(SwPolicy *policy)
{
    policy->through = list_new(through_defaults);
    policy->locks = list_new(lock_defaults);
    policy->private = list_new(private_defaults);
    policy->stream = list_new(stream_defaults);
    policy->data = list_new(data_defaults);
}

void sw_policy_clear(SwPolicy *policy)
{
    g_clear_pointer(&policy->through, g_ptr_array_unref);
    g_clear_pointer(&policy->locks, g_ptr_array_unref);
    g_clear_pointer(&policy->private, g_ptr_array_unref);
    g_clear_pointer(&policy->stream, g_ptr_array_unref);
    g_clear_pointer(&policy->data, g_ptr_array_unref);
}

/* Where the list of a class stands in the policy; NULL for a class that has none. */
static GPtrArray **list_of(SwPolicy *policy, SwClass klass)
{
    switch (klass) {
    case SW_CLASS_THROUGH:
        return &policy->through;
    case SW_CLASS_LOCK:
        return &policy->locks;
    case SW_CLASS_PRIVATE:
        return &policy->private;
    case SW_CLASS_STREAM:
        return &policy->stream;
    case SW_CLASS_STAGED:
        break;
    }
    return NULL;
}

/* Behind the ']' that closes the bracket whose inside begins at `at`, or NULL. */
static const char *bracket_end(const char *at)
{
    if (*at == '!' || *at == '^')
        at++;
    /* A ']' in the first place stands for itself. */
    if (*at == ']')
        at++;
    for (; *at && *at != ']'; at++)
        if (*at == '\\' && at[1])
            at++;
    return *at ? at + 1 : NULL;
}

static gboolean brackets_closed(const char *glob)
{
    while (glob && *glob) {
        if (*glob == '\\' && glob[1])
            glob += 2;
        else if (*glob == '[')
            glob = bracket_end(glob + 1);
        else
            glob++;
    }
    return glob != NULL;
}

/* What is wrong with a glob, or NULL. */
static const char *glob_complaint(const char *glob)
{
    if (!*glob)
        return "an empty glob";
    if (strlen(glob) > GLOB_BYTES_MAX)
        return "a glob that is too long";
    for (const char *c = glob; *c; c++)
        if (*c == ',' || g_ascii_isspace(*c) || g_ascii_iscntrl(*c))
            return "a space, comma or control character";
    if (!brackets_closed(glob))
        return "a bracket that is not closed";
    return NULL;
}

static gboolean list_has(const GPtrArray *list, const char *glob)
{
    for (guint i = 0; i < list->len; i++)
        if (strcmp(g_ptr_array_index(list, i), glob) == 0)
            return TRUE;
    return FALSE;
}

/* Adds the globs of `text` to `list`; the complaint if one is bad, *ret_glob (g_free) being the one. */
static const char *list_extend(GPtrArray *list, const char *text, char **ret_glob)
{
    for (const char *at = text;; at++) {
        gsize length = strcspn(at, ":");
        g_autofree char *glob = g_strndup(at, length);
        const char *complaint = glob_complaint(glob);

        if (!complaint && !list_has(list, glob)) {
            if (list->len < GLOBS_MAX)
                g_ptr_array_add(list, g_strdup(glob));
            else
                complaint = "too many globs";
        }
        if (complaint) {
            *ret_glob = g_steal_pointer(&glob);
            return complaint;
        }
        at += length;
        if (!*at)
            return NULL;
    }
}

int sw_policy_set(SwPolicy *policy, SwClass klass, const char *text, char **ret_why)
{
    GPtrArray **place = list_of(policy, klass);
    g_autoptr(GPtrArray) list = list_new(NULL);
    g_autofree char *bad = NULL;
    const char *complaint = place ? NULL : "a class without a list";

    /* '+' extends what is set so far: the defaults, unless an earlier option has replaced them. */
    if (place && text[0] == '+') {
        for (guint i = 0; i < (*place)->len; i++)
            g_ptr_array_add(list, g_strdup(g_ptr_array_index(*place, i)));
        text++;
        complaint = list_extend(list, text, &bad);
    } else if (place && text[0]) {
        complaint = list_extend(list, text, &bad);
    }
    if (complaint) {
        if (ret_why)
            *ret_why = g_strdup_printf("%s: \"%.*s\"", complaint, GLOB_BYTES_MAX, bad ? bad : text);
        return -EINVAL;
    }
    g_ptr_array_unref(*place);
    *place = g_steal_pointer(&list);
    return 0;
}

static gboolean glob_matches(const char *glob, const char *path, const char *base)
{
    if (strchr(glob, '/'))
        return fnmatch(glob[0] == '/' ? glob + 1 : glob, path, 0) == 0;
    /* Nearly all globs are a plain name or '*' and a plain ending, which need no fnmatch: this runs at each create. */
    if (!strpbrk(glob, "*?[\\"))
        return strcmp(glob, base) == 0;
    if (glob[0] == '*' && !strpbrk(glob + 1, "*?[\\"))
        return g_str_has_suffix(base, glob + 1);
    return fnmatch(glob, base, 0) == 0;
}

static gboolean list_matches(const GPtrArray *list, const char *path, const char *base)
{
    for (guint i = 0; i < list->len; i++)
        if (glob_matches(g_ptr_array_index(list, i), path, base))
            return TRUE;
    return FALSE;
}

SwClass sw_policy_classify(const SwPolicy *policy, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;

    if (list_matches(policy->through, path, base))
        return SW_CLASS_THROUGH;
    if (list_matches(policy->locks, path, base) && !list_matches(policy->data, path, base))
        return SW_CLASS_LOCK;
    if (list_matches(policy->private, path, base))
        return SW_CLASS_PRIVATE;
    if (list_matches(policy->stream, path, base))
        return SW_CLASS_STREAM;
    return SW_CLASS_STAGED;
}

char *sw_policy_text(const SwPolicy *policy, SwClass klass)
{
    /* list_of hands out a place to write to; here it is only read. */
    GPtrArray **place = list_of((SwPolicy *)policy, klass);
    GString *text = g_string_new(NULL);

    for (guint i = 0; place && i < (*place)->len; i++)
        g_string_append_printf(text, "%s%s", i ? ":" : "", (const char *)g_ptr_array_index(*place, i));
    return g_string_free(text, FALSE);
}
