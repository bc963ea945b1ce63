// A shim (LD_PRELOAD) that lets calls that change files fail, or the process die at them.
//
// FAULTS_CONTROL names a file that all processes map: `struct control`, which faults.py writes. Only
// paths that match are looked at; with a trace file each of them is noted.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct control {
    long seen;         // calls that matched, of all processes
    long first;        // which of them fails
    long more;         // how many calls fail with it, whatever they are
    long kind;         // an errno, SHORT, KILL_BEFORE, KILL_AFTER
    char role[32];     // "" for any
    char call[32];     // "" for any
    char under[1024];  // the folder
    char path[1024];   // a pattern for fnmatch, "" for any
    char trace[1024];  // "" for none
};

enum { SHORT = 1001, KILL_BEFORE = 1002, KILL_AFTER = 1003 };

static struct control *control(void) {
    static struct control *mapped;
    if (mapped) return mapped;
    const char *name = getenv("FAULTS_CONTROL");
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    int file = name ? real(name, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return NULL;
    void *found = mmap(NULL, sizeof *mapped, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    return found == MAP_FAILED ? NULL : (mapped = found);
}

static const char *role(void) {
    static __thread char line[4096];
    if (getenv("FAULTS_ROLE")) return getenv("FAULTS_ROLE");
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    int file = real("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? 0 : read(file, line, sizeof line - 1);
    if (file >= 0) close(file);
    for (ssize_t n = 0; n < length; n++) if (!line[n]) line[n] = ' ';
    line[length > 0 ? length : 0] = 0;
    if (strstr(line, "processguard")) return "guard";
    if (strstr(line, "ray::") || strstr(line, "default_worker.py")) return "worker";
    return "child";
}

// The absolute path of a name, or of an open file where there is no name.
static int locate(int folder, const char *name, char *path) {
    char link[64];
    ssize_t length = 0;
    if (name && name[0] == '/') return snprintf(path, PATH_MAX, "%s", name) < PATH_MAX;
    if (name && folder == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0 || path[0] != '/') return 0;
    path[length] = 0;
    if (name) snprintf(path + length, PATH_MAX - length, "/%s", name);
    return 1;
}

// What is to happen to a call: 0, an errno, or one of the kinds above.
static long judge(const char *call, int folder, const char *name) {
    char path[PATH_MAX];
    int before = errno;
    struct control *now = control();
    size_t length = now ? strlen(now->under) : 0;
    if (!length || !locate(folder, name, path) || strncmp(path, now->under, length)) goto well;
    if (now->seen >= now->first && now->first && now->more > 0)
        if (__sync_fetch_and_sub(&now->more, 1) > 0) return errno = before, now->kind;
    if (now->call[0] && strcmp(now->call, call)) goto well;
    if (now->path[0] && fnmatch(now->path, path + length, 0)) goto well;
    const char *own = role();
    if (now->role[0] && strcmp(now->role, own)) goto well;
    long number = __sync_add_and_fetch(&now->seen, 1);
    if (now->trace[0]) {
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
        ssize_t (*put)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
        int file = real(now->trace, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        char line[PATH_MAX + 64];
        int size = snprintf(line, sizeof line, "%s\t%s\t%s\n", own, call, path + length);
        if (file >= 0 && put(file, line, size) == size) close(file);
    }
    errno = before;
    if (number != now->first) return 0;
    if (now->kind == KILL_BEFORE) kill(getpid(), SIGKILL);
    return now->kind;
well:
    errno = before;
    return 0;
}

static void after(long kind) {
    if (kind == KILL_AFTER) kill(getpid(), SIGKILL);
}

#define FAILS(kind) ((kind) && (kind) < SHORT)
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define WRAP(result, name, parameters, arguments, call, folder, path)          \
    result name parameters {                                                   \
        static result(*real) parameters;                                       \
        if (!real) real = REAL(name);                                          \
        long kind = judge(call, folder, path);                                 \
        if (FAILS(kind)) return errno = kind, -1;                              \
        result found = real arguments;                                         \
        after(kind);                                                           \
        return found;                                                          \
    }

#define WRAP_WRITE(name, parameters, arguments)                                \
    ssize_t name parameters {                                                  \
        static ssize_t(*real) parameters;                                      \
        if (!real) real = REAL(name);                                          \
        long kind = judge("write", file, NULL);                                \
        if (FAILS(kind)) return errno = kind, -1;                              \
        if (kind == SHORT && count > 1) count /= 2;                            \
        ssize_t found = real arguments;                                        \
        after(kind);                                                           \
        return found;                                                          \
    }

WRAP_WRITE(write, (int file, const void *data, size_t count), (file, data, count))
WRAP_WRITE(pwrite, (int file, const void *data, size_t count, off_t at), (file, data, count, at))
WRAP_WRITE(pwrite64, (int file, const void *data, size_t count, off64_t at), (file, data, count, at))
WRAP_WRITE(writev, (int file, const struct iovec *data, int count), (file, data, count))
WRAP(int, rename, (const char *old, const char *new), (old, new), "rename", AT_FDCWD, new)
WRAP(int, renameat, (int o, const char *old, int n, const char *new), (o, old, n, new), "rename", n, new)
WRAP(int, link, (const char *old, const char *new), (old, new), "link", AT_FDCWD, new)
WRAP(int, linkat, (int o, const char *old, int n, const char *new, int flags),
     (o, old, n, new, flags), "link", n, new)
WRAP(int, fsync, (int file), (file), "fsync", file, NULL)
WRAP(int, fdatasync, (int file), (file), "fsync", file, NULL)
WRAP(int, unlink, (const char *path), (path), "unlink", AT_FDCWD, path)
WRAP(int, unlinkat, (int folder, const char *path, int flags), (folder, path, flags), "unlink", folder, path)
WRAP(int, rmdir, (const char *path), (path), "unlink", AT_FDCWD, path)
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode), "mkdir", AT_FDCWD, path)
WRAP(int, mkdirat, (int folder, const char *path, mode_t mode), (folder, path, mode), "mkdir", folder, path)
WRAP(int, ftruncate, (int file, off_t length), (file, length), "truncate", file, NULL)
WRAP(int, ftruncate64, (int file, off64_t length), (file, length), "truncate", file, NULL)

// Opening counts where it may create the file.
#define WRAP_OPEN(name, parameters, arguments, folder)                         \
    int name parameters {                                                      \
        static int(*real) parameters;                                          \
        if (!real) real = REAL(name);                                          \
        mode_t mode = 0;                                                       \
        if (flags & (O_CREAT | O_TMPFILE)) {                                   \
            va_list rest;                                                      \
            va_start(rest, flags);                                             \
            mode = va_arg(rest, mode_t);                                       \
            va_end(rest);                                                      \
        }                                                                      \
        long kind = flags & O_CREAT ? judge("open", folder, path) : 0;         \
        if (FAILS(kind)) return errno = kind, -1;                              \
        int found = real arguments;                                            \
        after(kind);                                                           \
        return found;                                                          \
    }

WRAP_OPEN(open, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD)
WRAP_OPEN(open64, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD)
WRAP_OPEN(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, mode), folder)
WRAP_OPEN(openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, mode), folder)
