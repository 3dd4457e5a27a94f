/*
 * A hostile PKCS#11 module: whatever loads it makes the attempts that a file lists.
 *
 * $HOSTILE_DIR/attempts has a line for each: a name, a verb, its arguments. $HOSTILE_DIR/results
 * gets a line for each: the name, and "got" or "refused". An attempt counts as "got" only when what
 * it wanted was really obtained, and where that is data, when MARK is in it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static char data[1 << 16], todo[1 << 16];
static const char *mark;

static int has_mark(const char *bytes, ssize_t size) {
    return size > 0 && memmem(bytes, (size_t)size, mark, strlen(mark)) != NULL;
}

static int file_has_mark(const char *path) {
    int fd = open(path, O_RDONLY);
    if (fd < 0) return 0;
    ssize_t size = read(fd, data, sizeof data);
    close(fd);
    return has_mark(data, size);
}

static int memory_file(const char *pid, const char *address) {
    char path[4096];
    snprintf(path, sizeof path, "/proc/%s/mem", pid);
    int fd = open(path, O_RDONLY);
    if (fd < 0) return 0;
    ssize_t size = pread(fd, data, strlen(mark), (off_t)strtoull(address, NULL, 10));
    close(fd);
    return has_mark(data, size);
}

static int environment_file(const char *pid) {
    char path[4096];
    snprintf(path, sizeof path, "/proc/%s/environ", pid);
    return file_has_mark(path);
}

static int process_memory(const char *pid, const char *address) {
    struct iovec here = {data, strlen(mark)};
    struct iovec there = {(void *)strtoull(address, NULL, 10), strlen(mark)};
    return has_mark(data, process_vm_readv(atoi(pid), &here, 1, &there, 1, 0));
}

static int process_change(const char *pid, const char *address) {
    struct iovec here = {(void *)mark, strlen(mark)};
    struct iovec there = {(void *)strtoull(address, NULL, 10), strlen(mark)};
    return process_vm_writev(atoi(pid), &here, 1, &there, 1, 0) > 0;
}

static int traces(pid_t pid) { return ptrace(PTRACE_SEIZE, pid, 0, 0) == 0; }

static int steals_descriptor(const char *pid, const char *number) {
    int process = (int)syscall(SYS_pidfd_open, atoi(pid), 0);
    if (process < 0) return 0;
    int fd = (int)syscall(SYS_pidfd_getfd, process, atoi(number), 0);
    close(process);
    if (fd < 0) return 0;
    ssize_t size = pread(fd, data, sizeof data, 0);
    close(fd);
    return has_mark(data, size);
}

static int changes_limits(const char *pid) {
    struct rlimit now;
    return prlimit(atoi(pid), RLIMIT_NOFILE, NULL, &now) == 0 &&
           prlimit(atoi(pid), RLIMIT_NOFILE, &now, NULL) == 0;
}

static int connects_abstract(const char *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path + 1, name, sizeof address.sun_path - 2);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    int done = fd >= 0 && connect(fd, (struct sockaddr *)&address, size) == 0;
    if (fd >= 0) close(fd);
    return done;
}

static int listens(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int done = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
               listen(fd, 1) == 0;
    if (fd >= 0) close(fd);
    return done;
}

static int takes_port(const char *number) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    address.sin_port = htons((uint16_t)atoi(number));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int done = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    if (fd >= 0) close(fd);
    return done;
}

static int writes(const char *directory) {
    char path[4096];
    snprintf(path, sizeof path, "%s/planted", directory);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    if (fd < 0) return 0;
    close(fd);
    unlink(path);
    return 1;
}

static int runs_program(void) {
    pid_t child = fork();
    if (child == 0) {
        execl("/bin/true", "true", NULL);
        _exit(1);
    }
    int status = 1;
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

static int own_user_namespace(void) {
    pid_t child = fork();
    if (child == 0) _exit(unshare(CLONE_NEWUSER) != 0);
    int status = 1;
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

/* The initial stack has the environment with which the program was started. */
static int stack_has_mark(void) {
    int ends[2], found = 0;
    if (pipe(ends) != 0) return 0;
    size_t page = 4096;
    char *at = (char *)((size_t)environ[0] & ~(page - 1)) - 16 * page;
    for (int number = 0; number < 64 && !found; number++, at += page) {
        if (write(ends[1], at, page) != (ssize_t)page) continue; /* not mapped: EFAULT */
        found = has_mark(data, read(ends[0], data, page));
    }
    close(ends[0]);
    close(ends[1]);
    return found;
}

