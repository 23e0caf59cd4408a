/* 1001 bytes before the fork, 1002 in the child, 1003 in the parent after it; all held. */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void *before, *after;

int main(void) {
    before = malloc(1001);
    pid_t child = fork();
    after = malloc(child == 0 ? 1002 : 1003);
    if (child == 0)
        _exit(0);
    int status;
    waitpid(child, &status, 0);
    return status;
}
