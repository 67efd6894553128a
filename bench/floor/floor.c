//go:build ignore
// The constraint above is for the Go tool, which would otherwise take this file for a part of the Go program beside it.

/*
 * The floor in C: an epoll loop that moves the bytes of a WebSocket server without understanding them.
 *
 * It upgrades whoever asks, answers every --size bytes of payload with one frame prepared beforehand, and
 * pings every connection once per --heartbeat-interval, spread over ticks of 20 ms. It checks nothing.
 * What a real server costs above this program is its own doing; what this program costs is the kernel's.
 *
 *   gcc -O2 -o floor-c bench/floor/floor.c
 *   ./floor-c --listen 127.0.0.1:9002 --size 128 --heartbeat-interval 2s
 *
 * Limits: IPv4 only; the request head must arrive in one read; after it a client sends only data frames of
 * --size bytes and empty pongs, and a frame is told by its first byte alone; a socket that is full is dropped.
 * Single-threaded, level-triggered, one read and at most one write per event (64 frames a write).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256, BATCH = 64, BACKLOG = 4096, TICK_MS = 20, READ_BYTES = 64 * 1024, FRAMES_PER_WRITE = 64, PONG = 10, PONG_BYTES = 6 };

/* One connection, indexed by its descriptor. */
struct conn {
    unsigned char phase, data; /* data: the frame under way is a message, not a pong */
    uint32_t need;             /* bytes still to come of the frame under way; 0 at a boundary */
};
enum { FREE, HANDSHAKE, OPEN };

static struct conn *conns;
static int conns_max, fd_max;
static unsigned char buf[READ_BYTES];
static unsigned char *frames; /* FRAMES_PER_WRITE copies of one unmasked frame, so that one write answers several */
static size_t frame_bytes, masked_bytes;

static void die(const char *what) {
    fprintf(stderr, "floor-c: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint32_t rol(uint32_t x, int n) { return x << n | x >> (32 - n); }

/* sha1 of at most 119 bytes (two blocks): FIPS 180-4, section 6.1. */
static void sha1(const unsigned char *msg, size_t len, unsigned char out[20]) {
    unsigned char m[128] = {0};
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0}, w[80];
    size_t total = len + 9 <= 64 ? 64 : 128;
    memcpy(m, msg, len);
    m[len] = 0x80;
    m[total - 2] = (unsigned char)(len * 8 >> 8);
    m[total - 1] = (unsigned char)(len * 8);
    for (size_t at = 0; at < total; at += 64) {
        for (int i = 0; i < 16; i++)
            w[i] = (uint32_t)m[at + 4 * i] << 24 | (uint32_t)m[at + 4 * i + 1] << 16 | (uint32_t)m[at + 4 * i + 2] << 8 | m[at + 4 * i + 3];
        for (int i = 16; i < 80; i++) w[i] = rol(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
        for (int i = 0; i < 80; i++) {
            uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 ? b ^ c ^ d : i < 60 ? (b & c) | (b & d) | (c & d) : b ^ c ^ d;
            uint32_t k = i < 20 ? 0x5A827999 : i < 40 ? 0x6ED9EBA1 : i < 60 ? 0x8F1BBCDC : 0xCA62C1D6;
            uint32_t t = rol(a, 5) + f + e + k + w[i];
            e = d, d = c, c = rol(b, 30), b = a, a = t;
        }
        h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
    }
    for (int i = 0; i < 20; i++) out[i] = (unsigned char)(h[i / 4] >> (24 - i % 4 * 8));
}

static void base64(const unsigned char in[20], char out[29]) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int i = 0, o = 0; i < 20; i += 3) {
        uint32_t v = (uint32_t)in[i] << 16 | (uint32_t)in[i + 1] << 8 | (i + 2 < 20 ? in[i + 2] : 0);
        for (int s = 18; s >= 0; s -= 6) out[o++] = digits[v >> s & 63];
    }
    out[27] = '=';
    out[28] = 0;
}

static void drop(int fd) {
    conns[fd].phase = FREE;
    close(fd);
}

