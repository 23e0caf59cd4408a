// A service that does what it reads, one letter a command, and answers each with a line. It makes memory calls for its
// commands alone, so between them it is idle.
//   g  a request that gives back what it takes      l  a request whose handler leaks three blocks of 1000 bytes
//   h  a request that keeps a block for ever        o  keeps a block elsewhere
//   f  forks a child that waits, and answers its pid
//   w  looks for children with waitpid; answers "none" if there are none and no SIGCHLD ever came
//   s  sets its group id, for which libc signals all threads
//   u  the deaf thread takes the signals that wait for it, and ends
//   q  the end
// Prints its pid first. With the argument `threads` two more threads wait meanwhile; with `deaf` one that has blocked
// all signals by a system call of its own, also those that libc keeps for itself.
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct held {
    struct held *next;
    char bytes[492];
};
static struct held *kept;
static void *once;
static volatile sig_atomic_t children;

__attribute__((noinline)) static void *fill(size_t size) {
    char *block = malloc(size);
    memset(block, 1, size);
    return block;
}

__attribute__((noinline)) static void good_handler(void) { free(fill(700)); }

__attribute__((noinline)) static void leaky_handler(void) {
    for (volatile int i = 0; i < 3; i++)
        fill(1000);
}

__attribute__((noinline)) static void keeping_handler(void) {
    struct held *one = fill(sizeof *one);
    one->next = kept;
    kept = one;
}

__attribute__((noinline)) static void once_handler(void) {
    if (!once)
        once = fill(300);
}

// Writes over what the handlers left on the stack.
__attribute__((noinline)) static void wipe(void) {
    volatile char room[4096];
    for (size_t i = 0; i < sizeof room; i++)
        room[i] = 0;
}

static void *wait_for_ever(void *arg) {
    for (;;)
        pause();
    return arg;
}

static pthread_t deaf_thread;
static pthread_barrier_t deaf;

static void *hear_nothing(void *arg) {
    unsigned long mask = ~0ul;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, sizeof mask);
    pthread_barrier_wait(&deaf);
    pthread_barrier_wait(&deaf);
    mask = 0;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, sizeof mask);
    return arg;
}

static void start_deaf_thread(void) {
    pthread_barrier_init(&deaf, 0, 2);
    pthread_create(&deaf_thread, 0, hear_nothing, 0);
    pthread_barrier_wait(&deaf);
}

static void end_deaf_thread(void) {
    pthread_barrier_wait(&deaf);
    pthread_join(deaf_thread, 0);
}

static void child_ended(int signal) { children += signal; }

static void fork_child(void) {
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(0);
        wait_for_ever(0);
    }
    dprintf(1, "%d\n", pid);
}

static void look_for_children(void) {
    int none = waitpid(-1, 0, WNOHANG) == -1 && errno == ECHILD && children == 0;
    dprintf(1, "%s\n", none ? "none" : "some");
}

int main(int argc, char **argv) {
    signal(SIGCHLD, child_ended);
    if (argc > 1 && strcmp(argv[1], "threads") == 0)
        for (int i = 0; i < 2; i++) {
            pthread_t thread;
            pthread_create(&thread, 0, wait_for_ever, 0);
        }
    if (argc > 1 && strcmp(argv[1], "deaf") == 0)
        start_deaf_thread();
    dprintf(1, "%d\n", getpid());
    char command;
    while (read(0, &command, 1) == 1 && command != 'q') {
        switch (command) {
        case 'g': good_handler(); break;
        case 'l': leaky_handler(); break;
        case 'h': keeping_handler(); break;
        case 'o': once_handler(); break;
        case 's':
            if (setgid(getgid()) != 0)
                return 1;
            break;
        case 'u': end_deaf_thread(); break;
        case 'f': fork_child(); continue;
        case 'w': look_for_children(); continue;
        default: continue;
        }
        wipe();
        if (write(1, "ok\n", 3) != 3)
            return 1;
    }
    return 0;
}
