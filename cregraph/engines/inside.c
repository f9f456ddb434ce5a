/*
 * The way into a sandbox that somebody else made: the first process of a container (docs/adr/0010-a-program-inside.md).
 *
 * It reads /cregraph/spec (made by inside.py: records that end with NUL, the first byte says what a record is), makes what
 * is left of the contract (contract.py), runs the command, watches its limits, ends all that runs, and leaves its
 * answer in /cregraph/report. It is enter.py for places without CAP_SYS_ADMIN and without an interpreter: no libc, no
 * file of the root is needed. Where enter.py and this differ in what a command can see, one of them is wrong.
 *
 * x86-64 Linux; built by the line in inside.py, which also states the sha256 of the result.
 */

#include <asm/unistd.h>
#include <linux/capability.h>
#include <linux/errno.h>
#include <linux/prctl.h>

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;
typedef long i64;

#define O_RDONLY 0
#define O_WRONLY 1
#define O_RDWR 2
#define O_CREAT 0100
#define O_EXCL 0200
#define O_NOCTTY 0400
#define O_TRUNC 01000
#define O_DIRECTORY 0200000
#define O_NOFOLLOW 0400000
#define O_CLOEXEC 02000000
#define O_PATH 010000000
#define AT_NOFOLLOW 0x100
#define AT_REMOVE 0x200
#define SIGKILL 9
#define SIGSTOP 19
#define SIGCHLD 17
#define SIGTTOU 22
#define TIOCSPGRP 0x5410
#define SIOCGIFFLAGS 0x8913
#define HERE (-100)

/* ---- the kernel ---- */

static i64 call(i64 n, i64 a, i64 b, i64 c, i64 d, i64 e) {
    i64 result;
    register i64 r10 __asm__("r10") = d;
    register i64 r8 __asm__("r8") = e;
    register i64 r9 __asm__("r9") = 0; /* the offset of mmap */
    __asm__ volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return result;
}
#define sys0(n) call(n, 0, 0, 0, 0, 0)
#define sys1(n, a) call(n, (i64)(a), 0, 0, 0, 0)
#define sys2(n, a, b) call(n, (i64)(a), (i64)(b), 0, 0, 0)
#define sys3(n, a, b, c) call(n, (i64)(a), (i64)(b), (i64)(c), 0, 0)
#define sys4(n, a, b, c, d) call(n, (i64)(a), (i64)(b), (i64)(c), (i64)(d), 0)
#define sys5(n, a, b, c, d, e) call(n, (i64)(a), (i64)(b), (i64)(c), (i64)(d), (i64)(e))

struct times { i64 seconds, nanoseconds; };
struct status { /* struct stat of x86-64 */
    u64 dev, ino, nlink;
    u32 mode, uid, gid, pad;
    u64 rdev;
    i64 size, blksize, blocks;
    struct times atime, mtime, ctime;
    i64 unused[3];
};
struct room { i64 type, bsize; u64 blocks, bfree, bavail, files, ffree; int id[2]; i64 namelen, frsize, flags, spare[4]; };

void *memset(void *to, int value, u64 count) {
    u8 *at = to;
    while (count--) *at++ = (u8)value;
    return to;
}
void *memcpy(void *to, const void *from, u64 count) {
    u8 *at = to;
    const u8 *of = from;
    while (count--) *at++ = *of++;
    return to;
}
static u64 length(const char *text) { u64 n = 0; while (text[n]) n++; return n; }
static int compare(const char *a, const char *b) {
    while (*a && *a == *b) a++, b++;
    return (u8)*a - (u8)*b;
}
static int same(const char *a, const char *b) { return compare(a, b) == 0; }
static int begins(const char *text, const char *with) {
    while (*with) if (*text++ != *with++) return 0;
    return 1;
}

/* ---- memory: taken, never given back ---- */

static char *free_at, *free_end;

static void give_up(const char *why);

static void *take(u64 size) {
    size = (size + 15) & ~15UL;
    if (free_at + size > free_end) {
        u64 more = size > (4 << 20) ? size : (4 << 20);
        i64 got = call(__NR_mmap, 0, (i64)more, 3, 0x22, -1); /* private, anonymous */
        if (got < 0 && got > -4096) give_up("there is no memory for the sandbox's own records");
        free_at = (char *)got;
        free_end = free_at + more;
    }
    char *result = free_at;
    free_at += size;
    return result;
}

/* ---- the answer ---- */

struct text { char *at; u64 size, room; };
static struct text report;

static void add(struct text *to, const char *data, u64 size) {
    if (to->size + size > to->room) {
        u64 room = (to->size + size) * 2 + 4096;
        char *more = take(room);
        memcpy(more, to->at, to->size);
        to->at = more;
        to->room = room;
    }
    memcpy(to->at + to->size, data, size);
    to->size += size;
}
static void say(struct text *to, const char *text) { add(to, text, length(text)); }
static void number(struct text *to, i64 value) {
    char digits[24];
    int at = 24, minus = value < 0;
    u64 rest = minus ? (u64)-value : (u64)value;
    do digits[--at] = (char)('0' + rest % 10); while (rest /= 10);
    if (minus) digits[--at] = '-';
    add(to, digits + at, (u64)(24 - at));
}
static void end(struct text *to) { add(to, "", 1); }

