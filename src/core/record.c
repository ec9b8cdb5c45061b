/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Formats, all of one text, version 1.
 *
 * Escaping: bytes up to and including space, DEL and '%' are written %XX (two capital hex digits); all others, also
 * those of other alphabets, stand for themselves.  NUL cannot be written.
 *
 * A record is a title line, then `key=value` lines with escaped values in any order, then a line
 * `sum=<16 hex digits>`, the FNV-1a hash of all bytes before it: it tells a torn record from a whole one, and is no
 * protection against forgers, who are met by checking each value.  Unknown keys are passed over; a key that is missing
 * or comes twice spoils the record.
 *
 *   "safewritefs-host 1"      id, boot-id, machine-id, pid, lease-us, version
 *   "safewritefs-salvage 1"   path, reason, host, command, pid, wall-us, size, synced (0 or 1)
 *
 * Targets of symbolic links, which the server writes whole or not at all and which need no sum:
 *
 *   claim   /.safewritefs/hosts/<id>/stage/<worker>/<seq>       worker and seq: 1 to 64 of [0-9A-Za-z-]
 *   lease   <id> <sequence> -                                   nothing being appended
 *   lease   <id> <sequence> append <offset> <length> <inode>[ <path>]
 *   lock    <id> <sequence> <kind> <pid> <process> <inode>[ <path>]
 *
 * Paths are relative to the source, free of empty, "." and ".." components and of reserved names: a parser refuses
 * others, and a formatter leaves them out.
 */

#include "record.h"

#include <errno.h>
#include <string.h>

#define HOST_TITLE "safewritefs-host " G_STRINGIFY(SW_FORMAT_VERSION) "\n"
#define SALVAGE_TITLE "safewritefs-salvage " G_STRINGIFY(SW_FORMAT_VERSION) "\n"
#define SUM_LENGTH (sizeof("sum=0123456789abcdef\n") - 1)
#define EPOCH_DIGITS 16
#define CLAIM_START "/" SW_CONTROL_DIR "/hosts/"
#define CLAIM_STAGE "/stage/"
#define STAGE_PART_MAX 64
#define COMPONENT_MAX 255
/* A symbolic link on XFS, and so behind a server that exports one, holds no more. */
#define LINK_TARGET_MAX 1023
#define HOST_CHARS "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#define HEX_DIGITS "0123456789abcdef"

/* A stretch of somebody else's text. */
typedef struct {
    const char *start;
    gsize length;
} Slice;

/* ---- escaping and values ---- */

static gboolean must_escape(guchar c)
{
    return c <= ' ' || c == '%' || c == 0x7f;
}

static void append_escaped(GString *out, const char *text)
{
    for (; *text; text++)
        if (must_escape((guchar)*text))
            g_string_append_printf(out, "%%%02X", (guchar)*text);
        else
            g_string_append_c(out, *text);
}

/* `ret_text` takes at most slice.length bytes and the NUL. */
static int unescape(Slice slice, char *ret_text)
{
    const char *at = slice.start, *end = slice.start + slice.length;

    while (at < end) {
        int high, low;

        if (*at != '%') {
            if (must_escape((guchar)*at))
                return -EBADMSG;
            *ret_text++ = *at++;
            continue;
        }
        high = end - at >= 3 ? g_ascii_xdigit_value(at[1]) : -1;
        low = high >= 0 ? g_ascii_xdigit_value(at[2]) : -1;
        if (low < 0 || high * 16 + low == 0)
            return -EBADMSG;
        *ret_text++ = (char)(high * 16 + low);
        at += 3;
    }
    *ret_text = '\0';
    return 0;
}

/* Into a buffer of fixed size; what does not fit is malformed, for the formatter had the same bounds. */
static int unescape_into(Slice slice, char *ret_text, gsize size)
{
    g_autofree char *text = g_malloc(slice.length + 1);

    if (unescape(slice, text) < 0 || strlen(text) >= size)
        return -EBADMSG;
    strcpy(ret_text, text);
    return 0;
}

static gboolean to_digits(Slice slice, char ret_digits[24])
{
    if (slice.length == 0 || slice.length >= 24)
        return FALSE;
    memcpy(ret_digits, slice.start, slice.length);
    ret_digits[slice.length] = '\0';
    return TRUE;
}

