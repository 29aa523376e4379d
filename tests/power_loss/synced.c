/*
  What a process has made durable, for tests that cut the power of it.

  Preloaded (LD_PRELOAD) into every process of a node. Each fsync and fdatasync takes SYNCED_DELAY_US
  microseconds, or for ever while `stalled` is among its notes, and does nothing else: the disk is a
  pretended one. After it, the size that the file had when the call began is noted. Renames and
  removals are noted when they are done, and what they take away is kept under a second name in
  notes, so that it can be put back. Only what lies in the node's directory is noted.

  The node's directory is SYNCED_ROOT/NODE_ID, and its notes are in SYNCED_NOTES/NODE_ID. There is
  the journal, a line each, tabs between the fields:
    sync    INODE  SIZE   LENGTH   of the journal when the call began
    rename  FROM   TO     KEPT     "-": there was nothing under the name before
    unlink  PATH   KEPT
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_int names_given;

static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

static int is_of_node(const char *path) {
    char directory[PATH_MAX];
    snprintf(directory, sizeof directory, "%s/%s/", setting("SYNCED_ROOT"), setting("NODE_ID"));
    return strncmp(path, directory, strlen(directory)) == 0;
}

/* Paths are written down for another process, which works in another directory. */
static void absolute(const char *path, char *out, size_t size) {
    char here[PATH_MAX];
    if (path[0] == '/' || !getcwd(here, sizeof here)) {
        snprintf(out, size, "%s", path);
    } else {
        snprintf(out, size, "%s/%s", here, path);
    }
}

static void in_notes(const char *name, char *out, size_t size) {
    snprintf(out, size, "%s/%s/%s", setting("SYNCED_NOTES"), setting("NODE_ID"), name);
}

static void note(const char *line) {
    char path[PATH_MAX];
    in_notes("journal", path, sizeof path);
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, line, strlen(line)) != (ssize_t)strlen(line)) {
        abort(); /* a test that does not know what was synced would pass for nothing */
    }
    close(fd);
}

static long long journal_length(void) {
    char path[PATH_MAX];
    struct stat journal;
    in_notes("journal", path, sizeof path);
    return stat(path, &journal) == 0 ? (long long)journal.st_size : 0;
}

static int sync_it(int fd) {
    char link[64], path[PATH_MAX], stalled[PATH_MAX], line[128];
    struct stat file;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 2);
    if (length < 0 || fstat(fd, &file) < 0) {
        return -1; /* errno says that it is no open file */
    }
    path[length] = 0;
    long long journal = journal_length();
    usleep((useconds_t)atoi(setting("SYNCED_DELAY_US")));
    in_notes("stalled", stalled, sizeof stalled);
    while (access(stalled, F_OK) == 0) {
        usleep(2000);
    }
    strcat(path, "/"); /* so that the directory itself is in it, too */
    if (is_of_node(path)) {
        snprintf(line, sizeof line, "sync\t%llu\t%lld\t%lld\n", (unsigned long long)file.st_ino,
                 (long long)file.st_size, journal);
        note(line);
    }
    return 0;
}

int fsync(int fd) { return sync_it(fd); }

int fdatasync(int fd) { return sync_it(fd); }

/* The file at `path` has a second name, `kept`, or that is "-" where there is no such file. */
static void keep(const char *path, char *kept, size_t size) {
    char name[64];
    snprintf(name, sizeof name, "kept-%d-%d", getpid(), atomic_fetch_add(&names_given, 1));
    in_notes(name, kept, size);
    if (link(path, kept) < 0) {
        snprintf(kept, size, "-");
    }
}

int rename(const char *from, const char *to) {
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "rename");
    char source[PATH_MAX], target[PATH_MAX], kept[PATH_MAX] = "-", line[3 * PATH_MAX + 16];
    absolute(from, source, sizeof source);
    absolute(to, target, sizeof target);
    if (!is_of_node(target)) {
        return real(from, to);
    }
    keep(target, kept, sizeof kept);
    int result = real(from, to);
    if (result == 0) {
        snprintf(line, sizeof line, "rename\t%s\t%s\t%s\n", source, target, kept);
        note(line);
    }
    return result;
}

int unlink(const char *name) {
    int (*real)(const char *) = dlsym(RTLD_NEXT, "unlink");
    char path[PATH_MAX], kept[PATH_MAX] = "-", line[2 * PATH_MAX + 16];
    absolute(name, path, sizeof path);
    if (!is_of_node(path)) {
        return real(name);
    }
    keep(path, kept, sizeof kept);
    int result = real(name);
    if (result == 0 && strcmp(kept, "-") != 0) {
        snprintf(line, sizeof line, "unlink\t%s\t%s\n", path, kept);
        note(line);
    }
    return result;
}