static void write_all(int file, const char *data, u64 size) {
    while (size) {
        i64 done = sys3(__NR_write, file, data, size);
        if (done == -EINTR) continue;
        if (done <= 0) return;
        data += done;
        size -= (u64)done;
    }
}

#define SHOWN (64 << 10) /* bytes of a report that are printed */

/* Leave the report and end, with all that runs here. A failed RUN of BuildKit exports no file, so it is printed too. */
static void finish(int code) {
    if (report.size == 0) sys1(__NR_exit_group, code); /* a shell: nobody reads one */
    u64 whole = report.size;
    say(&report, ".");
    end(&report);
    sys1(__NR_unlink, "/cregraph/report");
    i64 file = sys3(__NR_open, "/cregraph/report", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (file >= 0) write_all((int)file, report.at, report.size);
    if (code) {
        struct text line = {0};
        u64 shown = report.size;
        if (shown > SHOWN) {
            for (shown = SHOWN; report.at[shown - 1]; shown--) {}
        }
        say(&line, "\ncregraph-report: ");
        for (u64 i = 0; i < shown; i++) {
            add(&line, &"0123456789abcdef"[(u8)report.at[i] >> 4], 1);
            add(&line, &"0123456789abcdef"[(u8)report.at[i] & 15], 1);
        }
        if (shown < whole) say(&line, "2e00");
        say(&line, "\n");
        write_all(2, line.at, line.size);
    }
    sys1(__NR_exit_group, code);
}

static void setup(const char *what, const char *about, i64 error) {
    report.size = 0;
    say(&report, "cregraph-report 1");
    end(&report);
    say(&report, "s");
    say(&report, what);
    say(&report, about);
    if (error < 0) {
        say(&report, ": error ");
        number(&report, -error);
    }
    end(&report);
    finish(220);
}
static void give_up(const char *why) {
    write_all(2, "cregraph: ", 10);
    write_all(2, why, length(why));
    write_all(2, "\n", 1);
    sys1(__NR_exit_group, 221);
}

/* ---- what to do ---- */

struct pair { const char *name, *value; };
struct list { const char **at; int count, room; };

static struct list arguments, environment, writable, removed, timeless;
static struct pair files[16], links[16];
static int n_files, n_links, terminal, leash, slot = -1;
static const char *cwd, *output, *hostname, *calls;
static u64 kept;
static i64 epoch;
static int mask = 022;
static struct { i64 seconds, memory, processes, file, temporary, spare; } limits;

static void push(struct list *to, const char *text) {
    if (to->count + 1 >= to->room) {
        int room = to->room * 2 + 64;
        const char **more = take((u64)room * sizeof *more);
        memcpy(more, to->at, (u64)to->count * sizeof *more);
        to->at = more;
        to->room = room;
    }
    to->at[to->count++] = text;
    to->at[to->count] = 0;
}

static i64 integer(const char *text) {
    i64 value = 0;
    int minus = *text == '-';
    if (minus) text++;
    while (*text >= '0' && *text <= '9') value = value * 10 + (*text++ - '0');
    return minus ? -value : value;
}

static char *contents(const char *path, u64 *size) {
    struct text found = {0};
    static char piece[1 << 16];
    i64 file = sys3(__NR_open, path, O_RDONLY | O_CLOEXEC, 0);
    if (file < 0) return 0;
    for (;;) {
        i64 got = sys3(__NR_read, file, piece, sizeof piece);
        if (got == -EINTR) continue;
        if (got <= 0) break;
        add(&found, piece, (u64)got);
    }
    sys1(__NR_close, file);
    *size = found.size;
    add(&found, "", 1);
    return found.at;
}

static int limit_of(const char *record) {
    static const struct { const char *name; i64 *place; } all[] = {
        {"seconds=", &limits.seconds}, {"memory=", &limits.memory}, {"processes=", &limits.processes},
        {"file=", &limits.file}, {"temporary=", &limits.temporary}, {"spare=", &limits.spare},
    };
    for (u64 i = 0; i < sizeof all / sizeof *all; i++)
        if (begins(record, all[i].name)) {
            *all[i].place = integer(record + length(all[i].name));
            return 1;
        }
    return 0;
}

static void read_spec(void) {
    u64 size = 0;
    char *data = contents("/cregraph/spec", &size);
    if (!data) setup("it was not told what to do: there is no ", "/cregraph/spec", 0);
    char *at = data, *stop = data + size;
    int whole = 0;
    if (size == 0 || !same(at, "cregraph-spec 1")) setup("what it was told is of another version than it is", "", 0);
    for (at += length(at) + 1; at < stop; at += length(at) + 1) {
        const char *rest = at + 1;
        switch (*at) {
        case 'a': push(&arguments, rest); break;
        case 'e': push(&environment, rest); break;
        case 'w': push(&writable, rest); break;
        case 'r': push(&removed, rest); break;
        case 'z': push(&timeless, rest); break;
        case 'd': cwd = rest; break;
        case 'o': output = rest; break;
        case 'h': hostname = rest; break;
        case 'k': kept = (u64)integer(rest); break;
        case 'u': mask = (int)integer(rest); break;
        case 't': epoch = integer(rest); break;
        case 'c': slot = (int)integer(rest); break;
        case 'q': calls = rest; break;
        case 'T': terminal = 1; break;
        case 'L': leash = 1; break;
        case 'l': if (!limit_of(rest)) setup("it was told of a limit that it does not know: ", rest, 0); break;
        case 'f': /* two records: the path, the text */
        case 's': {
            struct pair one = {rest, 0};
            at += length(at) + 1;
            if (at >= stop) setup("what it was told is cut", "", 0);
            one.value = at;
            if (rest[-1] == 'f' && n_files < 16) files[n_files++] = one;
            else if (rest[-1] == 's' && n_links < 16) links[n_links++] = one;
            break;
        }
        case '.': whole = 1; break;
        default: setup("it was told what it does not understand: ", at, 0);
        }
    }
    if (!whole || !arguments.count || !cwd || !output || !hostname) setup("what it was told is cut", "", 0);
}

/* ---- the place ---- */

static int look_at(const char *path, struct status *found) { return (int)sys4(__NR_newfstatat, HERE, path, found, AT_NOFOLLOW); }
static int is_folder(u32 mode) { return (mode & 0170000) == 0040000; }

static void set_epoch(const char *path) {
    struct times both[2] = {{epoch, 0}, {epoch, 0}};
    sys4(__NR_utimensat, HERE, path, both, AT_NOFOLLOW);
}

/* The folders in which something is made or removed, as they were: their times are put back when the place is made. */
static struct { char *path; struct status was; } touched[256];
static int n_touched;

static void remember(const char *path) {
    u64 size = length(path);
    while (size > 1 && path[size - 1] != '/') size--;
    if (size > 1) size--;
    char *parent = take(size + 2);
    memcpy(parent, path, size);
    parent[size] = 0;
    if (size == 0) parent[0] = '/', parent[1] = 0;
    for (int i = 0; i < n_touched; i++) if (same(touched[i].path, parent)) return;
    if (n_touched < 256 && sys2(__NR_stat, parent, &touched[n_touched].was) == 0) touched[n_touched++].path = parent;
}

static void remove_below(int folder);

static void remove_at(int folder, const char *name) {
    i64 error = sys3(__NR_unlinkat, folder, name, 0);
    if (error != -EISDIR && error != -EPERM) return;
    i64 inner = sys4(__NR_openat, folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    if (inner < 0) return;
    remove_below((int)inner);
    sys1(__NR_close, inner);
    sys3(__NR_unlinkat, folder, name, AT_REMOVE);
}

struct dirent { u64 ino; i64 off; unsigned short size; u8 type; char name[]; };

/* The names in an open folder, without . and .., each one taken from memory. */
static struct list names_in(int folder) {
    static char buffer[1 << 16];
    struct list found = {0};
    sys3(__NR_lseek, folder, 0, 0);
    for (;;) {
        i64 got = sys3(__NR_getdents64, folder, buffer, sizeof buffer);
        if (got <= 0) break;
        for (i64 at = 0; at < got;) {
            struct dirent *one = (struct dirent *)(buffer + at);
            at += one->size;
            if (same(one->name, ".") || same(one->name, "..")) continue;
            u64 size = length(one->name) + 1;
            char *name = take(size);
            memcpy(name, one->name, size);
            push(&found, name);
        }
    }
    return found;
}

static void remove_below(int folder) {
    struct list names = names_in(folder);
    for (int i = 0; i < names.count; i++) remove_at(folder, names.at[i]);
}

static void make_folders(const char *path, u32 mode) {
    char *copy = take(length(path) + 1);
    memcpy(copy, path, length(path) + 1);
    for (char *at = copy + 1;; at++) {
        char was = *at;
        if (was && was != '/') continue;
        *at = 0;
        remember(copy);
        i64 error = sys2(__NR_mkdir, copy, mode);
        if (error == 0) set_epoch(copy);
        else if (error != -EEXIST) setup("it cannot make the folder ", copy, error);
        if (!was) break;
        *at = was;
    }
}

static int holds(const char *path, const char *text) {
    u64 size;
    struct status found;
    if (look_at(path, &found) || (found.mode & 0170000) != 0100000) return 0;
    char *data = contents(path, &size);
    return data && size == length(text) && same(data, text);
}

static void make_file(const char *path, const char *text) {
    remember(path);
    if (!holds(path, text)) {
        /* In place first: where a container mounts a file there, it cannot be replaced. */
        i64 file = sys3(__NR_open, path, O_WRONLY | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0);
        if (file < 0) {
            remove_at(HERE, path);
            file = sys3(__NR_open, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
        }
        if (file < 0) setup("it cannot write ", path, file);
        write_all((int)file, text, length(text));
        sys1(__NR_close, file);
        if (!holds(path, text)) setup("it cannot write ", path, 0);
    }
    sys2(__NR_chmod, path, 0644);
    set_epoch(path);
}

static void make_link(const char *path, const char *target) {
    static char is[4096];
    remember(path);
    i64 size = sys3(__NR_readlink, path, is, sizeof is - 1);
    if (size >= 0) is[size] = 0;
    if (size < 0 || !same(is, target)) {
        remove_at(HERE, path);
        i64 error = sys2(__NR_symlink, target, path);
        if (error) setup("it cannot make the link ", path, error);
    }
    set_epoch(path);
}

/* Only the loopback may be up, and must be. */
static void check_network(void) {
    u64 size = 0;
    char *data = contents("/proc/net/dev", &size);
    i64 control = sys3(__NR_socket, 2, 2 | 02000000, 0);
    if (!data || control < 0) setup("it cannot see whether there is a network", "", control);
    int loopback = 0;
    for (char *line = data; *line;) {
        char *stop = line, *colon = 0;
        for (; *stop && *stop != '\n'; stop++) if (*stop == ':' && !colon) colon = stop;
        if (colon) {
            struct { char name[16]; short flags; char rest[24]; } request;
            memset(&request, 0, sizeof request);
            while (*line == ' ') line++;
            if (colon - line < 16) {
                memcpy(request.name, line, (u64)(colon - line));
                int up = sys3(__NR_ioctl, control, SIOCGIFFLAGS, &request) == 0 && (request.flags & 1);
                if (same(request.name, "lo")) loopback = up;
                else if (up) setup("it is not cut off from the network: there is ", request.name, 0);
            }
        }
        line = *stop ? stop + 1 : stop;
    }
    if (!loopback) setup("its loopback interface is not up", "", 0);
    sys1(__NR_close, control);
}

static void check_place(void) {
    struct { char name[6][65]; } system;
    struct status root, here;
    struct room space;
    if (sys0(__NR_getpid) != 1) setup("it is not the first process of a container", "", 0);
    if (sys0(__NR_getuid) != 0 || sys0(__NR_getgid) != 0) setup("it does not run as uid 0 and gid 0", "", 0);
    sys2(__NR_setgroups, 0, 0);
    sys1(__NR_uname, &system);
    if (!same(system.name[1], hostname) && sys2(__NR_sethostname, hostname, length(hostname)))
        setup("its hostname is not the contract's but ", system.name[1], 0);
    if (!same(system.name[5], "(none)") && sys2(__NR_setdomainname, "(none)", 6))
        setup("its domain name is ", system.name[5], 0);
    check_network();
    look_at("/", &root);
    static const char *const mounts[] = {"/proc", "/dev", "/tmp", "/dev/shm"};
    for (int i = 0; i < 4; i++) {
        if (look_at(mounts[i], &here) || !is_folder(here.mode) || here.dev == root.dev)
            setup("it has no file system of its own at ", mounts[i], 0);
        if (i >= 2 && (sys2(__NR_statfs, mounts[i], &space) || (i64)(space.blocks * (u64)space.bsize) > limits.temporary + 4096))
            setup("there is no limit to ", mounts[i], 0);
        if (i >= 2) sys2(__NR_chmod, mounts[i], 01777);
    }
}

/* Take away what containers add and give what they lack, with the times of folders as they were. */
static const char *make_place(void) {
    static char real[4096];
    char link[40] = "/proc/self/fd/";
    struct status found;
    remember("/cregraph/enter");
    static const char *const own[] = {"/cregraph/enter", "/cregraph/spec"};
    for (int i = 0; i < 2; i++) {
        i64 error = sys1(__NR_unlink, own[i]);
        if (error) setup("it cannot remove itself: ", own[i], error);
    }
    for (int i = 0; i < removed.count; i++) {
        if (terminal && begins(removed.at[i], "/dev/")) continue;
        remember(removed.at[i]);
        if (look_at(removed.at[i], &found) == 0) {
            remove_at(HERE, removed.at[i]);
            if (look_at(removed.at[i], &found) == 0) setup("it cannot remove ", removed.at[i], 0);
        }
    }
    for (int i = 0; i < n_files; i++) make_file(files[i].name, files[i].value);
    for (int i = 0; i < n_links; i++) make_link(links[i].name, links[i].value);
    static const char *const others[] = {"/dev/pts", "/dev/mqueue"};
    for (int i = 0; i < 2; i++) {
        i64 error = sys2(__NR_mkdir, others[i], 0755);
        if (error && error != -EEXIST) setup("it cannot make ", others[i], error);
        sys2(__NR_chmod, others[i], 0755);
    }
    remember(output);
    remove_at(HERE, output);
    make_folders(output, 0755);
    i64 folder = sys3(__NR_open, output, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    char digits[24];
    struct text spelled = {digits, 0, sizeof digits};
    number(&spelled, folder);
    end(&spelled);
    memcpy(link + 14, digits, spelled.size);
    i64 size = sys3(__NR_readlink, link, real, sizeof real - 1);
    if (folder < 0 || size <= 0) setup("it cannot find its output folder ", output, folder);
    real[size] = 0;
    sys1(__NR_close, folder);
    for (int i = 0; i <= writable.count; i++) {
        const char *place = i < writable.count ? writable.at[i] : output;
        if (begins(cwd, place) && cwd[length(place)] == '/') {
            make_folders(cwd, 0755);
            break;
        }
    }
    i64 error = sys1(__NR_chdir, cwd);
    if (error) setup("its folder cannot be entered: ", cwd, error);
    for (int i = 0; i < n_touched; i++) {
        struct times both[2] = {touched[i].was.atime, touched[i].was.mtime};
        sys4(__NR_utimensat, HERE, touched[i].path, both, 0);
    }
    for (int i = 0; i < timeless.count; i++) set_epoch(timeless.at[i]);
    return real;
}

static void take_one_processor(void) {
    u64 set[16], one[16];
    int all = 0, wanted, random = 0;
    memset(set, 0, sizeof set);
    memset(one, 0, sizeof one);
    i64 size = sys3(__NR_sched_getaffinity, 0, sizeof set, set);
    if (size <= 0) setup("its processors cannot be told", "", size);
    for (int i = 0; i < 1024; i++) all += (int)(set[i / 64] >> (i % 64) & 1);
    if (slot < 0) sys3(__NR_getrandom, &random, sizeof random, 0);
    wanted = (int)((u32)(slot < 0 ? random : slot) % (u32)(all ? all : 1));
    for (int i = 0; i < 1024; i++)
        if (set[i / 64] >> (i % 64) & 1 && wanted-- == 0) one[i / 64] |= 1UL << (i % 64);
    i64 error = sys3(__NR_sched_setaffinity, 0, (u64)size, one);
    if (error) setup("it cannot be bound to one processor", "", error);
}

static void drop_capabilities(void) {
    struct { u32 version; int pid; } head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct { u32 effective, permitted, inheritable; } data[2];
    for (int i = 0; i < 64; i++) {
        i64 has = sys2(__NR_prctl, PR_CAPBSET_READ, i);
        if (has < 0) break;
        if (has == 1 && !(kept >> i & 1)) {
            i64 error = sys2(__NR_prctl, PR_CAPBSET_DROP, i);
            if (error) setup("it cannot give up its capabilities", "", error);
        } else if (has == 0 && kept >> i & 1)
            setup("it lacks a capability that the contract gives (CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID or CAP_KILL)", "", 0);
    }
    sys5(__NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    memset(data, 0, sizeof data);
    data[0].effective = data[0].permitted = (u32)kept;
    data[1].effective = data[1].permitted = (u32)(kept >> 32);
    i64 error = sys2(__NR_capset, &head, data);
    if (!error) error = sys5(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (!error) error = sys5(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (error) setup("it cannot give up its capabilities", "", error);
}

static u8 nibble(char digit) { return (u8)(digit <= '9' ? digit - '0' : digit - 'a' + 10); }

/* The seccomp filter of calls.py, in hex. An emulated kernel (qemu's) has none; what is beneath it has the engine's. */
static void refuse_calls(void) {
    u64 size = calls ? length(calls) / 2 : 0;
    struct { unsigned short count; void *at; } program = {(unsigned short)(size / 8), take(size + 8)};
    for (u64 i = 0; i < size; i++) ((u8 *)program.at)[i] = (u8)(nibble(calls[2 * i]) << 4 | nibble(calls[2 * i + 1]));
    i64 error = size ? sys3(__NR_prctl, PR_SET_SECCOMP, 2, &program) : 0;
    if (error && error != -EINVAL && error != -ENOSYS) setup("it cannot refuse system calls", "", error);
}

/* ---- what was there, and what was changed ---- */

struct folder;
struct entry {
    const char *name;
    struct folder *below; /* of a folder in the same file system */
    u64 ino;
    i64 size;
    struct times mtime, ctime;
    u32 mode;
};
struct folder { struct entry *at; int count; };

static char path[1 << 16];
static u64 path_size;
static const char *skipped[16];
static int n_skipped;

static u64 enter_path(const char *name) {
    u64 was = path_size, size = length(name);
    if (path_size + size + 2 > sizeof path) give_up("a path below the sandbox's root is longer than 64 KiB");
    path[path_size++] = '/';
    memcpy(path + path_size, name, size + 1);
    path_size += size;
    return was;
}
static void leave_path(u64 was) {
    path_size = was;
    path[was] = 0;
}
static int is_skipped(void) {
    for (int i = 0; i < n_skipped; i++) if (same(path, skipped[i])) return 1;
    return 0;
}

static void sort(struct entry *all, int count) { /* a heap: no order of names is slow */
    for (int start = count / 2 - 1, stop = count; stop > 1;) {
        struct entry one;
        if (start >= 0) one = all[start];
        else {
            one = all[--stop];
            all[stop] = all[0];
        }
        int at = start >= 0 ? start : 0;
        for (int child; (child = 2 * at + 1) < stop; at = child) {
            if (child + 1 < stop && compare(all[child + 1].name, all[child].name) > 0) child++;
            if (compare(all[child].name, one.name) <= 0) break;
            all[at] = all[child];
        }
        all[at] = one;
        if (start >= 0) start--;
    }
}

/* What is in an open folder, sorted; folders in it are not entered. A mount has no time and no size. */
static struct folder *list_of(int file, u64 dev) {
    struct list names = names_in(file);
    struct folder *found = take(sizeof *found);
    found->at = take((u64)(names.count + 1) * sizeof *found->at);
    found->count = 0;
    for (int i = 0; i < names.count; i++) {
        struct status is;
        struct entry *one = &found->at[found->count];
        if (sys4(__NR_newfstatat, file, names.at[i], &is, AT_NOFOLLOW)) continue;
        memset(one, 0, sizeof *one);
        one->name = names.at[i];
        one->mode = is.mode;
        if (!is_folder(is.mode) || is.dev == dev) {
            one->ino = is.ino;
            one->size = is.size;
            one->mtime = is.mtime;
            one->ctime = is.ctime;
        }
        found->count++;
    }
    sort(found->at, found->count);
    return found;
}

static int open_in(int file, const char *name) {
    return (int)sys4(__NR_openat, file, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
}

static struct folder *remember_below(int file, u64 dev) {
    struct folder *found = list_of(file, dev);
    for (int i = 0; i < found->count; i++) {
        struct entry *one = &found->at[i];
        if (!is_folder(one->mode) || !one->ino) continue;
        u64 was = enter_path(one->name);
        if (!is_skipped()) {
            int inner = open_in(file, one->name);
            if (inner < 0) setup("a folder of its root cannot be read: ", path, inner);
            one->below = remember_below(inner, dev);
            sys1(__NR_close, inner);
        }
        leave_path(was);
    }
    return found;
}

static i64 changes;

static void changed(char how) {
    changes++;
    add(&report, &how, 1);
    add(&report, path, path_size);
    end(&report);
}

static int equal_times(struct times a, struct times b) { return a.seconds == b.seconds && a.nanoseconds == b.nanoseconds; }
static int unchanged(const struct entry *a, const struct entry *b) {
    return a->mode == b->mode && a->size == b->size && equal_times(a->mtime, b->mtime) && equal_times(a->ctime, b->ctime);
}

/* Whether a folder is another one than before: another number, and nothing in it that was there before. */
static int made_anew(const struct entry *old, const struct entry *new, const struct folder *is) {
    if (old->ino == new->ino || !old->below) return 0;
    for (int i = 0, j = 0; i < old->below->count && j < is->count;) {
        int order = compare(old->below->at[i].name, is->at[j].name);
        if (order == 0 && unchanged(&old->below->at[i], &is->at[j])) return 0;
        i += order <= 0;
        j += order >= 0;
    }
    return 1;
}

/*
 * Compare a folder with what it held before (null: nothing). `anew`: it is another folder, of which all is new. The verdicts are
 * those of capture.undeclared over an overlay's upper layer: a folder that is there as before is no change, one that
 * was not is named and not looked into.
 */
static void compare_below(int file, u64 dev, const struct folder *old, const struct folder *new, int anew, int light) {
    static const struct folder nothing;
    if (!old) old = &nothing;
    for (int i = 0, j = 0; i < old->count || j < new->count;) {
        int order = i >= old->count ? 1 : j >= new->count ? -1 : compare(old->at[i].name, new->at[j].name);
        const struct entry *before = order <= 0 ? &old->at[i++] : 0, *after = order >= 0 ? &new->at[j++] : 0;
        u64 was = enter_path((before ? before : after)->name);
        if (is_skipped()) {
        } else if (!after) {
            if (!anew) changed('d');
        } else if (!is_folder(after->mode)) {
            int as_before = light ? before && before->mode == after->mode && before->ino == after->ino : before && unchanged(before, after);
            if (anew || !as_before) changed('w');
        } else if (after->ino) { /* else a mount: the container's */
            int known = before && is_folder(before->mode);
            if (!known && (anew || !before)) changed('W');
            else {
                int inner = open_in(file, after->name);
                if (inner < 0) changed('W');
                else {
                    const struct folder *is = list_of(inner, dev);
                    int remade = !anew && (!known || made_anew(before, after, is));
                    if (remade) changed('a');
                    compare_below(inner, dev, known ? before->below : 0, is, anew || remade, light);
                    sys1(__NR_close, inner);
                }
            }
        }
        leave_path(was);
    }
}

static int odd;

/* Name what is no file, folder or link in an open folder: a tar would leave sockets out, and with them the reason to refuse. */
static void name_odd(int file) {
    struct list names = names_in(file);
    for (int i = 0; i < names.count; i++) {
        struct status is;
        if (sys4(__NR_newfstatat, file, names.at[i], &is, AT_NOFOLLOW)) continue;
        u32 type = is.mode >> 12;
        if (type == 8 || type == 10) continue;
        u64 was = enter_path(names.at[i]);
        if (type == 4) {
            int inner = open_in(file, names.at[i]);
            if (inner >= 0) name_odd(inner);
            sys1(__NR_close, inner);
        } else {
            changed(type == 1 ? 'F' : type == 12 ? 'S' : 'D');
            changes--;
            odd = 1;
        }
        leave_path(was);
    }
}

struct tree { const char *name; int file; u64 dev; struct folder *was; };

static void remember_tree(struct tree *tree) {
    struct status is;
    leave_path(0);
    if (!same(tree->name, "/")) enter_path(tree->name + 1);
    tree->file = open_in(HERE, tree->name);
    if (tree->file < 0 || sys4(__NR_newfstatat, HERE, tree->name, &is, AT_NOFOLLOW)) setup("it cannot read ", tree->name, tree->file);
    tree->dev = is.dev;
    tree->was = remember_below(tree->file, is.dev);
}
static void compare_tree(struct tree *tree) {
    leave_path(0);
    if (!same(tree->name, "/")) enter_path(tree->name + 1);
    compare_below(tree->file, tree->dev, tree->was, list_of(tree->file, tree->dev), 0, !same(tree->name, "/"));
}

/* ---- the command ---- */

static void limit(int which, i64 value, int hard_too) {
    u64 now[2], is = (u64)value;
    if (sys4(__NR_prlimit64, 0, which, 0, now)) return;
    if (is > now[1]) is = now[1];
    now[0] = is;
    if (hard_too) now[1] = is;
    sys4(__NR_prlimit64, 0, which, now, 0);
}

static const char *words_of(i64 error) {
    switch (-error) {
    case EPERM: return "Operation not permitted";
    case ENOENT: return "No such file or directory";
    case EIO: return "Input/output error";
    case E2BIG: return "Argument list too long";
    case ENOEXEC: return "Exec format error";
    case ENOMEM: return "Cannot allocate memory";
    case EACCES: return "Permission denied";
    case ENOTDIR: return "Not a directory";
    case EISDIR: return "Is a directory";
    case ETXTBSY: return "Text file busy";
    case ENAMETOOLONG: return "File name too long";
    case ELOOP: return "Too many levels of symbolic links";
    default: return "it cannot be run";
    }
}

static i64 start(const char *program) { return sys3(__NR_execve, program, arguments.at, environment.at); }

/* As execvpe(3) and Python's: the folders of the command's own PATH in order; an error other than absence is the one told. */
static i64 search(void) {
    const char *name = arguments.at[0], *folders = "/bin:/usr/bin";
    i64 told = 0, last = -ENOENT;
    for (const char *at = name; *at; at++) if (*at == '/') return start(name);
    for (int i = 0; i < environment.count; i++) if (begins(environment.at[i], "PATH=")) folders = environment.at[i] + 5;
    while (*name) {
        u64 size = 0;
        while (folders[size] && folders[size] != ':') size++;
        char *whole = take(size + length(name) + 2);
        memcpy(whole, folders, size);
        if (size) whole[size++] = '/';
        memcpy(whole + size, name, length(name) + 1);
        last = start(whole);
        if (last != -ENOENT && last != -ENOTDIR && !told) told = last;
        while (*folders && *folders != ':') folders++;
        if (!*folders++) break;
    }
    return told ? told : last;
}

struct action { void *handler; u64 flags; void *restorer; u64 set; };

static void become_the_command(void) {
    struct action plain = {0, 0, 0, 0}, ignore = {(void *)1, 0, 0, 0};
    u64 none = 0;
    if (terminal) { /* the terminal belongs to our session; the command becomes its foreground */
        int group = (int)sys0(__NR_getpid);
        sys2(__NR_setpgid, 0, 0);
        sys4(__NR_rt_sigaction, SIGTTOU, &ignore, 0, 8);
        sys3(__NR_ioctl, 0, TIOCSPGRP, &group);
    } else {
        sys0(__NR_setsid);
        i64 null = sys3(__NR_open, "/dev/null", O_RDONLY, 0);
        sys2(__NR_dup2, null, 0);
        if (null > 2) sys1(__NR_close, null);
        sys2(__NR_dup2, 1, 2); /* one log; our own words go to the second, which engines that cut long logs count apart */
    }
    limit(4, 0, 1);              /* core */
    limit(1, limits.file, 1);    /* size of a file */
    limit(2, limits.memory, 1);  /* data */
    limit(7, 4096, 1);           /* open files */
    limit(3, 8 << 20, 0);        /* stack */
    for (int i = 1; i < 65; i++)
        if (i != SIGKILL && i != SIGSTOP) sys4(__NR_rt_sigaction, i, &plain, 0, 8);
    sys4(__NR_rt_sigprocmask, 2, &none, 0, 8);
    i64 error = search();
    struct text line = {0};
    say(&line, "cregraph: cannot start `");
    say(&line, arguments.at[0]);
    say(&line, "`: ");
    say(&line, words_of(error));
    say(&line, "\n");
    write_all(2, line.at, line.size);
    sys1(__NR_exit_group, 127);
}

/* The processes beside this one, and the bytes that they hold resident and unshared. */
static void usage(int proc, i64 *count, i64 *bytes) {
    static char buffer[1 << 15];
    *count = *bytes = 0;
    sys3(__NR_lseek, proc, 0, 0);
    for (;;) {
        i64 got = sys3(__NR_getdents64, proc, buffer, sizeof buffer);
        if (got <= 0) return;
        for (i64 at = 0; at < got;) {
            struct dirent *one = (struct dirent *)(buffer + at);
            char place[64], fields[128];
            at += one->size;
            if (one->name[0] < '0' || one->name[0] > '9' || same(one->name, "1") || length(one->name) > 20) continue;
            ++*count;
            memcpy(place, one->name, length(one->name));
            memcpy(place + length(one->name), "/statm", 7);
            i64 file = sys4(__NR_openat, proc, place, O_RDONLY | O_CLOEXEC, 0);
            if (file < 0) continue;
            i64 read = sys3(__NR_read, file, fields, sizeof fields - 1);
            sys1(__NR_close, file);
            if (read <= 0) continue;
            fields[read] = 0;
            char *resident = fields;
            while (*resident && *resident != ' ') resident++;
            if (!*resident++) continue;
            char *shared = resident;
            while (*shared && *shared != ' ') shared++;
            if (*shared) *bytes += (integer(resident) - integer(shared + 1)) * 4096;
        }
    }
}

/* Whether nobody holds the other end of our stdin any more. */
static int let_go(void) {
    struct { int file; short wanted, found; } one = {0, 1, 0};
    char byte;
    if (!leash || sys3(__NR_poll, &one, 1, 0) <= 0) return 0;
    return one.found & 1 ? sys3(__NR_read, 0, &byte, 1) == 0 : one.found != 0;
}

static i64 now(void) {
    struct times is;
    sys2(__NR_clock_gettime, 1, &is);
    return is.seconds * 1000 + is.nanoseconds / 1000000;
}

/* Reap what dies until the command itself does, or a limit is passed. Its wait status; `why` says which limit, `code` as a number. */
static int watch(i64 command, struct text *why, int *code) {
    i64 deadline = now() + limits.seconds * 1000, proc = open_in(HERE, "/proc"), count, bytes;
    u64 children = 1UL << (SIGCHLD - 1);
    struct times wait = {0, 200000000};
    struct room disk;
    for (;;) {
        int status = 0;
        sys4(__NR_rt_sigtimedwait, &children, 0, terminal ? 0 : &wait, 8);
        for (;;) {
            i64 pid = sys4(__NR_wait4, -1, &status, 1, 0);
            if (pid == command) return status;
            if (pid <= 0) break;
        }
        if (terminal) continue;
        if (let_go()) {
            *code = 205;
            say(why, "cregraph was gone");
            return SIGKILL;
        }
        if (now() > deadline) {
            *code = 201;
            say(why, "it ran longer than ");
            number(why, limits.seconds);
            say(why, " s");
            return SIGKILL;
        }
        usage((int)proc, &count, &bytes);
        if (count > limits.processes) {
            *code = 202;
            say(why, "it had ");
            number(why, count);
            say(why, " processes at once; ");
            number(why, limits.processes);
            say(why, " are allowed");
            return SIGKILL;
        }
        if (bytes > limits.memory) {
            *code = 203;
            say(why, "its processes held ");
            number(why, bytes >> 20);
            say(why, " MiB of memory; ");
            number(why, limits.memory >> 20);
            say(why, " are allowed");
            return SIGKILL;
        }
        if (sys2(__NR_statfs, "/", &disk) == 0 && (i64)(disk.bavail * (u64)disk.frsize) < limits.spare) {
            *code = 204;
            say(why, "less than ");
            number(why, limits.spare >> 20);
            say(why, " MiB were left on the file system that it writes to");
            return SIGKILL;
        }
    }
}

static void end_all(void) {
    for (;;) {
        sys2(__NR_kill, -1, SIGKILL);
        i64 pid = sys4(__NR_wait4, -1, 0, 0, 0);
        if (pid < 0 && pid != -EINTR) return;
    }
}

void run(void) {
    struct text why = {0};
    int code = 0;
    u64 blocked = 1UL << (SIGCHLD - 1);
    read_spec();
    check_place();
    sys1(__NR_umask, mask);
    const char *real = make_place();
    take_one_processor();
    drop_capabilities();
    refuse_calls();
    static const char *const outside[] = {"/proc", "/sys", "/tmp", "/dev/shm", "/dev/pts", "/dev/mqueue", "/cregraph/in"};
    for (int i = 0; i < 7; i++) skipped[n_skipped++] = outside[i];
    for (int i = 0; i < writable.count && n_skipped < 14; i++) skipped[n_skipped++] = writable.at[i];
    skipped[n_skipped++] = real;
    struct tree root = {"/", 0, 0, 0}, devices = {"/dev", 0, 0, 0};
    if (!terminal) {
        remember_tree(&root);
        remember_tree(&devices);
    }
    sys4(__NR_rt_sigprocmask, 0, &blocked, 0, 8);
    i64 command = sys0(__NR_fork);
    if (command < 0) setup("it cannot start a process", "", command);
    if (command == 0) become_the_command();
    int status = watch(command, &why, &code);
    end_all();
    int ended = status & 127, result = ended ? -ended : status >> 8 & 255;
    if (terminal) finish(ended ? 128 + ended : result);
    say(&report, "cregraph-report 1");
    end(&report);
    say(&report, "x");
    number(&report, result);
    end(&report);
    say(&report, "o");
    say(&report, real);
    end(&report);
    if (why.size) {
        say(&report, "e");
        add(&report, why.at, why.size);
        end(&report);
    }
    if (!code) code = ended ? 128 + ended : result;
    if (!code) {
        compare_tree(&root);
        compare_tree(&devices);
        leave_path(0);
        int folder = open_in(HERE, real);
        if (folder >= 0) name_odd(folder);
        else {
            say(&report, "g");
            end(&report);
            code = 211;
        }
        say(&report, "n");
        number(&report, changes);
        end(&report);
        if (odd) code = 212;
        if (changes) code = 210;
    }
    finish(code);
}

__asm__(".globl _start\n_start:\n xor %ebp,%ebp\n and $-16,%rsp\n call run\n hlt\n");
