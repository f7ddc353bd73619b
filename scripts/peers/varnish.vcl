# Varnish before a web server with one large file, which it keeps.
vcl 4.1;
backend default {
    .host = "127.0.0.1";
    .port = "@UPSTREAM@";
}
