/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "stale.h"

#define REMEMBERED_MAX 4096

struct SimStale {
    GHashTable *names;       /* "inode/name" -> SimRemembered, owned */
    GHashTable *generations; /* inode -> how often it was forgotten */
};

static void remembered_free(gpointer data)
{
    SimRemembered *remembered = data;

    g_free(remembered->text);
    g_free(remembered);
}

SimStale *sim_stale_new(void)
{
    SimStale *stale = g_new0(SimStale, 1);

    stale->names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, remembered_free);
    stale->generations = g_hash_table_new(NULL, NULL);
    return stale;
}

void sim_stale_free(SimStale *stale)
{
    g_hash_table_unref(stale->names);
    g_hash_table_unref(stale->generations);
    g_free(stale);
}

static guint64 generation_of(SimStale *stale, ino_t dir)
{
    return GPOINTER_TO_SIZE(g_hash_table_lookup(stale->generations, GSIZE_TO_POINTER(dir)));
}

static char *key_of(ino_t dir, const char *name)
{
    return g_strdup_printf("%" G_GUINT64_FORMAT "/%s", (guint64)dir, name);
}

SimRemembered *sim_stale_find(SimStale *stale, ino_t dir, const char *name, gint64 now_us)
{
    g_autofree char *key = key_of(dir, name);
    SimRemembered *remembered = g_hash_table_lookup(stale->names, key);

    if (!remembered)
        return NULL;
    if (remembered->until_us >= now_us && remembered->generation == generation_of(stale, dir) &&
        remembered->own_generation == generation_of(stale, remembered->found.st.st_ino))
        return remembered;
    g_hash_table_remove(stale->names, key);
    return NULL;
}

SimRemembered *sim_stale_remember(SimStale *stale, ino_t dir, const char *name, const SwFound *found, gint64 until_us)
{
    SimRemembered *remembered = g_new0(SimRemembered, 1);

    remembered->missing = !found;
    if (found)
        remembered->found = *found;
    remembered->until_us = until_us;
    remembered->generation = generation_of(stale, dir);
    remembered->own_generation = generation_of(stale, remembered->found.st.st_ino);
    if (g_hash_table_size(stale->names) >= REMEMBERED_MAX)
        g_hash_table_remove_all(stale->names);
    g_hash_table_insert(stale->names, key_of(dir, name), remembered);
    return remembered;
}

void sim_stale_forget(SimStale *stale, ino_t dir, const char *name)
{
    g_autofree char *key = key_of(dir, name);

    g_hash_table_remove(stale->names, key);
}

void sim_stale_forget_inode(SimStale *stale, ino_t ino)
{
    g_hash_table_insert(stale->generations, GSIZE_TO_POINTER(ino), GSIZE_TO_POINTER(generation_of(stale, ino) + 1));
}
