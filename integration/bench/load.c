/* The load generator: one thread, epoll, C connections with D requests outstanding on each, bodies by writev.
 *
 *   load verb=put|get port=N base=/dir/ directory=DIR size=N connections=C depth=D seconds=S warm=W window=W
 *        body=FILE pids=1,2 [count=N] [files=N] [keep=1] [verify=1]
 *
 * Files are named by eight digits below *base*. A put removes the file *window* behind through *directory*, a get goes round
 * *files* of them. The clock starts after *warm* requests and stops after *seconds*, or after *count* requests when given.
 * Every reply must be 200, 201 or 204 with the right length, or it is an error; verify=1 compares every byte of a get.
 */
#include "sample.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define HEAD_MAX 512
#define REPLY_HEAD_MAX 8192
#define DEPTH_MAX 64
#define CONNECTIONS_MAX 256
#define CHUNK (256 * 1024)
#define SILENCE_MS 20000 /* without an event the server is taken to have stalled */

struct connection {
    int fd;
    char head[HEAD_MAX];
    size_t head_size, sent;        /* of the request that is leaving; sent counts head and body */
    bool sending, wants_out;
    double began[DEPTH_MAX];       /* ring: when each outstanding request began to leave */
    int first, outstanding;
    char reply[REPLY_HEAD_MAX];
    size_t reply_size;             /* of a reply head that is not whole yet */
    size_t owed, taken;            /* of the body of the reply being read */
    bool good;
};

static bool get, verify, stopping;
static const char *base;
static char *body;
static size_t size;
static int depth, directory, port, loop;
static long next_number, window, warm, count, files;
static double seconds;
static struct sample sample;
static char chunk[CHUNK];

static void stop(void) {
    stopping = true;
    sample_close(&sample);
}

static void begin(struct connection *c) {
    long number = next_number++;
    c->head_size = get ? snprintf(c->head, HEAD_MAX, "GET %s%08ld HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", base,
                                  number % files, port)
                       : snprintf(c->head, HEAD_MAX, "PUT %s%08ld HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: %zu\r\n\r\n",
                                  base, number, port, size);
    if (!get && window && number >= window) remove_file(directory, number - window);
    c->sent = 0;
    c->sending = true;
    c->began[(c->first + c->outstanding++) % DEPTH_MAX] = seconds_now();
    if (count && next_number == count) stopping = true; /* the sample is closed with the last reply */
}

static void quick_ack(struct connection *c) {
    int on = 1; /* else a server that sends head and body apart is measured by the 40 ms of a delayed acknowledgement */
    if (get) setsockopt(c->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
}

static void want_out(struct connection *c, bool wanted) {
    if (c->wants_out == wanted) return;
    c->wants_out = wanted;
    struct epoll_event event = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0), .data.ptr = c};
    if (epoll_ctl(loop, EPOLL_CTL_MOD, c->fd, &event)) die("epoll_ctl");
}

/* Send what the socket takes. */
static void pump(struct connection *c) {
    while (c->sending || (!stopping && c->outstanding < depth)) {
        if (!c->sending) begin(c);
        size_t total = c->head_size + (get ? 0 : size);
        size_t in_body = c->sent > c->head_size ? c->sent - c->head_size : 0;
        struct iovec parts[2] = {{c->head + c->sent, c->sent < c->head_size ? c->head_size - c->sent : 0},
                                 {body + in_body, get ? 0 : size - in_body}};
        bool head_left = parts[0].iov_len > 0;
        quick_ack(c);
        ssize_t sent = writev(c->fd, head_left ? parts : parts + 1, head_left ? (get ? 1 : 2) : 1);
        if (sent < 0 && errno == EAGAIN) break;
        if (sent < 0) die("the server closed the connection");
        c->sent += sent;
        c->sending = c->sent < total;
    }
    want_out(c, c->sending);
}

static void finish_reply(struct connection *c) {
    if (!c->good) sample.errors++;
    sample_add(&sample, c->began[c->first], warm);
    c->first = (c->first + 1) % DEPTH_MAX;
    c->outstanding--;
    c->reply_size = 0;
    if (!stopping && !count && sample.began && seconds_now() - sample.began >= seconds) stop();
}

