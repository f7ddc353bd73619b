/*
 * What a socket refused, for the floors: it is kept, and goes before anything
 * else. No memory while it is nothing.
 */
#ifndef REFUSED_H
#define REFUSED_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct refused {
    char *bytes;
    size_t length, sent;
};

/* Sends `length` bytes and keeps what is refused. False when the peer is lost. */
static inline int send_or_keep(int socket, struct refused *rest, const char *bytes, size_t length)
{
    ssize_t sent = send(socket, bytes, length, MSG_NOSIGNAL);
    if (sent == (ssize_t)length)
        return 1;
    if (sent < 0 && errno != EAGAIN)
        return 0;
    if (sent < 0)
        sent = 0;
    rest->length = length - (size_t)sent;
    rest->sent = 0;
    rest->bytes = malloc(rest->length);
    if (!rest->bytes)
        return 0;
    memcpy(rest->bytes, bytes + sent, rest->length);
    return 1;
}

/* Sends what was refused earlier. False when the peer is lost. */
static inline int send_refused(int socket, struct refused *rest)
{
    ssize_t sent = send(socket, rest->bytes + rest->sent, rest->length - rest->sent, MSG_NOSIGNAL);
    if (sent < 0)
        return errno == EAGAIN;
    rest->sent += (size_t)sent;
    if (rest->sent == rest->length) {
        free(rest->bytes);
        *rest = (struct refused){0};
    }
    return 1;
}

#endif