static int parse_unsigned(Slice slice, guint64 max, guint64 *ret_value)
{
    char digits[24];

    if (!to_digits(slice, digits) || !g_ascii_string_to_unsigned(digits, 10, 0, max, ret_value, NULL))
        return -EBADMSG;
    return 0;
}

static int parse_signed(Slice slice, gint64 min, gint64 max, gint64 *ret_value)
{
    char digits[24];

    if (!to_digits(slice, digits) || !g_ascii_string_to_signed(digits, 10, min, max, ret_value, NULL))
        return -EBADMSG;
    return 0;
}

/* May this path be acted upon below the source? */
static gboolean path_is_sound(const char *path)
{
    for (;; path++) {
        gsize length = strcspn(path, "/");

        if (length == 0 || length > COMPONENT_MAX || sw_name_is_reserved(path))
            return FALSE;
        if (path[0] == '.' && (length == 1 || (length == 2 && path[1] == '.')))
            return FALSE;
        path += length;
        if (!*path)
            return TRUE;
    }
}

static const char *sound_or_empty(const char *path)
{
    return path && path_is_sound(path) ? path : "";
}

/* ---- names ---- */

gboolean sw_name_is_reserved(const char *name)
{
    return g_str_has_prefix(name, SW_RESERVED_PREFIX);
}

void sw_host_id_format(char ret_id[SW_HOST_ID_MAX + 1], const char *hostname, guint64 epoch)
{
    g_autofree char *name = g_strndup(*hostname ? hostname : "host", SW_HOST_ID_MAX - EPOCH_DIGITS - 1);

    g_strcanon(name, HOST_CHARS, '-');
    g_snprintf(ret_id, SW_HOST_ID_MAX + 1, "%s.%016" G_GINT64_MODIFIER "x", name, epoch);
}

gboolean sw_host_id_is_valid(const char *id)
{
    gsize name = strspn(id, HOST_CHARS);

    return name >= 1 && name <= SW_HOST_ID_MAX - EPOCH_DIGITS - 1 && id[name] == '.' &&
           strspn(id + name + 1, HEX_DIGITS) == EPOCH_DIGITS && id[name + 1 + EPOCH_DIGITS] == '\0';
}

/* A valid host id of exactly this stretch. */
static int parse_host_id(Slice slice, char ret_id[SW_HOST_ID_MAX + 1])
{
    char id[SW_HOST_ID_MAX + 1];

    if (slice.length > SW_HOST_ID_MAX)
        return -EBADMSG;
    memcpy(id, slice.start, slice.length);
    id[slice.length] = '\0';
    if (!sw_host_id_is_valid(id))
        return -EBADMSG;
    strcpy(ret_id, id);
    return 0;
}

/* ---- records: title, fields, sum ---- */

static guint64 hash_bytes(const char *text, gsize length)
{
    guint64 hash = G_GUINT64_CONSTANT(0xcbf29ce484222325);

    for (gsize i = 0; i < length; i++)
        hash = (hash ^ (guchar)text[i]) * G_GUINT64_CONSTANT(0x100000001b3);
    return hash;
}

static void add_text(GString *out, const char *key, const char *value)
{
    g_string_append_printf(out, "%s=", key);
    append_escaped(out, value ? value : "");
    g_string_append_c(out, '\n');
}

static void add_number(GString *out, const char *key, gint64 value)
{
    g_string_append_printf(out, "%s=%" G_GINT64_FORMAT "\n", key, value);
}

static char *seal(GString *out)
{
    g_string_append_printf(out, "sum=%016" G_GINT64_MODIFIER "x\n", hash_bytes(out->str, out->len));
    return g_string_free(out, FALSE);
}

/* The lines between title and sum, if both are as they should be. */
static int unseal(const char *text, gsize length, const char *title, Slice *ret_body)
{
    gsize title_length = strlen(title);
    char sum[SUM_LENGTH + 1];

    if (length > SW_RECORD_MAX || length < title_length + SUM_LENGTH || memchr(text, '\0', length))
        return -EBADMSG;
    g_snprintf(sum, sizeof(sum), "sum=%016" G_GINT64_MODIFIER "x\n", hash_bytes(text, length - SUM_LENGTH));
    if (memcmp(text, title, title_length) != 0 || memcmp(text + length - SUM_LENGTH, sum, SUM_LENGTH) != 0 ||
        text[length - SUM_LENGTH - 1] != '\n')
        return -EBADMSG;
    *ret_body = (Slice){text + title_length, length - title_length - SUM_LENGTH};
    return 0;
}

