/*
 * The echo of the floors: one recv and one send per message. What a socket
 * refuses is kept, and the client is not read until it is gone: the least that
 * is still correct for a client that sends faster than it reads.
 */
#ifndef FLOOR_H
#define FLOOR_H

#define _GNU_SOURCE
#include "listen.h"
#include "refused.h"

#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { DESCRIPTORS = 20000 };

/* What a client's socket refused, by descriptor. */
static struct refused refused[DESCRIPTORS];

static char buffer[READ_BYTES];

static inline void close_client(int client)
{
    free(refused[client].bytes);
    refused[client] = (struct refused){0};
    close(client);
}

static inline void serve(int client, unsigned events)
{
    if (refused[client].bytes && !send_refused(client, &refused[client])) {
        close_client(client);
        return;
    }
    while (!refused[client].bytes) {
        ssize_t length = recv(client, buffer, sizeof buffer, 0);
        if (length < 0 && errno == EAGAIN)
            return;
        if (length <= 0 || !send_or_keep(client, &refused[client], buffer, (size_t)length)) {
            close_client(client);
            return;
        }
        /* A short read has emptied the socket, unless the peer's end is next. */
        if (length < READ_BYTES && !(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
            return;
    }
}

static inline void accept_all(int listener, int epoll)
{
    int client;
    while ((client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct epoll_event wanted = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.fd = client};
        if (client >= DESCRIPTORS || epoll_ctl(epoll, EPOLL_CTL_ADD, client, &wanted) < 0)
            close(client);
    }
}

/* An epoll with `listener` in it. */
static inline int watch(int listener)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event wanted = {.events = EPOLLIN | EPOLLET, .data.fd = listener};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &wanted) < 0)
        die("epoll");
    return epoll;
}

#endif
