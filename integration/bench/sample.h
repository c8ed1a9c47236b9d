/* What both C programs of the benchmark share: settings as key=value, the clock, and one sample told as a line of JSON. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PIDS_MAX 32
#define LATENCIES_MAX (1 << 22) /* of one sample; 4 M requests, a minute of the fastest row */

struct sample {
    long done, counted, errors;       /* done includes the warm-up, counted does not */
    double began, ended;              /* seconds; 0 until the warm-up is over, and until the last counted request */
    double server_began, server_ended, client_began, client_ended; /* CPU seconds at these two instants */
    pid_t pids[PIDS_MAX];
    int pid_count;
    uint32_t *latency_us;
};

static void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static const char *setting(int argc, char **argv, const char *key, const char *otherwise) {
    size_t length = strlen(key);
    for (int i = 1; i < argc; i++)
        if (!strncmp(argv[i], key, length) && argv[i][length] == '=') return argv[i] + length + 1;
    if (otherwise) return otherwise;
    fprintf(stderr, "%s=... is missing\n", key);
    exit(2);
}

static double read_clock(clockid_t clock) {
    struct timespec now;
    if (clock_gettime(clock, &now)) return 0; /* a process that has ended has no clock */
    return now.tv_sec + now.tv_nsec * 1e-9;
}

static double seconds_now(void) { return read_clock(CLOCK_MONOTONIC); }

static double cpu_of(const struct sample *s) {
    double sum = 0;
    clockid_t clock;
    for (int i = 0; i < s->pid_count; i++)
        if (!clock_getcpuclockid(s->pids[i], &clock)) sum += read_clock(clock);
    return sum;
}

static void sample_open(struct sample *s, const char *pids) {
    memset(s, 0, sizeof *s);
    for (char *end; *pids && s->pid_count < PIDS_MAX; pids = *end ? end + 1 : end)
        s->pids[s->pid_count++] = strtol(pids, &end, 10);
    s->latency_us = mmap(NULL, LATENCIES_MAX * sizeof *s->latency_us, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s->latency_us == MAP_FAILED) die("mmap");
}

/* Take note of a request that began at *since*; the clock starts when *warm* have been done. */
static void sample_add(struct sample *s, double since, long warm) {
    double now = seconds_now();
    if (++s->done <= warm) return;
    if (!s->began) {
        s->began = now; /* this one closes the warm-up: it fell partly before the clock */
        s->server_began = cpu_of(s);
        s->client_began = read_clock(CLOCK_PROCESS_CPUTIME_ID);
        return;
    }
    if (s->counted < LATENCIES_MAX) s->latency_us[s->counted] = (uint32_t)((now - since) * 1e6);
    s->counted++;
    s->ended = now;
}

static void sample_close(struct sample *s) {
    s->server_ended = cpu_of(s);
    s->client_ended = read_clock(CLOCK_PROCESS_CPUTIME_ID);
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void sample_print(struct sample *s, size_t size) {
    long kept = s->counted < LATENCIES_MAX ? s->counted : LATENCIES_MAX;
    qsort(s->latency_us, kept, sizeof *s->latency_us, by_value);
    double seconds = s->counted ? s->ended - s->began : 0;
    printf("{\"done\": %ld, \"requests\": %ld, \"seconds\": %.6f, \"bytes\": %.0f, \"errors\": %ld, \"p50_us\": %u, \"p99_us\": %u, "
           "\"server_cpu_s\": %.6f, \"client_cpu_s\": %.6f}\n",
           s->done, s->counted, seconds, (double)s->counted * size, s->errors, kept ? s->latency_us[kept / 2] : 0,
           kept ? s->latency_us[kept * 99 / 100] : 0, s->server_ended - s->server_began,
           s->client_ended - s->client_began);
}

/* Map *size* bytes of the file *name*, which every body is. */
static char *map_body(const char *name, size_t size) {
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    char *body = fd < 0 ? MAP_FAILED : mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (body == MAP_FAILED) die(name);
    close(fd);
    return body;
}

static int open_directory(const char *name) {
    int fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) die(name);
    return fd;
}

/* Remove the file *number*, so that its pages are used again: fresh ones cost as much as the whole data path. */
static void remove_file(int directory, long number) {
    char name[32];
    snprintf(name, sizeof name, "%08ld", number);
    if (unlinkat(directory, name, 0) && errno != ENOENT) die("unlinkat");
}
