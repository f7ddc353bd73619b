/*
 * The floor: an echo server of which nothing can be left out. One thread,
 * edge-triggered epoll, one recv and one send per message, no queue, no limit,
 * no defence, no clock, no log. Nearly all of its time is the kernel's, so no
 * server of the same design is faster by more than noise.
 *
 * Usage: floor_echo PORT   (0 takes a free one)
 */
#include "floor.h"

int main(int argc, char **argv)
{
    static struct epoll_event events[EVENTS_A_WAIT];
    signal(SIGPIPE, SIG_IGN);
    int listener = listen_on(argc > 1 ? atoi(argv[1]) : 0);
    int epoll = watch(listener);
    announce(listener);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS_A_WAIT, -1);
        if (ready < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd == listener)
                accept_all(listener, epoll);
            else
                serve(events[i].data.fd, events[i].events);
        }
    }
}