static void upgrade(int fd, size_t n) {
    char key[64], accept[29], answer[256];
    unsigned char digest[20];
    buf[n < READ_BYTES ? n : READ_BYTES - 1] = 0;
    const char *at = strstr((char *)buf, "Sec-WebSocket-Key: ");
    if (!at || strlen(at) < 19 + 24) {
        drop(fd);
        return;
    }
    memcpy(key, at + 19, 24);
    strcpy(key + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"); /* RFC 6455, section 1.3 */
    sha1((unsigned char *)key, 60, digest);
    base64(digest, accept);
    int len = snprintf(answer, sizeof answer,
                       "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept);
    if (write(fd, answer, (size_t)len) != len) {
        drop(fd);
        return;
    }
    conns[fd].phase = OPEN;
    conns[fd].need = 0;
}

/* completed counts the messages that end in the first n bytes of buf, by the length that each frame is known to have. */
static size_t completed(struct conn *c, size_t n) {
    size_t count = 0;
    for (size_t at = 0; at < n;) {
        if (c->need == 0) {
            c->data = (buf[at] & 15) != PONG;
            c->need = c->data ? (uint32_t)masked_bytes : PONG_BYTES;
        }
        size_t some = c->need < n - at ? c->need : n - at;
        at += some;
        c->need -= (uint32_t)some;
        count += c->need == 0 && c->data;
    }
    return count;
}

static void serve(int fd) {
    ssize_t n = read(fd, buf, sizeof buf);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        drop(fd);
        return;
    }
    if (conns[fd].phase == HANDSHAKE) {
        upgrade(fd, (size_t)n);
        return;
    }
    size_t count = completed(&conns[fd], (size_t)n);
    while (count > 0) {
        size_t some = count < FRAMES_PER_WRITE ? count : FRAMES_PER_WRITE;
        if (write(fd, frames, some * frame_bytes) != (ssize_t)(some * frame_bytes)) { /* a full socket: the floor keeps no outbox */
            drop(fd);
            return;
        }
        count -= some;
    }
}

static void accept_some(int listener, int ep) {
    for (int i = 0; i < BATCH; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};
        if (fd >= conns_max || epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) < 0) {
            close(fd);
            continue;
        }
        conns[fd].phase = HANDSHAKE;
        if (fd > fd_max) fd_max = fd;
    }
}

static void prepare(size_t size) {
    size_t header = size < 126 ? 2 : size < 65536 ? 4 : 10;
    frame_bytes = header + size;
    masked_bytes = frame_bytes + 4;
    frames = malloc(frame_bytes * FRAMES_PER_WRITE);
    if (!frames) die("malloc");
    for (int k = 0; k < FRAMES_PER_WRITE; k++) {
        unsigned char *f = frames + (size_t)k * frame_bytes;
        f[0] = 0x82;
        f[1] = (unsigned char)(header == 2 ? size : header == 4 ? 126 : 127);
        for (size_t i = 2; i < header; i++) f[i] = (unsigned char)(size >> 8 * (header - 1 - i));
        for (size_t i = 0; i < size; i++) f[header + i] = (unsigned char)('a' + i % 26);
    }
}

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static int listen_on(const char *address) {
    char host[64] = "127.0.0.1";
    const char *colon = strrchr(address, ':');
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (!colon || fd < 0) die("address");
    if (colon != address) snprintf(host, sizeof host, "%.*s", (int)(colon - address), address);
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1))};
    if (inet_pton(AF_INET, host, &sa.sin_addr) != 1) die("address");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* inherited by accepted sockets */
    if (bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0) die("bind");
    if (listen(fd, BACKLOG) < 0) die("listen");
    return fd;
}

/* beat pings those descriptors whose turn this tick is: every ticks-th, so the beats of an interval are spread evenly. */
static void beat(int tick, int ticks) {
    static const unsigned char ping[2] = {0x89, 0};
    for (int fd = tick; fd <= fd_max; fd += ticks)
        if (conns[fd].phase == OPEN && write(fd, ping, 2) < 0 && errno != EAGAIN) drop(fd);
}

static void run(int listener, int64_t interval_ms) {
    struct epoll_event evs[EVENTS], ev = {.events = EPOLLIN, .data.fd = listener};
    int ep = epoll_create1(EPOLL_CLOEXEC), tick = 0, ticks = interval_ms < TICK_MS ? 1 : (int)(interval_ms / TICK_MS);
    int64_t next = now_ms() + TICK_MS;
    if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev) < 0) die("epoll");
    for (;;) {
        int timeout = -1;
        if (interval_ms > 0) {
            int64_t now = now_ms();
            for (; next <= now; next += TICK_MS) {
                beat(tick, ticks);
                tick = (tick + 1) % ticks;
            }
            timeout = (int)(next - now);
        }
        int n = epoll_wait(ep, evs, EVENTS, timeout);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            if (evs[i].data.fd == listener)
                accept_some(listener, ep);
            else
                serve(evs[i].data.fd);
        }
    }
}

int main(int argc, char **argv) {
    const char *address = "127.0.0.1:9002";
    size_t size = 128;
    double interval_ms = 0;
    for (int i = 1; i < argc; i += 2) {
        char *unit = "";
        if (i + 1 < argc && !strcmp(argv[i], "--listen"))
            address = argv[i + 1];
        else if (i + 1 < argc && !strcmp(argv[i], "--size"))
            size = strtoul(argv[i + 1], NULL, 10);
        else if (i + 1 < argc && !strcmp(argv[i], "--heartbeat-interval"))
            interval_ms = strtod(argv[i + 1], &unit) * (strcmp(unit, "ms") ? 1000 : 1);
        else {
            fprintf(stderr, "usage: floor-c [--listen HOST:PORT] [--size BYTES] [--heartbeat-interval 2s]\n");
            return 2;
        }
    }
    struct rlimit rl;
    if (getrlimit(RLIMIT_NOFILE, &rl) < 0) die("getrlimit");
    rl.rlim_cur = rl.rlim_max;
    setrlimit(RLIMIT_NOFILE, &rl);
    conns_max = (int)rl.rlim_cur;
    conns = calloc((size_t)conns_max, sizeof *conns);
    if (!conns) die("calloc");
    prepare(size);
    run(listen_on(address), (int64_t)interval_ms);
}
