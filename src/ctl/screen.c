/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "screen.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

/* The other screen, without a cursor; and back. */
#define ENTER "\033[?1049h\033[?25l\033[2J"
#define LEAVE "\033[?25h\033[?1049l"

static struct termios before;
static int error_before = -1;
static volatile sig_atomic_t ended;

static void write_all(const char *text, gsize size)
{
    while (size > 0) {
        ssize_t put = write(STDOUT_FILENO, text, size);

        if (put < 0 && errno != EINTR)
            return;
        text += MAX(put, 0);
        size -= (gsize)MAX(put, 0);
    }
}

static void end(int signal)
{
    (void)signal;
    ended = TRUE;
}

static void resized(int signal)
{
    (void)signal;
}

/* Without SA_RESTART: they are to end a wait. */
static void take_signals(void)
{
    const struct sigaction ends = {.sa_handler = end}, resizes = {.sa_handler = resized};

    (void)sigaction(SIGINT, &ends, NULL);
    (void)sigaction(SIGTERM, &ends, NULL);
    (void)sigaction(SIGHUP, &ends, NULL);
    (void)sigaction(SIGWINCH, &resizes, NULL);
    (void)sigaction(SIGCONT, &resizes, NULL);
}

/* What is said meanwhile would stand anywhere on the screen. */
static void silence(void)
{
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

    error_before = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (null >= 0)
        (void)dup2(null, STDERR_FILENO);
    if (null >= 0)
        (void)close(null);
}

gboolean sw_screen_begin(void)
{
    struct termios raw;

    if (!isatty(STDOUT_FILENO) || tcgetattr(STDIN_FILENO, &before) < 0)
        return FALSE;
    take_signals();
    raw = before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VSUSP] = _POSIX_VDISABLE; /* who stops it here would be left with our screen */
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    write_all(ENTER, strlen(ENTER));
    silence();
    return TRUE;
}

void sw_screen_end(void)
{
    write_all(LEAVE, strlen(LEAVE));
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &before);
    if (error_before >= 0)
        (void)dup2(error_before, STDERR_FILENO);
}

void sw_screen_size(guint *ret_columns, guint *ret_rows)
{
    struct winsize size = {0};

    (void)ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
    *ret_columns = size.ws_col ? size.ws_col : 80;
    *ret_rows = size.ws_row ? size.ws_row : 24;
}

/* As much of a line as fits: wide characters take two columns, combining ones none. */
static void add_line(GString *out, const char *line, guint columns)
{
    guint used = 0;

    for (const char *at = line; *at; at = g_utf8_next_char(at)) {
        gunichar c = g_utf8_get_char(at);

        used += g_unichar_iswide(c) ? 2 : g_unichar_iszerowidth(c) ? 0 : 1;
        if (used > columns)
            break;
        g_string_append_unichar(out, c);
    }
}

void sw_screen_show(GPtrArray *lines)
{
    g_autoptr(GString) out = g_string_new("\033[H");
    guint columns, rows;

    sw_screen_size(&columns, &rows);
    for (guint i = 0; i < lines->len && i < rows; i++) {
        if (i > 0)
            g_string_append(out, "\r\n");
        if (i == 0)
            g_string_append(out, "\033[7m");
        add_line(out, lines->pdata[i], columns);
        g_string_append(out, i == 0 ? "\033[K\033[0m" : "\033[K");
    }
    g_string_append(out, "\033[J");
    write_all(out->str, out->len);
}

int sw_screen_key(int ms)
{
    struct pollfd ready = {.fd = STDIN_FILENO, .events = POLLIN};
    char key;
    int r = ended ? -1 : poll(&ready, 1, ms);

    if (ended || (r > 0 && read(STDIN_FILENO, &key, 1) != 1))
        return -1;
    return r > 0 ? key : 0;
}