/* Read a reply head from the *n* bytes at *at*; return how many of them belong to it. */
static size_t take_head(struct connection *c, const char *at, size_t n) {
    size_t before = c->reply_size, room = REPLY_HEAD_MAX - 1 - before, used = n < room ? n : room;
    memcpy(c->reply + before, at, used);
    c->reply_size += used;
    char *end = memmem(c->reply, c->reply_size, "\r\n\r\n", 4);
    if (!end) {
        if (used == room) { errno = EPROTO; die("a reply head does not end"); }
        return used;
    }
    *end = 0;
    int status = c->reply_size > 12 ? atoi(c->reply + 9) : 0;
    const char *length = strcasestr(c->reply, "\r\nContent-Length:");
    if (!length && status != 204) { errno = EPROTO; die("a reply without Content-Length"); }
    c->owed = length ? strtoul(length + 17, NULL, 10) : 0;
    c->taken = 0;
    c->good = (status == 200 || status == 201 || status == 204) && (!get || c->owed == size);
    used = end + 4 - c->reply - before;
    c->reply_size = REPLY_HEAD_MAX; /* whole: what follows is body */
    return used;
}

static void take(struct connection *c, const char *at, size_t n) {
    while (n) {
        if (!c->outstanding) { errno = EPROTO; die("a reply that nobody asked for"); }
        if (c->reply_size != REPLY_HEAD_MAX) {
            size_t used = take_head(c, at, n);
            at += used, n -= used;
            if (c->reply_size != REPLY_HEAD_MAX) return;
        }
        size_t piece = c->owed < n ? c->owed : n;
        if (verify && get && c->good && memcmp(at, body + c->taken, piece)) c->good = false;
        c->taken += piece, c->owed -= piece, at += piece, n -= piece;
        if (!c->owed) finish_reply(c);
    }
}

static void on_readable(struct connection *c) {
    ssize_t n = recv(c->fd, chunk, CHUNK, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        if (!n) errno = ECONNRESET;
        die("the server closed the connection");
    }
    quick_ack(c);
    take(c, chunk, n);
}

static void dial(struct connection *c) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to)) die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(loop, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl");
}

static void run(struct connection *connections, int number) {
    struct epoll_event events[64];
    for (int i = 0; i < number; i++) dial(&connections[i]);
    for (int i = 0; i < number; i++) pump(&connections[i]);
    for (;;) {
        bool busy = false;
        for (int i = 0; i < number; i++) busy |= connections[i].outstanding > 0;
        if (stopping && !busy) break;
        int ready = epoll_wait(loop, events, 64, SILENCE_MS);
        if (!ready) { errno = ETIMEDOUT; die("the server stalled"); }
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_readable(c);
            pump(c);
        }
    }
    if (count) stop();
}

int main(int argc, char **argv) {
    get = !strcmp(setting(argc, argv, "verb", NULL), "get");
    port = atoi(setting(argc, argv, "port", NULL));
    base = setting(argc, argv, "base", NULL);
    size = strtoul(setting(argc, argv, "size", NULL), NULL, 10);
    int number = atoi(setting(argc, argv, "connections", "1"));
    depth = atoi(setting(argc, argv, "depth", "1"));
    seconds = atof(setting(argc, argv, "seconds", "1"));
    warm = atol(setting(argc, argv, "warm", "0"));
    window = atol(setting(argc, argv, "window", "0"));
    count = atol(setting(argc, argv, "count", "0"));
    files = atol(setting(argc, argv, "files", "1"));
    verify = atoi(setting(argc, argv, "verify", "0"));
    bool keep = atoi(setting(argc, argv, "keep", "0"));
    if (number < 1 || number > CONNECTIONS_MAX || depth < 1 || depth > DEPTH_MAX) {
        fprintf(stderr, "connections go to %d, depth to %d\n", CONNECTIONS_MAX, DEPTH_MAX);
        return 2;
    }
    body = map_body(setting(argc, argv, "body", NULL), size);
    directory = get ? -1 : open_directory(setting(argc, argv, "directory", NULL));
    sample_open(&sample, setting(argc, argv, "pids", ""));
    loop = epoll_create1(EPOLL_CLOEXEC);
    struct connection *connections = calloc(number, sizeof *connections);
    if (loop < 0 || !connections) die("epoll_create1");
    run(connections, number);
    for (long left = 0; !get && !keep && left < next_number; left++) remove_file(directory, left); /* also those that came late */
    sample_print(&sample, size);
    return 0;
}
