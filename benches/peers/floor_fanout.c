/*
 * The floor of publish and subscribe: one thread, edge-triggered epoll, one
 * encoded buffer for all subscribers, one send for each of them and turn. It
 * knows one channel, speaks just enough of Redis's protocol for SUBSCRIBE and
 * PUBLISH, and has no queue: a subscriber that does not take all is closed.
 *
 * Usage: floor_fanout PORT   (0 takes a free one)
 */
#define _GNU_SOURCE
#include "listen.h"

#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { DESCRIPTORS = 20000, TURN_BYTES = 8 << 20, INPUT_BYTES = 1 << 20, MOST_WORDS = 4 };

struct word {
    const char *bytes;
    size_t length;
};

struct input {
    char *bytes;
    size_t length;
};

static struct input inputs[DESCRIPTORS];
static int subscribers[DESCRIPTORS], subscriber_count;
static char turn[TURN_BYTES], replies[INPUT_BYTES];
static size_t turn_length;

static void forget(int client)
{
    for (int i = 0; i < subscriber_count; i++)
        if (subscribers[i] == client)
            subscribers[i--] = subscribers[--subscriber_count];
    free(inputs[client].bytes);
    inputs[client] = (struct input){0};
    close(client);
}

/* Reads a number behind `*` or `$`; answers where its line ends. */
static const char *number(const char *from, const char *end, size_t *value)
{
    *value = 0;
    for (from++; from < end && *from >= '0' && *from <= '9'; from++)
        *value = *value * 10 + (size_t)(*from - '0');
    return end - from >= 2 ? from + 2 : NULL;
}

/* Splits one command; answers its end, or NULL if it is not complete. */
static const char *split(const char *from, const char *end, struct word *words, size_t *count)
{
    if (from == end || !(from = number(from, end, count)) || *count > MOST_WORDS)
        return NULL;
    for (size_t i = 0; i < *count; i++) {
        if (from >= end || !(from = number(from, end, &words[i].length)))
            return NULL;
        words[i].bytes = from;
        if ((size_t)(end - from) < words[i].length + 2)
            return NULL;
        from += words[i].length + 2;
    }
    return from;
}

static size_t run(int client, const struct word *words, char *reply)
{
    int name = (int)words[1].length;
    if (words[0].bytes[0] == 'S') {
        subscribers[subscriber_count++] = client;
        return (size_t)sprintf(reply, "*3\r\n$9\r\nsubscribe\r\n$%d\r\n%.*s\r\n:1\r\n", name, name, words[1].bytes);
    }
    turn_length += (size_t)sprintf(turn + turn_length, "*3\r\n$7\r\nmessage\r\n$%d\r\n%.*s\r\n$%zu\r\n", name, name,
                                   words[1].bytes, words[2].length);
    memcpy(turn + turn_length, words[2].bytes, words[2].length + 2);
    turn_length += words[2].length + 2;
    return (size_t)sprintf(reply, ":%d\r\n", subscriber_count);
}

static void serve(int client)
{
    struct input *input = &inputs[client];
    if (!input->bytes)
        input->bytes = malloc(INPUT_BYTES);
    ssize_t length = recv(client, input->bytes + input->length, INPUT_BYTES - input->length, 0);
    if (length < 0 && errno == EAGAIN)
        return;
    if (length <= 0) {
        forget(client);
        return;
    }
    input->length += (size_t)length;
    const char *from = input->bytes, *end = input->bytes + input->length, *next;
    struct word words[MOST_WORDS];
    size_t count, said = 0;
    while ((next = split(from, end, words, &count))) {
        said += run(client, words, replies + said);
        from = next;
    }
    input->length = (size_t)(end - from);
    memmove(input->bytes, from, input->length);
    if (said && send(client, replies, said, MSG_NOSIGNAL) != (ssize_t)said)
        forget(client);
}

int main(int argc, char **argv)
{
    static struct epoll_event events[EVENTS_A_WAIT];
    signal(SIGPIPE, SIG_IGN);
    int listener = listen_on(argc > 1 ? atoi(argv[1]) : 0);
    int epoll = epoll_create1(EPOLL_CLOEXEC), client;
    struct epoll_event wanted = {.events = EPOLLIN, .data.fd = listener};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &wanted) < 0)
        die("epoll");
    announce(listener);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS_A_WAIT, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd != listener) {
                serve(events[i].data.fd);
                continue;
            }
            while ((client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                wanted = (struct epoll_event){.events = EPOLLIN, .data.fd = client};
                if (client >= DESCRIPTORS || epoll_ctl(epoll, EPOLL_CTL_ADD, client, &wanted) < 0)
                    close(client);
            }
        }
        for (int i = subscriber_count - 1; turn_length && i >= 0; i--)
            if (send(subscribers[i], turn, turn_length, MSG_NOSIGNAL) != (ssize_t)turn_length)
                forget(subscribers[i]);
        turn_length = 0;
    }
}
