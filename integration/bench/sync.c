/* The limit of durable writes: N threads, each file unnamed, written, synced, linked, and its directory synced.
 *
 *   sync directory=DIR size=N threads=N seconds=S warm=W window=W body=FILE [keep=1]
 *
 * What a put promises once it has a receipt, without a network. The file *window* behind is removed, as load.c does.
 */
#include "sample.h"
#include <pthread.h>
#include <stdbool.h>

static char *body;
static size_t size;
static int directory;
static long next_number, window, warm;
static double seconds;
static bool stopping;
static struct sample sample;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void store(long number) {
    char name[32], from[64];
    int fd = openat(directory, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0440);
    if (fd < 0) die("O_TMPFILE");
    for (size_t at = 0; at < size;) {
        ssize_t written = write(fd, body + at, size - at);
        if (written < 0) die("write");
        at += written;
    }
    snprintf(name, sizeof name, "%08ld", number);
    snprintf(from, sizeof from, "/proc/self/fd/%d", fd);
    if (fdatasync(fd)) die("fdatasync");
    if (linkat(AT_FDCWD, from, directory, name, AT_SYMLINK_FOLLOW)) die("linkat");
    if (fsync(directory)) die("fsync");
    close(fd);
}

static void *work(void *unused) {
    for (;;) {
        pthread_mutex_lock(&lock);
        bool done = stopping;
        long number = next_number++;
        pthread_mutex_unlock(&lock);
        if (done) return unused;
        if (window && number >= window) remove_file(directory, number - window);
        double since = seconds_now();
        store(number);
        pthread_mutex_lock(&lock);
        if (!stopping) sample_add(&sample, since, warm);
        if (!stopping && sample.began && seconds_now() - sample.began >= seconds) {
            stopping = true;
            sample_close(&sample);
        }
        pthread_mutex_unlock(&lock);
    }
}

int main(int argc, char **argv) {
    pthread_t threads[64];
    char own[32];
    size = strtoul(setting(argc, argv, "size", NULL), NULL, 10);
    int number = atoi(setting(argc, argv, "threads", "1"));
    seconds = atof(setting(argc, argv, "seconds", "1"));
    warm = atol(setting(argc, argv, "warm", "0"));
    window = atol(setting(argc, argv, "window", "0"));
    bool keep = atoi(setting(argc, argv, "keep", "0"));
    body = map_body(setting(argc, argv, "body", NULL), size);
    directory = open_directory(setting(argc, argv, "directory", NULL));
    snprintf(own, sizeof own, "%d", getpid()); /* here the writer is the server */
    sample_open(&sample, own);
    if (number < 1 || number > 64) return 2;
    for (int i = 0; i < number; i++)
        if (pthread_create(&threads[i], NULL, work, NULL)) die("pthread_create");
    for (int i = 0; i < number; i++) pthread_join(threads[i], NULL);
    for (long left = 0; !keep && left < next_number; left++) remove_file(directory, left); /* also those that came late */
    sample_print(&sample, size);
    return 0;
}
