/*
 * Echo with libevent's bufferevents, as its book shows it.
 *
 * Usage: libevent_echo PORT   (0 takes a free one)
 */
#include "listen.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

static void on_read(struct bufferevent *client, void *unused)
{
    (void)unused;
    evbuffer_add_buffer(bufferevent_get_output(client), bufferevent_get_input(client));
}

static void on_event(struct bufferevent *client, short events, void *unused)
{
    (void)unused;
    if (events & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
        bufferevent_free(client);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t socket, struct sockaddr *address,
                      int length, void *unused)
{
    (void)address, (void)length, (void)unused;
    struct bufferevent *client =
        bufferevent_socket_new(evconnlistener_get_base(listener), socket, BEV_OPT_CLOSE_ON_FREE);
    bufferevent_setcb(client, on_read, NULL, on_event, NULL);
    bufferevent_enable(client, EV_READ | EV_WRITE);
}

int main(int argc, char **argv)
{
    int socket = listen_on(argc > 1 ? atoi(argv[1]) : 0);
    struct event_base *base = event_base_new();
    if (!base || !evconnlistener_new(base, on_accept, NULL, LEV_OPT_CLOSE_ON_FREE, 0, socket))
        die("libevent");
    announce(socket);
    return event_base_dispatch(base) < 0;
}
