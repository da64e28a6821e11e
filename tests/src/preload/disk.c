/* Loaded before the C library by tests: a bad disk below the files whose paths begin with NAQ_TEST_DISK_OF.
 *
 * NAQ_TEST_DISK: a folder that keeps what a power cut would leave of them: each as it was when it was last synced, and
 * nothing that was only written.
 * NAQ_TEST_DISK_FAULT: a file that says what is wrong at this moment: nothing; `slow MS`: each sync takes so many
 * milliseconds longer; `full`: no file can grow.
 * NAQ_TEST_DISK_KILL_AT: the process is killed instead of its so-manieth change or sync of these files. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int is_ours(const char *path) {
    const char *of = getenv("NAQ_TEST_DISK_OF");
    return of && strncmp(path, of, strlen(of)) == 0;
}

/* The path of a descriptor, if it is of one of the files. */
static int path_of(int fd, char path[4096]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, 4095);
    if (length < 0) return 0;
    path[length] = 0;
    return is_ours(path);
}

/* The process is about to change or to sync one of the files. */
static void step(void) {
    static atomic_long steps;
    const char *last = getenv("NAQ_TEST_DISK_KILL_AT");
    if (last && atomic_fetch_add(&steps, 1) + 1 == atol(last)) kill(getpid(), SIGKILL);
}

/* What is wrong at this moment, and its number. */
static int fault(char kind[16], long *number) {
    const char *path = getenv("NAQ_TEST_DISK_FAULT");
    FILE *file = path ? fopen(path, "re") : NULL;
    kind[0] = 0;
    *number = 0;
    if (file) {
        if (fscanf(file, "%15s %ld", kind, number) < 1) kind[0] = 0;
        fclose(file);
    }
    return kind[0] != 0;
}

/* Before a write up to `end`: whether there is no room for it. */
static int has_no_room(int fd, off_t end) {
    char path[4096], kind[16];
    long number;
    struct stat now;
    int why = errno;
    if (!path_of(fd, path)) {
        errno = why;
        return 0;
    }
    step();
    if (fault(kind, &number) && strcmp(kind, "full") == 0 && fstat(fd, &now) == 0 && end > now.st_size) {
        errno = ENOSPC;
        return 1;
    }
    errno = why;
    return 0;
}

static void copy(int from, const char *disk, const char *name) {
    char new[4096], old[4096], buffer[1 << 16];
    snprintf(new, sizeof new, "%s/%s.new", disk, name);
    snprintf(old, sizeof old, "%s/%s", disk, name);
    int to = open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (to < 0) abort();
    /* Of the same descriptor, because closing another one would release the locks that SQLite has on the file. */
    for (off_t at = 0;;) {
        ssize_t got = pread(from, buffer, sizeof buffer, at);
        if (got < 0) abort();
        if (got == 0) break;
        if (REAL(write)(to, buffer, got) != got) abort();
        at += got;
    }
    close(to);
    if (rename(new, old) != 0) abort();
}

static int synced(int fd, int (*real)(int)) {
    char path[4096], kind[16];
    long number;
    if (!path_of(fd, path)) return real(fd);
    step();
    if (fault(kind, &number) && strcmp(kind, "slow") == 0) usleep(number * 1000);
    const char *disk = getenv("NAQ_TEST_DISK");
    if (!disk) return real(fd);
    /* One after the other, in all processes: an older copy must not replace a newer one. */
    char lock[4096];
    snprintf(lock, sizeof lock, "%s/lock", disk);
    int guard = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (guard < 0 || flock(guard, LOCK_EX) != 0) abort();
    int answer = real(fd);
    if (answer == 0) copy(fd, disk, strrchr(path, '/') + 1);
    int why = errno;
    close(guard);
    errno = why;
    return answer;
}

int fsync(int fd) {
    return synced(fd, REAL(fsync));
}

int fdatasync(int fd) {
    return synced(fd, REAL(fdatasync));
}

ssize_t write(int fd, const void *bytes, size_t count) {
    /* Sockets and pipes have no place. */
    off_t at = lseek(fd, 0, SEEK_CUR);
    if (at >= 0 && has_no_room(fd, at + (off_t)count)) return -1;
    return REAL(write)(fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    return has_no_room(fd, at + (off_t)count) ? -1 : REAL(pwrite)(fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    return has_no_room(fd, at + (off_t)count) ? -1 : REAL(pwrite64)(fd, bytes, count, at);
}

int ftruncate(int fd, off_t length) {
    return has_no_room(fd, length) ? -1 : REAL(ftruncate)(fd, length);
}

int ftruncate64(int fd, off64_t length) {
    return has_no_room(fd, length) ? -1 : REAL(ftruncate64)(fd, length);
}

int fallocate(int fd, int mode, off_t at, off_t length) {
    return has_no_room(fd, at + length) ? -1 : REAL(fallocate)(fd, mode, at, length);
}

int unlink(const char *path) {
    if (is_ours(path)) step();
    int answer = REAL(unlink)(path);
    const char *disk = getenv("NAQ_TEST_DISK");
    /* Whoever removes a file syncs its folder. */
    if (answer == 0 && disk && is_ours(path)) {
        char kept[4096];
        snprintf(kept, sizeof kept, "%s/%s", disk, strrchr(path, '/') + 1);
        REAL(unlink)(kept);
        errno = 0;
    }
    return answer;
}
