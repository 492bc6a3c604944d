/* Tunnels: TCP connections on the sandbox's loopback whose other end is the server. Nothing here writes a frame: the
   relay does, by what is noted in each tunnel. */
#ifndef INIT_TUNNEL_H
#define INIT_TUNNEL_H

#include "init/supervisor.h"

/* Called once, before anything else here. `memory`: the sandbox's limit in bytes. */
void tunnels_prepare(struct supervisor *s, uint64_t memory);
/* Returns the tunnel of a number, or NULL. */
struct tunnel *tunnel_find(struct supervisor *s, uint32_t number);
/* Makes a tunnel of a connected socket, which it owns from then on; returns NULL, with the socket closed, when there is
   no place. */
struct tunnel *tunnel_add(struct supervisor *s, int fd, uint32_t number);
/* Connects to a port of loopback, by IPv4 or else by IPv6. Returns 0, or why that is impossible. */
int tunnel_open(struct supervisor *s, uint32_t number, uint16_t port);
/* Takes an event of epoll. */
void tunnel_event(struct supervisor *s, struct tunnel *t, uint32_t events);
/* Passes bytes on to the program; returns NULL, or the fault for which the server's connection must end. */
const char *tunnel_write(struct supervisor *s, struct tunnel *t, struct slice data);
/* The server sends no more: the program reads to the end of what came. */
void tunnel_end(struct tunnel *t);
/* Writes what waits for the program, as far as its socket takes it. */
void tunnel_flush(struct tunnel *t);
/* Gives a tunnel's place free. `broken`: its program gets a reset, and not an end. */
void tunnel_close(struct supervisor *s, struct tunnel *t, bool broken);
/* The server is gone, and with it the other end of every tunnel. */
void tunnels_close(struct supervisor *s);

#endif