static int variable_has_mark(void) {
    for (char **one = environ; *one; one++)
        if (strstr(*one, mark)) return 1;
    return stack_has_mark();
}

/* A descriptor besides the standard ones that leads to a socket, or to a file with the mark. */
static int inherits_descriptor(void) {
    for (int fd = 3; fd < 4096; fd++) {
        struct stat info;
        if (fstat(fd, &info) != 0) continue;
        if (S_ISSOCK(info.st_mode)) return 1;
        if (S_ISREG(info.st_mode) && has_mark(data, pread(fd, data, sizeof data, 0))) return 1;
    }
    return 0;
}

static int attempt(const char *verb, const char *one, const char *two) {
    if (!strcmp(verb, "read")) return file_has_mark(one);
    if (!strcmp(verb, "mem")) return memory_file(one, two);
    if (!strcmp(verb, "environ")) return environment_file(one);
    if (!strcmp(verb, "readv")) return process_memory(one, two);
    if (!strcmp(verb, "writev")) return process_change(one, two);
    if (!strcmp(verb, "ptrace")) return traces(atoi(one));
    if (!strcmp(verb, "ptrace-parent")) return traces(getppid());
    if (!strcmp(verb, "kill")) return kill(atoi(one), SIGURG) == 0;
    if (!strcmp(verb, "kill-parent")) return kill(getppid(), SIGURG) == 0;
    if (!strcmp(verb, "getfd")) return steals_descriptor(one, two);
    if (!strcmp(verb, "limits")) return changes_limits(one);
    if (!strcmp(verb, "abstract")) return connects_abstract(one);
    if (!strcmp(verb, "listen")) return listens();
    if (!strcmp(verb, "port")) return takes_port(one);
    if (!strcmp(verb, "write")) return writes(one);
    if (!strcmp(verb, "run")) return runs_program();
    if (!strcmp(verb, "namespace")) return own_user_namespace();
    if (!strcmp(verb, "variable")) return variable_has_mark();
    if (!strcmp(verb, "descriptor")) return inherits_descriptor();
    return 1; /* an unknown verb must not look like a refusal */
}

__attribute__((constructor)) static void loaded(void) {
    static char path[4096], line[4096]; /* not on the stack, which is searched */
    const char *directory = getenv("HOSTILE_DIR");
    if (!directory) return;
    snprintf(path, sizeof path, "%s/attempts", directory);
    FILE *attempts = fopen(path, "r");
    snprintf(path, sizeof path, "%s/results", directory);
    FILE *results = fopen(path, "w");
    if (!attempts || !results || !fgets(line, sizeof line, attempts)) return;
    line[strcspn(line, "\n")] = 0;
    mark = strdup(line);
    size_t size = fread(todo, 1, sizeof todo - 1, attempts);
    todo[size] = 0;
    fclose(attempts); /* it has the mark, which no open file may have from now on */
    for (char *each = strtok(todo, "\n"); each; each = strtok(NULL, "\n")) {
        char name[256] = "", verb[64] = "", one[2048] = "-", two[256] = "-";
        if (sscanf(each, "%255[^\t]\t%63s %2047s %255s", name, verb, one, two) < 2) continue;
        fprintf(results, "%s\t%s\n", name, attempt(verb, one, two) ? "got" : "refused");
        fflush(results);
    }
    fclose(results);
}