/* The value of the one line that begins with `key`=. */
static int field(Slice body, const char *key, Slice *ret_value)
{
    const char *end = body.start + body.length;
    gsize key_length = strlen(key);
    guint found = 0;

    for (const char *line = body.start; line < end;) {
        const char *stop = memchr(line, '\n', end - line);
        gsize length = stop - line; /* `unseal` has made sure that the last line ends */

        if (length > key_length && line[key_length] == '=' && memcmp(line, key, key_length) == 0) {
            *ret_value = (Slice){line + key_length + 1, length - key_length - 1};
            found++;
        }
        line = stop + 1;
    }
    return found == 1 ? 0 : -EBADMSG;
}

static int field_signed(Slice body, const char *key, gint64 min, gint64 max, gint64 *ret_value)
{
    Slice value;
    int r = field(body, key, &value);

    return r < 0 ? r : parse_signed(value, min, max, ret_value);
}

static int field_unsigned(Slice body, const char *key, guint64 max, guint64 *ret_value)
{
    Slice value;
    int r = field(body, key, &value);

    return r < 0 ? r : parse_unsigned(value, max, ret_value);
}

static int field_into(Slice body, const char *key, char *ret_text, gsize size)
{
    Slice value;
    int r = field(body, key, &value);

    return r < 0 ? r : unescape_into(value, ret_text, size);
}

/* A string of its own (g_free). */
static int field_string(Slice body, const char *key, char **ret_text)
{
    g_autofree char *text = NULL;
    Slice value;
    int r = field(body, key, &value);

    if (r < 0)
        return r;
    text = g_malloc(value.length + 1);
    r = unescape(value, text);
    if (r < 0)
        return r;
    *ret_text = g_steal_pointer(&text);
    return 0;
}

/* ---- hosts/<id>/record ---- */

char *sw_host_record_format(const SwHostRecord *record)
{
    GString *out = g_string_new(HOST_TITLE);

    add_text(out, "id", record->id);
    add_text(out, "boot-id", record->boot_id);
    add_text(out, "machine-id", record->machine_id);
    add_number(out, "pid", record->pid);
    add_number(out, "lease-us", record->lease_us);
    add_text(out, "version", record->version);
    return seal(out);
}

static gboolean only_of(const char *text, const char *accept)
{
    return text[strspn(text, accept)] == '\0';
}

int sw_host_record_parse(const char *text, gsize length, SwHostRecord *ret_record)
{
    SwHostRecord record = {0};
    Slice body, id;

    if (unseal(text, length, HOST_TITLE, &body) < 0 || field(body, "id", &id) < 0 || parse_host_id(id, record.id) < 0 ||
        field_into(body, "boot-id", record.boot_id, sizeof(record.boot_id)) < 0 ||
        field_into(body, "machine-id", record.machine_id, sizeof(record.machine_id)) < 0 ||
        field_signed(body, "pid", 0, G_MAXINT32, &record.pid) < 0 ||
        field_signed(body, "lease-us", 1, G_MAXINT64 / 16, &record.lease_us) < 0 ||
        field_into(body, "version", record.version, sizeof(record.version)) < 0)
        return -EBADMSG;
    if (!only_of(record.boot_id, HEX_DIGITS "-") || !only_of(record.machine_id, HEX_DIGITS))
        return -EBADMSG;
    *ret_record = record;
    return 0;
}

/* ---- claims ---- */

char *sw_claim_format(const char *host_id, const char *stage)
{
    return g_strconcat(CLAIM_START, host_id, CLAIM_STAGE, stage, NULL);
}

/* Steps over one part of a stage's name; NULL if there is none. */
static const char *skip_stage_part(const char *at)
{
    gsize length = strspn(at, HOST_CHARS);

    return length >= 1 && length <= STAGE_PART_MAX ? at + length : NULL;
}

gboolean sw_claim_parse(const char *target, char ret_host_id[SW_HOST_ID_MAX + 1])
{
    const char *id, *at;
    gsize id_length;

    if (!g_str_has_prefix(target, CLAIM_START))
        return FALSE;
    id = target + strlen(CLAIM_START);
    id_length = strcspn(id, "/");
    at = id + id_length;
    if (!g_str_has_prefix(at, CLAIM_STAGE))
        return FALSE;
    at = skip_stage_part(at + strlen(CLAIM_STAGE));
    if (!at || *at != '/')
        return FALSE;
    at = skip_stage_part(at + 1);
    return at && *at == '\0' && parse_host_id((Slice){id, id_length}, ret_host_id) == 0;
}

