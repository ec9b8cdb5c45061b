/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The graph of nodes, descriptors, stages and handles, for the daemon that follows.
 *
 * A field that is added to one of these structures has to be added here as well, or what becomes of it has to be said;
 * the sizes below are to make whoever adds one look.  Made anew are, of an overlay, what its settings say, whether
 * files can be passed through (the follower's libfuse is greeted again), and what is guessed of readers of directories;
 * and of a node and of a backing, who goes by them.
 */
#include "carry.h"

#include <string.h>

#define OBJECTS_MAX (1u << 28)
#define TEXT_MAX (1u << 16)
#define RECORD_MAX (1u << 26)

#if defined __x86_64__ && !defined __SANITIZE_THREAD__ && !defined __SANITIZE_ADDRESS__
G_STATIC_ASSERT(sizeof(SwNode) == 312);
G_STATIC_ASSERT(sizeof(SwStage) == 768);
G_STATIC_ASSERT(sizeof(SwHandle) == 544);
G_STATIC_ASSERT(sizeof(SwPin) == 88);
G_STATIC_ASSERT(sizeof(SwPending) == 48);
G_STATIC_ASSERT(sizeof(SwLockedFile) == 168);
G_STATIC_ASSERT(sizeof(SwBacking) == 32);
G_STATIC_ASSERT(sizeof(SwOverlay) == 2040);
#endif

/* ---- references */

void sw_carry_add(SwCarriage *carriage, SwCarryKind kind, gpointer object)
{
    const guint none = 0;

    if (!object || (sw_bundle_is_out(carriage->bundle) && g_hash_table_contains(carriage->places, object)))
        return;
    g_ptr_array_add(carriage->all[kind], object);
    g_array_append_val(carriage->refs[kind], none);
    if (sw_bundle_is_out(carriage->bundle))
        g_hash_table_insert(carriage->places, object, GUINT_TO_POINTER(carriage->all[kind]->len));
}

void sw_carry_ref(SwCarriage *carriage, SwCarryKind kind, gpointer *object, gboolean counted)
{
    SwBundle *bundle = carriage->bundle;
    guint place = 0;

    if (sw_bundle_is_out(bundle) && *object) {
        place = GPOINTER_TO_UINT(g_hash_table_lookup(carriage->places, *object));
        if (!place || place > carriage->all[kind]->len || carriage->all[kind]->pdata[place - 1] != *object)
            sw_bundle_fail(bundle, "something is referred to that is not listed (%d)", (int)kind);
    }
    sw_bundle_choice(bundle, &place, carriage->all[kind]->len);
    if (sw_bundle_failed(bundle))
        place = 0;
    if (!sw_bundle_is_out(bundle))
        *object = place ? carriage->all[kind]->pdata[place - 1] : NULL;
    if (place && counted)
        g_array_index(carriage->refs[kind], guint, place - 1)++;
}

static void must_have(SwCarriage *carriage, gconstpointer object)
{
    if (!object && !sw_bundle_failed(carriage->bundle))
        sw_bundle_fail(carriage->bundle, "a reference is missing");
}

void sw_carry_name(SwCarriage *carriage, char **name)
{
    sw_bundle_text(carriage->bundle, name, NAME_MAX + 1);
    if (*name && (!**name || strchr(*name, '/')))
        sw_bundle_fail(carriage->bundle, "a name is none");
}

void sw_carry_cred(SwCarriage *carriage, SwCred *cred)
{
    SW_BUNDLE(carriage->bundle, *cred);
    if (cred->n_groups > G_N_ELEMENTS(cred->groups)) {
        sw_bundle_fail(carriage->bundle, "somebody is in too many groups");
        cred->n_groups = 0;
    }
}

void sw_carry_old(SwCarriage *carriage, SwOld *old)
{
    sw_epoch_carry(carriage->overlay->control, carriage->bundle, &old->epoch);
    SW_BUNDLE(carriage->bundle, old->number);
}

/* ---- nodes */

static void carry_names(SwCarriage *carriage, SwNode *node)
{
    guint n = 0;
    SwName **end = &node->names;

    for (SwName *at = node->names; at; at = at->next)
        n++;
    n = sw_bundle_count(carriage->bundle, n, OBJECTS_MAX);
    for (guint i = 0; i < n; i++) {
        SwName *at = *end;
        g_autofree char *read = NULL;
        char *name = at ? at->name : NULL;
        sw_carry_name(carriage, &name);
        if (!at) {
            read = name ? name : g_strdup("?");
            at = g_malloc0(sizeof *at + strlen(read) + 1);
            strcpy(at->name, read);
            *end = at;
        }
        SW_CARRY(carriage, SW_CARRY_NODE, at->parent, TRUE);
        must_have(carriage, at->parent);
        end = &at->next;
    }
}

static void carry_flags(SwBundle *bundle, SwNode *node)
{
    guint flags = node->stale | node->lingering << 1 | node->replaced << 2 | node->grows << 3 | node->doubted << 4;

    sw_bundle_choice(bundle, &flags, 31);
    node->stale = flags & 1;
    node->lingering = flags >> 1 & 1;
    node->replaced = flags >> 2 & 1;
    node->grows = flags >> 3 & 1;
    node->doubted = flags >> 4 & 1;
}

/* The id is the connection's, and so stays good.  Who goes by it is counted again (link_objects). */
static void carry_backing(SwBundle *bundle, SwNode *node)
{
    if (sw_bundle_count(bundle, node->backing != NULL, 1) == 0)
        return;
    if (!node->backing)
        node->backing = g_new0(SwBacking, 1);
    SW_BUNDLE(bundle, node->backing->id);
    SW_BUNDLE(bundle, node->backing->of);
}

static void carry_node(SwCarriage *carriage, SwNode *node)
{
    SwBundle *bundle = carriage->bundle;

    sw_bundle_mark(bundle, "node");
    if (sw_bundle_is_out(bundle))
        node->kernel_id = sw_overlay_node_id(carriage->overlay, node);
    SW_BUNDLE(bundle, node->kernel_id);
    SW_BUNDLE(bundle, node->id);
    SW_BUNDLE(bundle, node->listed);
    SW_BUNDLE(bundle, node->type);
    SW_BUNDLE(bundle, node->n_lookup);
    carry_names(carriage, node);
    SW_CARRY(carriage, SW_CARRY_STAGE, node->stage, TRUE);
    SW_CARRY(carriage, SW_CARRY_FILE, node->dir, TRUE);
    SW_CARRY(carriage, SW_CARRY_FILE, node->shown, TRUE);
    sw_listing_carry(bundle, &node->listing);
    carry_flags(bundle, node);
    carry_backing(bundle, node);
    SW_BUNDLE(bundle, node->name_until_us);
    SW_BUNDLE(bundle, node->moving_us);
    SW_BUNDLE(bundle, node->moving_tid);
    SW_BUNDLE(bundle, node->asked_us);
    SW_BUNDLE(bundle, node->hidden_links);
    SW_BUNDLE(bundle, node->told);
    SW_BUNDLE(bundle, node->read_as);
    SW_BUNDLE(bundle, node->appended_to);
    if (node->in_place_writes)
        sw_bundle_fail(bundle, "something is being written");
}

static void list_node(SwCarriage *carriage, SwNode *node)
{
    SwOverlay *ov = carriage->overlay;

    node->dir_link.data = node;
    if (!node->listed) {
        g_hash_table_add(ov->strays, node);
        return;
    }
    if (!g_hash_table_add(ov->nodes, node))
        sw_bundle_fail(carriage->bundle, "two nodes are one object");
}

/* ---- stages */

static void carry_ranges(SwBundle *bundle, SwRanges *ranges)
{
    guint n = sw_bundle_count(bundle, ranges->pieces ? ranges->pieces->len : 0, SW_RANGES_MAX);
    guint64 last = 0;

    for (guint i = 0; i < n; i++) {
        SwRange piece = sw_bundle_is_out(bundle) ? g_array_index(ranges->pieces, SwRange, i) : (SwRange){0};
        SW_BUNDLE(bundle, piece);
        if (sw_bundle_is_out(bundle))
            continue;
        if (piece.start >= piece.end || (i && piece.start <= last))
            sw_bundle_fail(bundle, "ranges are in no order");
        last = piece.end;
        if (!ranges->pieces)
            ranges->pieces = g_array_new(FALSE, FALSE, sizeof(SwRange));
        g_array_append_val(ranges->pieces, piece);
    }
    SW_BUNDLE(bundle, ranges->cut);
    SW_BUNDLE(bundle, ranges->size);
}

static void carry_family(SwBundle *bundle, GArray *family)
{
    guint n = sw_bundle_count(bundle, family->len, OBJECTS_MAX);

    for (guint i = 0; i < n; i++) {
        pid_t pid = sw_bundle_is_out(bundle) ? g_array_index(family, pid_t, i) : 0;
        SW_BUNDLE(bundle, pid);
        if (!sw_bundle_is_out(bundle))
            g_array_append_val(family, pid);
    }
}

/* What is S: in internal.h. */
static void carry_contents(SwCarriage *carriage, SwStage *stage)
{
    SwBundle *bundle = carriage->bundle;

    SW_BUNDLE(bundle, stage->materialised);
    sw_epoch_carry(carriage->overlay->control, bundle, &stage->epoch);
    sw_bundle_choice(bundle, &stage->worker, SW_STAGE_DIRS - 1);
    sw_bundle_choice(bundle, &stage->counted_in, SW_STAGE_DIRS);
    sw_bundle_field(bundle, stage->stage_name, sizeof stage->stage_name);
    SW_BUNDLE(bundle, stage->edit);
    SW_BUNDLE(bundle, stage->unmade);
    SW_BUNDLE(bundle, stage->has_base);
    SW_BUNDLE(bundle, stage->base);
    carry_ranges(bundle, &stage->ranges);
    SW_BUNDLE(bundle, stage->trial);
    SW_BUNDLE(bundle, stage->synced);
    SW_BUNDLE(bundle, stage->described);
    SW_BUNDLE(bundle, stage->mtime_set);
    SW_BUNDLE(bundle, stage->mode_set);
    SW_BUNDLE(bundle, stage->owner_set);
    SW_BUNDLE(bundle, stage->claimed);
    SW_BUNDLE(bundle, stage->read_write);
    SW_BUNDLE(bundle, stage->was_in_flight);
    SW_BUNDLE(bundle, stage->was_mapped);
    SW_BUNDLE(bundle, stage->mark);
    SW_BUNDLE(bundle, stage->opened_us);
    SW_BUNDLE(bundle, stage->last_write_us);
    SW_BUNDLE(bundle, stage->published_us);
    SW_BUNDLE(bundle, stage->gone_error);
    SW_BUNDLE(bundle, stage->writer_tid);
    SW_BUNDLE(bundle, stage->writer_pid);
    if (stage->materialised && !stage->epoch)
        sw_bundle_fail(bundle, "a stage is of no epoch");
    if (strchr(stage->stage_name, '/'))
        sw_bundle_fail(bundle, "a stage is of another directory");
}

static void carry_stage(SwCarriage *carriage, SwStage *stage)
{
    SwBundle *bundle = carriage->bundle;
    guint klass = stage->klass, state = stage->state;

    sw_bundle_mark(bundle, "stage");
    sw_carry_cred(carriage, &stage->cred);
    sw_bundle_choice(bundle, &klass, SW_CLASS_STAGED);
    sw_bundle_choice(bundle, &state, SW_STAGE_GONE);
    stage->klass = klass;
    stage->state = state;
    SW_CARRY(carriage, SW_CARRY_NODE, stage->node, TRUE);
    SW_CARRY(carriage, SW_CARRY_NODE, stage->parent, TRUE);
    sw_carry_name(carriage, &stage->name);
    SW_BUNDLE(bundle, stage->listed);
    SW_BUNDLE(bundle, stage->everyone);
    SW_BUNDLE(bundle, stage->quiet);
    SW_BUNDLE(bundle, stage->guests);
    carry_family(bundle, stage->family);
    SW_BUNDLE(bundle, stage->n_writers);
    SW_BUNDLE(bundle, stage->n_coming);
    SW_CARRY(carriage, SW_CARRY_FILE, stage->file, TRUE);
    must_have(carriage, stage->node);
    must_have(carriage, stage->file);
    if (!stage->parent != !stage->name)
        sw_bundle_fail(bundle, "a stage has half a name");
    carry_contents(carriage, stage);
    if (!sw_bundle_is_out(bundle) && stage->counted_in)
        carriage->overlay->stages_in[stage->counted_in - 1]++;
}

/* ---- handles */

static void carry_handle(SwCarriage *carriage, SwHandle *handle)
{
    SwBundle *bundle = carriage->bundle;
    guint kind = sw_handle_kind(handle), caching = handle->caching;

    sw_bundle_mark(bundle, "handle");
    if (sw_bundle_is_out(bundle))
        handle->kernel_id = sw_overlay_handle_id(carriage->overlay, handle);
    SW_BUNDLE(bundle, handle->kernel_id);
    sw_bundle_choice(bundle, &kind, SW_HANDLE_INPLACE);
    sw_bundle_choice(bundle, &caching, SW_CACHE_NONE);
    handle->kind = kind;
    handle->caching = caching;
    SW_BUNDLE(bundle, handle->flags);
    SW_CARRY(carriage, SW_CARRY_NODE, handle->node, TRUE);
    SW_CARRY(carriage, SW_CARRY_STAGE, handle->stage, TRUE);
    sw_carry_cred(carriage, &handle->cred);
    SW_CARRY(carriage, SW_CARRY_FILE, handle->file, TRUE);
    SW_BUNDLE(bundle, handle->id);
    SW_CARRY(carriage, SW_CARRY_NODE, handle->bearer, TRUE);
    SW_CARRY(carriage, SW_CARRY_NODE, handle->parent, TRUE);
    sw_carry_name(carriage, &handle->name);
    SW_BUNDLE(bundle, handle->links);
    sw_bundle_array(bundle, &handle->pending, RECORD_MAX);
    SW_BUNDLE(bundle, handle->failure);
    SW_BUNDLE(bundle, handle->pending_since_us);
    SW_BUNDLE(bundle, handle->pending_writer);
    SW_CARRY(carriage, SW_CARRY_NODE, handle->served_in, TRUE);
    SW_BUNDLE(bundle, handle->backed);
    SW_BUNDLE(bundle, handle->passed);
    SW_BUNDLE(bundle, handle->cut_later);
    SW_BUNDLE(bundle, handle->in_place);
    sw_epoch_carry(carriage->overlay->control, bundle, &handle->epoch);
    SW_BUNDLE(bundle, handle->look_us);
    sw_carry_old(carriage, &handle->held);
    must_have(carriage, handle->node);
    must_have(carriage, kind == SW_HANDLE_STAGED ? (gpointer)handle->stage : handle->file);
    if (kind == SW_HANDLE_APPEND && (!handle->bearer || !handle->parent || !handle->name))
        sw_bundle_fail(bundle, "an appender has no name");
}

/* ---- what refers to them */

static void carry_pin(SwCarriage *carriage, SwPin *pin)
{
    SwBundle *bundle = carriage->bundle;

    sw_bundle_mark(bundle, "pin");
    SW_BUNDLE(bundle, pin->tid);
    SW_BUNDLE(bundle, pin->uid);
    SW_CARRY(carriage, SW_CARRY_NODE, pin->from, TRUE);
    SW_BUNDLE(bundle, pin->flags);
    SW_BUNDLE(bundle, pin->intent);
    SW_CARRY(carriage, SW_CARRY_NODE, pin->node, TRUE);
    SW_CARRY(carriage, SW_CARRY_NODE, pin->parent, TRUE);
    sw_carry_name(carriage, &pin->name);
    SW_CARRY(carriage, SW_CARRY_HANDLE, pin->handle, FALSE);
    SW_CARRY(carriage, SW_CARRY_STAGE, pin->stage, TRUE);
    SW_BUNDLE(bundle, pin->error);
    SW_BUNDLE(bundle, pin->walks);
    SW_BUNDLE(bundle, pin->since_us);
    SW_BUNDLE(bundle, pin->age_us);
    must_have(carriage, pin->from);
    if (!pin->intent && (!pin->node || !pin->parent || !pin->name))
        sw_bundle_fail(bundle, "a walk leads nowhere");
}

static void carry_pins(SwCarriage *carriage)
{
    SwOverlay *ov = carriage->overlay;
    guint n = sw_bundle_count(carriage->bundle, g_slist_length(ov->pins), OBJECTS_MAX);
    GSList *at = ov->pins, *read = NULL;

    for (guint i = 0; i < n; i++) {
        SwPin *pin = at ? at->data : g_new0(SwPin, 1);
        carry_pin(carriage, pin);
        if (!at)
            read = g_slist_prepend(read, pin);
        at = at ? at->next : NULL;
    }
    if (read)
        ov->pins = g_slist_reverse(read);
    SW_BUNDLE(carriage->bundle, ov->pins_at_us);
}

/* A list of stages, counted. */
static void carry_stages(SwCarriage *carriage, GSList **stages)
{
    guint n = sw_bundle_count(carriage->bundle, g_slist_length(*stages), OBJECTS_MAX);
    GSList *at = *stages, *read = NULL;

    for (guint i = 0; i < n; i++) {
        SwStage *stage = at ? at->data : NULL;
        SW_CARRY(carriage, SW_CARRY_STAGE, stage, TRUE);
        must_have(carriage, stage);
        if (!at)
            read = g_slist_prepend(read, stage);
        at = at ? at->next : NULL;
    }
    if (read)
        *stages = g_slist_reverse(read);
}

static void carry_pending_one(SwCarriage *carriage, SwPending *pending)
{
    sw_bundle_mark(carriage->bundle, "pending");
    SW_CARRY(carriage, SW_CARRY_NODE, pending->parent, TRUE);
    sw_carry_name(carriage, &pending->name);
    SW_BUNDLE(carriage->bundle, pending->hot_until_us);
    SW_BUNDLE(carriage->bundle, pending->turn);
    SW_BUNDLE(carriage->bundle, pending->looked);
    must_have(carriage, pending->parent);
    must_have(carriage, pending->name);
    carry_stages(carriage, &pending->stages);
}

static void carry_pending(SwCarriage *carriage)
{
    SwOverlay *ov = carriage->overlay;
    g_autoptr(GList) all = g_hash_table_get_keys(ov->pending);
    guint n = sw_bundle_count(carriage->bundle, g_list_length(all), OBJECTS_MAX);
    GList *at = all;

    for (guint i = 0; i < n; i++) {
        SwPending *pending = at ? at->data : g_new0(SwPending, 1);
        carry_pending_one(carriage, pending);
        if (!at && !sw_bundle_failed(carriage->bundle))
            g_hash_table_add(ov->pending, pending);
        at = at ? at->next : NULL;
    }
}

/* A list of objects that does not count for them. */
static void carry_list(SwCarriage *carriage, SwCarryKind kind, GPtrArray *list)
{
    guint n = sw_bundle_count(carriage->bundle, list->len, OBJECTS_MAX);

    for (guint i = 0; i < n; i++) {
        gpointer object = i < list->len ? list->pdata[i] : NULL;
        sw_carry_ref(carriage, kind, &object, FALSE);
        must_have(carriage, object);
        if (i >= list->len)
            g_ptr_array_add(list, object);
    }
    if (sw_bundle_failed(carriage->bundle))
        g_ptr_array_set_size(list, 0);
}

static void queue_to(GPtrArray *list, const GQueue *queue)
{
    for (GList *at = queue->head; at; at = at->next)
        g_ptr_array_add(list, at->data);
}

static void carry_dirs(SwCarriage *carriage)
{
    SwOverlay *ov = carriage->overlay;
    g_autoptr(GPtrArray) list = g_ptr_array_new();

    queue_to(list, &ov->dirs);
    carry_list(carriage, SW_CARRY_NODE, list);
    for (guint i = 0; !sw_bundle_is_out(carriage->bundle) && i < list->len; i++) {
        SwNode *node = list->pdata[i];
        if (!node->dir || node->dir_link.prev || ov->dirs.head == &node->dir_link)
            sw_bundle_fail(carriage->bundle, "a directory is open twice, or not at all");
        else
            g_queue_push_tail_link(&ov->dirs, &node->dir_link);
    }
}

static void carry_looks(SwCarriage *carriage)
{
    SwOverlay *ov = carriage->overlay;
    g_autoptr(GPtrArray) list = g_ptr_array_new();

    queue_to(list, &ov->looks);
    carry_list(carriage, SW_CARRY_HANDLE, list);
    for (guint i = 0; !sw_bundle_is_out(carriage->bundle) && i < list->len; i++) {
        SwHandle *handle = list->pdata[i];
        if (handle->look_link.data)
            sw_bundle_fail(carriage->bundle, "a handle looks twice");
        handle->look_link.data = handle;
        g_queue_push_tail_link(&ov->looks, &handle->look_link);
    }
}

static void carry_appenders(SwCarriage *carriage)
{
    SwOverlay *ov = carriage->overlay;
    g_autoptr(GPtrArray) list = g_ptr_array_new();

    for (GSList *at = ov->appenders; at; at = at->next)
        g_ptr_array_add(list, at->data);
    carry_list(carriage, SW_CARRY_HANDLE, list);
    for (guint i = list->len; !sw_bundle_is_out(carriage->bundle) && i > 0; i--)
        ov->appenders = g_slist_prepend(ov->appenders, list->pdata[i - 1]);
}

/* ---- the whole */

static void collect_node(gpointer key, gpointer value, gpointer data)
{
    SwCarriage *carriage = data;
    SwNode *node = key;

    (void)value;
    sw_carry_add(carriage, SW_CARRY_NODE, node);
    sw_carry_add(carriage, SW_CARRY_FILE, node->dir);
    sw_carry_add(carriage, SW_CARRY_FILE, node->shown);
    sw_carry_add(carriage, SW_CARRY_STAGE, node->stage);
    for (GSList *at = node->handles; at; at = at->next) {
        SwHandle *handle = at->data;
        sw_carry_add(carriage, SW_CARRY_HANDLE, handle);
        sw_carry_add(carriage, SW_CARRY_STAGE, handle->stage);
        sw_carry_add(carriage, SW_CARRY_FILE, handle->file);
    }
}

static void collect_pending(gpointer key, gpointer value, gpointer data)
{
    const SwPending *pending = key;

    (void)value;
    for (GSList *at = pending->stages; at; at = at->next)
        sw_carry_add(data, SW_CARRY_STAGE, at->data);
}

static void collect(SwCarriage *carriage)
{
    SwOverlay *ov = carriage->overlay;

    g_hash_table_foreach(ov->nodes, collect_node, carriage);
    g_hash_table_foreach(ov->strays, collect_node, carriage);
    g_hash_table_foreach(ov->pending, collect_pending, carriage);
    for (GSList *at = ov->lingering; at; at = at->next)
        sw_carry_add(carriage, SW_CARRY_STAGE, at->data);
    for (GSList *at = ov->pins; at; at = at->next)
        sw_carry_add(carriage, SW_CARRY_STAGE, ((SwPin *)at->data)->stage);
    for (guint i = 0; i < carriage->all[SW_CARRY_STAGE]->len; i++)
        sw_carry_add(carriage, SW_CARRY_FILE, ((SwStage *)carriage->all[SW_CARRY_STAGE]->pdata[i])->file);
    sw_file_locks_collect(carriage);
}

static gpointer make(SwCarriage *carriage, SwCarryKind kind)
{
    SwOverlay *ov = carriage->overlay;
    SwStage *stage;
    SwHandle *handle;

    switch (kind) {
    case SW_CARRY_NODE:
        return g_new0(SwNode, 1);
    case SW_CARRY_FILE:
        return sw_file_new(ov->port, -1);
    case SW_CARRY_STAGE:
        stage = g_new0(SwStage, 1);
        stage->overlay = ov;
        stage->family = g_array_new(FALSE, FALSE, sizeof(pid_t));
        sw_mutex_init(&stage->lock);
        sw_ranges_init(&stage->ranges);
        return stage;
    case SW_CARRY_HANDLE:
        handle = g_new0(SwHandle, 1);
        sw_mutex_init(&handle->lock);
        return handle;
    default:
        return sw_locked_file_blank(ov);
    }
}

static void make_all(SwCarriage *carriage, SwCarryKind kind)
{
    guint n = sw_bundle_count(carriage->bundle, carriage->all[kind]->len, OBJECTS_MAX);

    for (guint i = 0; !sw_bundle_is_out(carriage->bundle) && i < n; i++)
        sw_carry_add(carriage, kind, make(carriage, kind));
}

static void carry_file(SwCarriage *carriage, SwFile *file)
{
    sw_bundle_fd(carriage->bundle, &file->fd);
    if (file->fd < 0)
        sw_bundle_fail(carriage->bundle, "a file is not open");
    else if (!sw_bundle_is_out(carriage->bundle))
        sw_port_posix_adopt(carriage->overlay->port, file->fd);
}

static void carry_objects(SwCarriage *carriage)
{
    for (SwCarryKind kind = 0; kind < SW_CARRY_N; kind++)
        make_all(carriage, kind);
    for (guint i = 0; i < carriage->all[SW_CARRY_FILE]->len; i++)
        carry_file(carriage, carriage->all[SW_CARRY_FILE]->pdata[i]);
    for (guint i = 0; i < carriage->all[SW_CARRY_NODE]->len; i++)
        carry_node(carriage, carriage->all[SW_CARRY_NODE]->pdata[i]);
    for (guint i = 0; i < carriage->all[SW_CARRY_STAGE]->len; i++)
        carry_stage(carriage, carriage->all[SW_CARRY_STAGE]->pdata[i]);
    for (guint i = 0; i < carriage->all[SW_CARRY_HANDLE]->len; i++)
        carry_handle(carriage, carriage->all[SW_CARRY_HANDLE]->pdata[i]);
}

static void link_served(SwCarriage *carriage, const SwHandle *handle)
{
    SwNode *node = handle->served_in;

    if (handle->backed && (!node || !node->backing))
        sw_bundle_fail(carriage->bundle, "a handle goes by a backing that is not there");
    else if (handle->backed)
        node->backing->handles++;
    else if (node)
        node->n_unbacked++;
}

/* What follows from the fields of the objects that were read. */
static void link_objects(SwCarriage *carriage)
{
    SwOverlay *ov = carriage->overlay;

    for (guint i = 0; i < carriage->all[SW_CARRY_NODE]->len; i++) {
        list_node(carriage, carriage->all[SW_CARRY_NODE]->pdata[i]);
        sw_ids_inherit(ov, &((SwNode *)carriage->all[SW_CARRY_NODE]->pdata[i])->kernel_id,
                       carriage->all[SW_CARRY_NODE]->pdata[i]);
    }
    for (guint i = carriage->all[SW_CARRY_HANDLE]->len; i > 0; i--) {
        SwHandle *handle = carriage->all[SW_CARRY_HANDLE]->pdata[i - 1];
        handle->node->handles = g_slist_prepend(handle->node->handles, handle);
        sw_ids_inherit(ov, &handle->kernel_id, handle);
        link_served(carriage, handle);
        if (handle->in_place)
            ov->in_place = g_slist_prepend(ov->in_place, handle);
    }
}

static void check_count(SwCarriage *carriage, const char *what, guint counter, guint found)
{
    if (counter != found)
        sw_bundle_fail(carriage->bundle, "a %s is referred to %u times, %u of which are known", what, counter, found);
}

/* On the writing side the counters have to be as found, on the reading side they become so. */
static void settle_counters(SwCarriage *carriage)
{
    gboolean out = sw_bundle_is_out(carriage->bundle);

    for (guint i = 0; i < carriage->all[SW_CARRY_NODE]->len; i++) {
        SwNode *node = carriage->all[SW_CARRY_NODE]->pdata[i];
        guint found = g_array_index(carriage->refs[SW_CARRY_NODE], guint, i) + (node == carriage->overlay->root);
        if (out)
            check_count(carriage, "node", node->refs, found);
        else
            node->refs = found;
    }
    for (guint i = 0; i < carriage->all[SW_CARRY_FILE]->len; i++) {
        SwFile *file = carriage->all[SW_CARRY_FILE]->pdata[i];
        guint found = g_array_index(carriage->refs[SW_CARRY_FILE], guint, i);
        if (out)
            check_count(carriage, "file", (guint)g_atomic_int_get(&file->refs), found);
        else
            g_atomic_int_set(&file->refs, (gint)found);
    }
    for (guint i = 0; i < carriage->all[SW_CARRY_STAGE]->len; i++) {
        SwStage *stage = carriage->all[SW_CARRY_STAGE]->pdata[i];
        guint found = g_array_index(carriage->refs[SW_CARRY_STAGE], guint, i);
        if (out)
            check_count(carriage, "stage", (guint)g_atomic_int_get(&stage->refs), found);
        else
            g_atomic_int_set(&stage->refs, (gint)found);
    }
}

/* Something that nothing refers to would never be freed, and a node that the kernel does not know of never used. */
static void check_used(SwCarriage *carriage)
{
    for (guint i = 0; i < carriage->all[SW_CARRY_NODE]->len; i++) {
        const SwNode *node = carriage->all[SW_CARRY_NODE]->pdata[i];
        if (!node->refs && !node->n_lookup)
            sw_bundle_fail(carriage->bundle, "a node is nobody's");
        if (node->backing && !node->backing->handles)
            sw_bundle_fail(carriage->bundle, "a backing is nobody's");
    }
    for (guint i = 0; i < carriage->all[SW_CARRY_FILE]->len; i++)
        if (!((SwFile *)carriage->all[SW_CARRY_FILE]->pdata[i])->refs)
            sw_bundle_fail(carriage->bundle, "a file is nobody's");
    for (guint i = 0; i < carriage->all[SW_CARRY_STAGE]->len; i++)
        if (!((SwStage *)carriage->all[SW_CARRY_STAGE]->pdata[i])->refs)
            sw_bundle_fail(carriage->bundle, "a stage is nobody's");
}

static void carry_all(SwCarriage *carriage)
{
    SwOverlay *ov = carriage->overlay;
    SwBundle *bundle = carriage->bundle;

    sw_bundle_mark(bundle, "overlay");
    SW_BUNDLE(bundle, ov->generation);
    SW_BUNDLE(bundle, ov->network);
    SW_BUNDLE(bundle, ov->clones);
    SW_BUNDLE(bundle, ov->began_us);
    SW_BUNDLE(bundle, ov->stage_seq);
    SW_BUNDLE(bundle, ov->stage_turn);
    SW_BUNDLE(bundle, ov->device);
    if (ov->removals)
        sw_bundle_fail(bundle, "something is being removed");
    sw_content_leases_carry(ov->leases, bundle);
    carry_objects(carriage);
    SW_CARRY(carriage, SW_CARRY_NODE, ov->root, FALSE);
    must_have(carriage, ov->root);
    if (!sw_bundle_is_out(bundle) && !sw_bundle_failed(bundle))
        link_objects(carriage);
    carry_pins(carriage);
    carry_pending(carriage);
    carry_stages(carriage, &ov->lingering);
    carry_dirs(carriage);
    carry_looks(carriage);
    carry_appenders(carriage);
    sw_file_locks_carry(carriage);
    sw_dirs_carry(carriage);
    sw_locks_carry(ov->locks, carriage);
    settle_counters(carriage);
    if (!sw_bundle_is_out(bundle))
        check_used(carriage);
    sw_bundle_mark(bundle, "end of overlay");
}

void sw_overlay_carry(SwOverlay *ov, SwBundle *bundle)
{
    SwCarriage carriage = {.bundle = bundle, .overlay = ov, .places = g_hash_table_new(NULL, NULL)};

    for (SwCarryKind kind = 0; kind < SW_CARRY_N; kind++) {
        carriage.all[kind] = g_ptr_array_new();
        carriage.refs[kind] = g_array_new(FALSE, FALSE, sizeof(guint));
    }
    if (sw_bundle_is_out(bundle))
        collect(&carriage);
    carry_all(&carriage);
    for (SwCarryKind kind = 0; kind < SW_CARRY_N; kind++) {
        g_ptr_array_unref(carriage.all[kind]);
        g_array_unref(carriage.refs[kind]);
    }
    g_hash_table_unref(carriage.places);
}
