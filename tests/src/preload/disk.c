/* Loaded before the C library by tests: keeps in the folder NAQ_TEST_DISK what a power cut would leave of the files whose
 * paths begin with NAQ_TEST_DISK_OF: each as it was when it was last synced, and nothing that was only written. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

typedef int (*sync_call)(int);

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
        if (write(to, buffer, got) != got) abort();
        at += got;
    }
    close(to);
    if (rename(new, old) != 0) abort();
}

static int synced(int fd, sync_call real) {
    const char *disk = getenv("NAQ_TEST_DISK"), *of = getenv("NAQ_TEST_DISK_OF");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (!disk || !of || length < 0) return real(fd);
    path[length] = 0;
    if (strncmp(path, of, strlen(of)) != 0) return real(fd);
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
    return synced(fd, (sync_call)dlsym(RTLD_NEXT, "fsync"));
}

int fdatasync(int fd) {
    return synced(fd, (sync_call)dlsym(RTLD_NEXT, "fdatasync"));
}

/* Whoever removes a file syncs its folder. */
int unlink(const char *path) {
    int (*real)(const char *) = (int (*)(const char *))dlsym(RTLD_NEXT, "unlink");
    const char *disk = getenv("NAQ_TEST_DISK"), *of = getenv("NAQ_TEST_DISK_OF");
    int answer = real(path);
    if (answer == 0 && disk && of && strncmp(path, of, strlen(of)) == 0) {
        char kept[4096];
        snprintf(kept, sizeof kept, "%s/%s", disk, strrchr(path, '/') + 1);
        real(kept);
        errno = 0;
    }
    return answer;
}