/* ---- leases/<key> ---- */

/* Ends a link's text with a path where that fits: it is a help, and numbers before it say what is meant. */
static char *end_with_path(GString *out, const char *path)
{
    gsize length = out->len;

    path = sound_or_empty(path);
    if (*path) {
        g_string_append_c(out, ' ');
        append_escaped(out, path);
    }
    if (out->len > LINK_TARGET_MAX)
        g_string_truncate(out, length);
    return g_string_free(out, FALSE);
}

char *sw_lease_text_format(const SwLeaseText *lease)
{
    GString *out = g_string_new(NULL);

    g_string_append_printf(out, "%s %" G_GUINT64_FORMAT, lease->host_id, lease->sequence);
    if (!lease->appending) {
        g_string_append(out, " -");
        return g_string_free(out, FALSE);
    }
    g_string_append_printf(out, " append %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT,
                           lease->append_offset, lease->append_length, lease->file_ino);
    return end_with_path(out, lease->path);
}

/* Cuts the next word off *text: words are parted by exactly one space, and the last one leaves *text NULL. */
static Slice next_word(const char **text)
{
    Slice word = {*text ? *text : "", 0};

    word.length = strcspn(word.start, " ");
    *text = word.start[word.length] ? word.start + word.length + 1 : NULL;
    return word;
}

static gboolean word_is(Slice word, const char *text)
{
    return word.length == strlen(text) && memcmp(word.start, text, word.length) == 0;
}

/* The rest of a link's text: nothing, or one path. */
static int parse_last_path(const char *text, char *ret_path, gsize size)
{
    if (!text)
        return 0;
    return unescape_into(next_word(&text), ret_path, size) < 0 || text || !path_is_sound(ret_path) ? -EBADMSG : 0;
}

/* What follows "append". */
static int parse_intent(const char *text, SwLeaseText *lease)
{
    lease->appending = TRUE;
    if (parse_unsigned(next_word(&text), G_MAXINT64, &lease->append_offset) < 0 ||
        parse_unsigned(next_word(&text), G_MAXINT64 - lease->append_offset, &lease->append_length) < 0 ||
        parse_unsigned(next_word(&text), G_MAXUINT64, &lease->file_ino) < 0)
        return -EBADMSG;
    return parse_last_path(text, lease->path, sizeof(lease->path));
}

int sw_lease_text_parse(const char *text, SwLeaseText *ret_lease)
{
    SwLeaseText lease = {0};
    Slice intent;

    if (strnlen(text, LINK_TARGET_MAX + 1) > LINK_TARGET_MAX)
        return -EBADMSG;
    if (parse_host_id(next_word(&text), lease.host_id) < 0 ||
        parse_unsigned(next_word(&text), G_MAXUINT64, &lease.sequence) < 0)
        return -EBADMSG;
    intent = next_word(&text);
    if (word_is(intent, "append")) {
        if (parse_intent(text, &lease) < 0)
            return -EBADMSG;
    } else if (!word_is(intent, "-") || text) {
        return -EBADMSG;
    }
    *ret_lease = lease;
    return 0;
}

/* ---- locks/<key> ---- */

static const char *const lock_kinds[] = {"file", "symlink", "link", "dir"};

char *sw_lock_text_format(const SwLockText *lock)
{
    GString *out = g_string_new(NULL);

    g_string_append_printf(out, "%s %" G_GUINT64_FORMAT " %s ", lock->host_id, lock->sequence, lock_kinds[lock->kind]);
    g_string_append_printf(out, "%" G_GINT64_FORMAT " %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT,
                           CLAMP(lock->pid, 0, G_MAXINT32), lock->process, lock->dir_ino);
    return end_with_path(out, lock->path);
}

static int parse_lock_kind(Slice word, SwLockKind *ret_kind)
{
    for (guint i = 0; i < G_N_ELEMENTS(lock_kinds); i++)
        if (word_is(word, lock_kinds[i])) {
            *ret_kind = (SwLockKind)i;
            return 0;
        }
    return -EBADMSG;
}

