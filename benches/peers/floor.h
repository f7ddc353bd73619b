/*
 * The echo of the floors: one recv and one send per message. What a socket
 * refuses is kept, and the client is not read until it is gone: the least that
 * is still correct for a client that sends faster than it reads.
 */
#ifndef FLOOR_H
#define FLOOR_H

#define _GNU_SOURCE
#include "listen.h"

#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { DESCRIPTORS = 20000 };

/* What a client's socket refused, by descriptor; no memory while it is nothing. */
struct refused {
    char *bytes;
    size_t length, sent;
};
static struct refused refused[DESCRIPTORS];

static char buffer[READ_BYTES];

static inline void close_client(int client)
{
    free(refused[client].bytes);
    refused[client] = (struct refused){0};
    close(client);
}

/* Sends `length` bytes and keeps what is refused. False when the client is lost. */
static inline int echo(int client, const char *bytes, size_t length)
{
    ssize_t sent = send(client, bytes, length, MSG_NOSIGNAL);
    if (sent == (ssize_t)length)
        return 1;
    if (sent < 0 && errno != EAGAIN)
        return 0;
    if (sent < 0)
        sent = 0;
    struct refused *rest = &refused[client];
    rest->length = length - (size_t)sent;
    rest->sent = 0;
    rest->bytes = malloc(rest->length);
    if (!rest->bytes)
        return 0;
    memcpy(rest->bytes, bytes + sent, rest->length);
    return 1;
}

/* Sends what was refused earlier. False when the client is lost. */
static inline int flush(int client)
{
    struct refused *rest = &refused[client];
    ssize_t sent = send(client, rest->bytes + rest->sent, rest->length - rest->sent, MSG_NOSIGNAL);
    if (sent < 0)
        return errno == EAGAIN;
    rest->sent += (size_t)sent;
    if (rest->sent == rest->length) {
        free(rest->bytes);
        *rest = (struct refused){0};
    }
    return 1;
}

static inline void serve(int client, unsigned events)
{
    if (refused[client].bytes && !flush(client)) {
        close_client(client);
        return;
    }
    while (!refused[client].bytes) {
        ssize_t length = recv(client, buffer, sizeof buffer, 0);
        if (length < 0 && errno == EAGAIN)
            return;
        if (length <= 0 || !echo(client, buffer, (size_t)length)) {
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
