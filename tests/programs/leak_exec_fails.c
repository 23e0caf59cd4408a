/* An exec that fails, beside threads: no SIGCHLD, nobody to wait for, threads and their uid changes go on. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static atomic_int signals, ready, stop;
static atomic_long steps[3];

static void count(int signal) { (void)signal; signals++; }

static void *work(void *number) {
    ready++;
    while (!stop)
        steps[(long)number]++;
    return NULL;
}

int main(void) {
    signal(SIGCHLD, count);
    pthread_t threads[3];
    for (long i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, work, (void *)i);
    while (ready < 3)
        sched_yield();
    char *arguments[] = {"nothing", NULL};
    int answer = execv("/nonexistent/program", arguments);
    int error = errno;
    long before[3];
    for (int i = 0; i < 3; i++)
        before[i] = steps[i];
    for (int i = 0; i < 3; i++)
        while (steps[i] == before[i])
            sched_yield();
    /* glibc has every thread do this, by signal 33. */
    int changed = setresgid(-1, getegid(), -1);
    int waited = waitpid(-1, NULL, __WALL);
    int nobody = errno;
    stop = 1;
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    printf("%d %d, %d, %d %d, %d signals\n", answer, error == ENOENT, changed, waited, nobody == ECHILD, signals);
    return 0;
}