int sw_lock_text_parse(const char *text, SwLockText *ret_lock)
{
    SwLockText lock = {0};
    guint64 pid;

    if (strnlen(text, LINK_TARGET_MAX + 1) > LINK_TARGET_MAX)
        return -EBADMSG;
    if (parse_host_id(next_word(&text), lock.host_id) < 0 ||
        parse_unsigned(next_word(&text), G_MAXUINT64, &lock.sequence) < 0 ||
        parse_lock_kind(next_word(&text), &lock.kind) < 0 || parse_unsigned(next_word(&text), G_MAXINT32, &pid) < 0 ||
        parse_unsigned(next_word(&text), G_MAXUINT64, &lock.process) < 0 ||
        parse_unsigned(next_word(&text), G_MAXUINT64, &lock.dir_ino) < 0)
        return -EBADMSG;
    lock.pid = (gint64)pid;
    if (parse_last_path(text, lock.path, sizeof(lock.path)) < 0)
        return -EBADMSG;
    *ret_lock = lock;
    return 0;
}

guint64 sw_lock_key(guint64 dir_ino, const char *name)
{
    g_autofree char *text = g_strdup_printf("%" G_GUINT64_FORMAT "/%s", dir_ino, name);

    return hash_bytes(text, strlen(text));
}

/* ---- salvage/<entry>.info ---- */

void sw_salvage_info_clear(SwSalvageInfo *info)
{
    g_free(info->path);
    g_free(info->reason);
    g_free(info->host_id);
    g_free(info->command);
    *info = (SwSalvageInfo){0};
}

static gboolean is_word(const char *text)
{
    gsize length = strspn(text, "abcdefghijklmnopqrstuvwxyz");

    return length >= 1 && length <= 32 && text[length] == '\0';
}

static char *salvage_format_with(const SwSalvageInfo *info, const char *path)
{
    GString *out = g_string_new(SALVAGE_TITLE);
    g_autofree char *command = g_strndup(info->command ? info->command : "", 64);

    add_text(out, "path", path);
    add_text(out, "reason", info->reason && is_word(info->reason) ? info->reason : "unknown");
    add_text(out, "host", info->host_id && sw_host_id_is_valid(info->host_id) ? info->host_id : "");
    add_text(out, "command", command);
    add_number(out, "pid", CLAMP(info->pid, 0, G_MAXINT32));
    add_number(out, "wall-us", info->wall_us);
    g_string_append_printf(out, "size=%" G_GUINT64_FORMAT "\n", info->size);
    add_number(out, "synced", info->synced ? 1 : 0);
    return seal(out);
}

char *sw_salvage_info_format(const SwSalvageInfo *info)
{
    const char *path = sound_or_empty(info->path);
    char *text = salvage_format_with(info, path);

    /* A path too long for a record: the last component still tells people what it is, below a directory "..." that
     * cannot be mistaken for the real one. */
    if (strlen(text) > SW_RECORD_MAX) {
        g_autofree char *shorter = g_strconcat("...", strrchr(path, '/'), NULL);

        g_free(text);
        text = salvage_format_with(info, shorter);
    }
    return text;
}

static gboolean salvage_is_sound(const SwSalvageInfo *info)
{
    return (!*info->path || path_is_sound(info->path)) && is_word(info->reason) &&
           (!*info->host_id || sw_host_id_is_valid(info->host_id));
}

int sw_salvage_info_parse(const char *text, gsize length, SwSalvageInfo *ret_info)
{
    SwSalvageInfo info = {0};
    guint64 synced;
    Slice body;

    if (unseal(text, length, SALVAGE_TITLE, &body) < 0)
        return -EBADMSG;
    if (field_string(body, "path", &info.path) < 0 || field_string(body, "reason", &info.reason) < 0 ||
        field_string(body, "host", &info.host_id) < 0 || field_string(body, "command", &info.command) < 0 ||
        field_signed(body, "pid", 0, G_MAXINT32, &info.pid) < 0 ||
        field_signed(body, "wall-us", G_MININT64, G_MAXINT64, &info.wall_us) < 0 ||
        field_unsigned(body, "size", G_MAXUINT64, &info.size) < 0 || field_unsigned(body, "synced", 1, &synced) < 0 ||
        !salvage_is_sound(&info)) {
        sw_salvage_info_clear(&info);
        return -EBADMSG;
    }
    info.synced = synced == 1;
    *ret_info = info;
    return 0;
}
