/*
 * Echo with libuv: a write request for each piece that was read, tried at once
 * by libuv itself.
 *
 * Usage: libuv_echo PORT   (0 takes a free one)
 */
#include "listen.h"

#include <uv.h>

/* One write under way, with the bytes it sends. */
struct write {
    uv_write_t request;
    uv_buf_t bytes;
};

static void on_closed(uv_handle_t *client) { free(client); }

static void close_client(uv_stream_t *client)
{
    if (!uv_is_closing((uv_handle_t *)client))
        uv_close((uv_handle_t *)client, on_closed);
}

static void on_memory(uv_handle_t *client, size_t suggested, uv_buf_t *out)
{
    (void)client;
    *out = uv_buf_init(malloc(suggested), (unsigned)suggested);
}

static void on_written(uv_write_t *request, int status)
{
    struct write *write = (struct write *)request;
    if (status < 0)
        close_client(request->handle);
    free(write->bytes.base);
    free(write);
}

static void on_read(uv_stream_t *client, ssize_t length, const uv_buf_t *bytes)
{
    if (length <= 0) {
        free(bytes->base);
        if (length < 0)
            close_client(client);
        return;
    }
    struct write *write = malloc(sizeof *write);
    write->bytes = uv_buf_init(bytes->base, (unsigned)length);
    if (uv_write(&write->request, client, &write->bytes, 1, on_written) < 0) {
        free(bytes->base);
        free(write);
        close_client(client);
    }
}

static void on_connection(uv_stream_t *listener, int status)
{
    uv_tcp_t *client = malloc(sizeof *client);
    uv_tcp_init(listener->loop, client);
    if (status < 0 || uv_accept(listener, (uv_stream_t *)client) < 0) {
        close_client((uv_stream_t *)client);
        return;
    }
    uv_tcp_nodelay(client, 1);
    uv_read_start((uv_stream_t *)client, on_memory, on_read);
}

int main(int argc, char **argv)
{
    uv_tcp_t listener;
    int socket = listen_on(argc > 1 ? atoi(argv[1]) : 0);
    uv_tcp_init(uv_default_loop(), &listener);
    if (uv_tcp_open(&listener, socket) < 0 || uv_listen((uv_stream_t *)&listener, BACKLOG, on_connection) < 0)
        die("libuv");
    announce(socket);
    return uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}
