/* The sink: takes puts and throws the bodies away unread (MSG_TRUNC), so that what is measured is who sends them.
 *
 *   sink            prints its port, serves until it is ended
 *
 * A PUT is answered 200 once its body is through; __status with an empty object, and every other request with 404, which is
 * how a node of PYME that stores nothing would answer. One thread, epoll.
 */
#include "sample.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define HEAD_MAX 8192
#define DISCARD (1 << 20)
#define STORED "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
#define STATUS "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
#define MISSING "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"

struct connection {
    int fd;
    char head[HEAD_MAX];
    size_t have, owed;
};

static void answer(int fd, const char *text, size_t size) {
    if (send(fd, text, size, MSG_NOSIGNAL) != (ssize_t)size && errno != EPIPE && errno != ECONNRESET) die("send");
}

/* Take the heads that are whole; bodies that lie behind them here are dropped. False when the peer sent nonsense. */
static bool take_heads(struct connection *c) {
    char *end;
    while (!c->owed && (end = memmem(c->head, c->have, "\r\n\r\n", 4))) {
        size_t used = end + 4 - c->head;
        *end = 0;
        const char *length = strcasestr(c->head, "\r\nContent-Length:");
        bool put = !strncmp(c->head, "PUT ", 4), status = strstr(c->head, "/__status ") != NULL;
        c->owed = length ? strtoul(length + 17, NULL, 10) : 0;
        size_t body = c->have - used < c->owed ? c->have - used : c->owed;
        c->owed -= body;
        c->have -= used + body;
        memmove(c->head, c->head + used + body, c->have);
        if (put && !c->owed) answer(c->fd, STORED, sizeof STORED - 1);
        else if (!put && status) answer(c->fd, STATUS, sizeof STATUS - 1);
        else if (!put) answer(c->fd, MISSING, sizeof MISSING - 1);
    }
    return c->owed || c->have < HEAD_MAX;
}

/* True as long as the connection lives. */
static bool receive(struct connection *c) {
    ssize_t n;
    if (c->owed) {
        n = recv(c->fd, NULL, c->owed < DISCARD ? c->owed : DISCARD, MSG_TRUNC);
        if (n > 0 && !(c->owed -= n)) answer(c->fd, STORED, sizeof STORED - 1);
    } else {
        n = recv(c->fd, c->head + c->have, HEAD_MAX - c->have, 0);
        if (n > 0) c->have += n;
    }
    if (n <= 0) return n < 0 && errno == EAGAIN;
    return take_heads(c);
}

int main(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), loop = epoll_create1(EPOLL_CLOEXEC), on = 1;
    if (listening < 0 || bind(listening, (struct sockaddr *)&at, size) || listen(listening, 64)) die("listen");
    getsockname(listening, (struct sockaddr *)&at, &size);
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[64];
    epoll_ctl(loop, EPOLL_CTL_ADD, listening, &event);
    for (;;) {
        int ready = epoll_wait(loop, events, 64, -1);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c) {
                if (!(c = calloc(1, sizeof *c))) die("calloc");
                c->fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                if (c->fd < 0) die("accept4");
                setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                event.data.ptr = c;
                epoll_ctl(loop, EPOLL_CTL_ADD, c->fd, &event);
            } else if (!receive(c)) {
                close(c->fd);
                free(c);
            }
        }
    }
}
