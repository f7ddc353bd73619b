/*
 * The floor for a tunnel: each accepted client gets a connection to one address,
 * and bytes go both ways. One thread, edge-triggered epoll, one recv and one
 * send per piece, no limit, no defence, no clock, no log.
 *
 * What a socket refuses is kept, and its partner is not read until it is gone.
 * With `splice` the bytes go through a kernel pipe and are never copied.
 *
 * Usage: floor_tunnel PORT HOST:PORT [splice]   (port 0 takes a free one)
 */
#define _GNU_SOURCE
#include "listen.h"
#include "refused.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

/* One end of a tunnel, with what waits to be sent to it. */
struct end {
    struct end *partner;
    struct end *next_dead;
    int socket;
    int pipe[2];      /* only with splice: bytes on their way to this end */
    size_t in_pipe;
    struct refused rest; /* only without: what the socket refused */
    int ended;        /* this end has said that it sends no more */
    int shut;         /* we have told this end that nothing follows */
    int dead;
};

static char buffer[READ_BYTES];
static struct end *dead_ends;
static int with_splice;

/* Descriptors and memory live until the batch is over, as events may point there. */
static void bury(struct end *end)
{
    if (end->dead)
        return;
    struct end *both[2] = {end, end->partner};
    for (int i = 0; i < 2; i++) {
        both[i]->dead = 1;
        both[i]->next_dead = dead_ends;
        dead_ends = both[i];
    }
}

static void free_dead(void)
{
    while (dead_ends) {
        struct end *end = dead_ends;
        dead_ends = end->next_dead;
        close(end->socket);
        if (with_splice) {
            close(end->pipe[0]);
            close(end->pipe[1]);
        }
        free(end->rest.bytes);
        free(end);
    }
}

static size_t waiting(const struct end *end)
{
    return end->in_pipe + end->rest.length - end->rest.sent;
}

/* Sends to `end` what waits for it. False when the tunnel is lost. */
static int flush(struct end *end)
{
    if (end->in_pipe) {
        ssize_t moved = splice(end->pipe[0], NULL, end->socket, NULL, end->in_pipe,
                               SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (moved < 0)
            return errno == EAGAIN;
        end->in_pipe -= (size_t)moved;
    } else if (end->rest.bytes) {
        return send_refused(end->socket, &end->rest);
    }
    return 1;
}

/* One read. Its length, 0 at the end, negative for an error or nothing to read. */
static ssize_t read_once(struct end *from)
{
    struct end *to = from->partner;
    if (!with_splice) {
        ssize_t length = recv(from->socket, buffer, sizeof buffer, 0);
        if (length > 0 && !send_or_keep(to->socket, &to->rest, buffer, (size_t)length)) {
            errno = EPIPE;
            return -1;
        }
        return length;
    }
    ssize_t length = splice(from->socket, NULL, to->pipe[1], NULL, READ_BYTES,
                            SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    if (length > 0) {
        to->in_pipe = (size_t)length;
        if (!flush(to)) {
            errno = EPIPE;
            return -1;
        }
    }
    return length;
}

/* Reads from `from` while its partner takes everything. */
static void read_from(struct end *from, unsigned events)
{
    while (!from->ended && !waiting(from->partner)) {
        ssize_t length = read_once(from);
        if (length < 0) {
            if (errno != EAGAIN)
                bury(from);
            return;
        }
        if (length == 0)
            from->ended = 1;
        /* A short splice proves nothing: a pipe is full after 16 segments. */
        else if (!with_splice && length < READ_BYTES && !(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
            return;
    }
}

/* Carries over the end of each direction once all of it is sent. */
static void carry_ends(struct end *end)
{
    for (int i = 0; i < 2 && !end->dead; i++, end = end->partner) {
        struct end *to = end->partner;
        if (end->ended && !to->shut && !waiting(to)) {
            shutdown(to->socket, SHUT_WR);
            to->shut = 1;
        }
        if (end->shut && to->shut)
            bury(end);
    }
}

static void serve(struct end *end, unsigned events)
{
    if (end->dead)
        return;
    if (waiting(end)) {
        if (!flush(end)) {
            bury(end);
            return;
        }
        /* The partner had been left alone, and no edge will come for that. */
        if (!waiting(end))
            read_from(end->partner, EPOLLRDHUP);
    }
    if (!end->dead && (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
        read_from(end, events);
    carry_ends(end);
}

static struct end *new_end(int socket)
{
    struct end *end = calloc(1, sizeof *end);
    if (!end || (with_splice && pipe2(end->pipe, O_NONBLOCK | O_CLOEXEC) < 0))
        die("new end");
    end->socket = socket;
    return end;
}

static void open_tunnel(int accepted, int epoll, const struct sockaddr_in *to)
{
    int one = 1;
    int upstream = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (upstream < 0) {
        close(accepted);
        return;
    }
    setsockopt(upstream, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct end *a = new_end(accepted), *b = new_end(upstream);
    a->partner = b;
    b->partner = a;
    /* Until it is connected, sending to it says EAGAIN, which is all we need. */
    if (connect(upstream, (const struct sockaddr *)to, sizeof *to) < 0 && errno != EINPROGRESS)
        bury(a);
    struct epoll_event wanted = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET};
    wanted.data.ptr = a;
    epoll_ctl(epoll, EPOLL_CTL_ADD, accepted, &wanted);
    wanted.data.ptr = b;
    epoll_ctl(epoll, EPOLL_CTL_ADD, upstream, &wanted);
}

int main(int argc, char **argv)
{
    static struct epoll_event events[EVENTS_A_WAIT];
    if (argc < 3) {
        fprintf(stderr, "usage: floor_tunnel PORT HOST:PORT [splice]\n");
        return 2;
    }
    struct sockaddr_in to = parse_address(argv[2]);
    with_splice = argc > 3 && strcmp(argv[3], "splice") == 0;
    signal(SIGPIPE, SIG_IGN);
    int listener = listen_on(atoi(argv[1]));
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event wanted = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &wanted) < 0)
        die("epoll");
    announce(listener);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS_A_WAIT, -1);
        if (ready < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            int accepted;
            if (events[i].data.ptr)
                serve(events[i].data.ptr, events[i].events);
            else
                while ((accepted = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
                    open_tunnel(accepted, epoll, &to);
        }
        free_dead();
    }
}
