/*
 * The floor of disconnecting: the echo of the floor, and a client that has not
 * taken what its socket refused once GRACE seconds have passed is reset. It
 * looks at the clock, keeps the deadlines in a line, and has a log that costs
 * nothing while clients go: it is printed when nobody is left to wait for.
 *
 * The kernel's buffers are bounded as highwater bounds them, for to free them
 * is most of what a reset costs.
 *
 * Usage: floor_deadlines PORT GRACE   (port 0 takes a free one)
 */
#include "floor.h"

#include <time.h>

enum { RECEIVE_BUFFER_BYTES = 64 * 1024, UNSENT_BYTES = 16 * 1024, DEADLINES = 4 * DESCRIPTORS };

/* Since when something waits for a client, by descriptor; 0 while nothing does. */
static double since[DESCRIPTORS];

/* Whose time began when, in that order. */
static struct deadline {
    int client;
    double since;
} deadlines[DEADLINES];
static unsigned first, last;

/* How long each who was reset had been slow, in seconds. */
static double slow_for[DEADLINES];
static unsigned gone;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void note(int client)
{
    if (!refused[client].bytes) {
        since[client] = 0;
    } else if (since[client] == 0 && last - first < DEADLINES) {
        since[client] = now();
        deadlines[last++ % DEADLINES] = (struct deadline){client, since[client]};
    }
}

/* The next deadline that still holds, if any. */
static struct deadline *next(void)
{
    while (first != last) {
        struct deadline *it = &deadlines[first % DEADLINES];
        if (since[it->client] == it->since)
            return it;
        first++;
    }
    return NULL;
}

static void reset(int client)
{
    struct linger none = {.l_onoff = 1, .l_linger = 0};
    setsockopt(client, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    since[client] = 0;
    close_client(client);
}

/* Resets those whose time is over. Answers how many milliseconds there are
 * until the next, or -1. */
static int expire(double grace)
{
    struct deadline *it;
    while ((it = next())) {
        double slow = now() - it->since;
        if (slow < grace)
            return (int)((grace - slow) * 1000) + 1;
        slow_for[gone++ % DEADLINES] = slow;
        reset(it->client);
    }
    for (unsigned i = 0; i < gone; i++)
        printf("write timeout, disconnecting: slow for %.6f s\n", slow_for[i % DEADLINES]);
    gone = 0;
    fflush(stdout);
    return -1;
}

int main(int argc, char **argv)
{
    static struct epoll_event events[EVENTS_A_WAIT];
    int receive = RECEIVE_BUFFER_BYTES, unsent = UNSENT_BYTES;
    double grace = argc > 2 ? atof(argv[2]) : 5;
    signal(SIGPIPE, SIG_IGN);
    int listener = listen_on(argc > 1 ? atoi(argv[1]) : 0);
    setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &receive, sizeof receive);
    setsockopt(listener, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent);
    int epoll = watch(listener);
    announce(listener);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS_A_WAIT, expire(grace));
        if (ready < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            int client = events[i].data.fd;
            if (client == listener) {
                accept_all(listener, epoll);
                continue;
            }
            serve(client, events[i].events);
            note(client);
        }
    }
}
